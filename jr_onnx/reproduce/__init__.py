"""The paper's tables and figures, measured anew, each with what it says of an attacker who knows the defence."""

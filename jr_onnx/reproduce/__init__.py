"""The paper's tables and figures reproduced, each with the result for an attacker who knows the defence."""

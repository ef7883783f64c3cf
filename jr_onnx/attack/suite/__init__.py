"""From single attacks to an evaluation: what to run, what came out, and what it means."""

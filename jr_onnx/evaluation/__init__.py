"""What attacks found: outcomes sample by sample, their statistics, the masking verdict, the summary; no torch."""

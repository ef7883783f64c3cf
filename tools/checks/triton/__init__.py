"""Packages held against a real Triton server: `python -m tools.checks.triton`."""

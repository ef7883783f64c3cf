"""What `tools/checks/gpu/run.py` checks and measures, one subject a file."""

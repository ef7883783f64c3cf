"""What `tools/check_gpu.py` checks and measures, one subject a file."""

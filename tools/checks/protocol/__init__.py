"""What `tools/checks/protocol/run.py` asks two servers, and how their answers are compared."""

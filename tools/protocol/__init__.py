"""What `tools/check_protocol.py` asks two servers, and how their answers are told apart."""

"""Benchmarks: how fast rewriting, the operator, sessions, attacks and the server are, compared with their peers."""

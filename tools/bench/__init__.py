"""Benchmarks: how fast rewriting, the operator, sessions, attacks and the server are, beside their peers."""

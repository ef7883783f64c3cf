"""The command line: one command per file, each importing its work inside the function."""

from jr_onnx.cli.app import main

__all__ = ["main"]

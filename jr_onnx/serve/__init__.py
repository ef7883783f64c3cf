"""The server: Open Inference Protocol v2 over REST and gRPC, built on kserve; never imports torch."""

from __future__ import annotations

from jr_onnx.serve.options import Address, Limits, Running, ServeOptions

__all__ = ["Address", "Limits", "Running", "ServeOptions", "serve"]


def __getattr__(name: str) -> object:
    """Import the server, and with it kserve, only when it is used."""
    if name == "serve":
        from jr_onnx.serve.start import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

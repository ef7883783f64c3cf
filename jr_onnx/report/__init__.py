"""Render an evaluation: what to decide first, then the figures behind it. Everything comes from records."""

from jr_onnx.report.content import Report, read
from jr_onnx.report.html import page, write, write_report

__all__ = ["Report", "page", "read", "write", "write_report"]

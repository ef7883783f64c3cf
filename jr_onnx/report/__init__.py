"""Render an evaluation: what to decide first, then the figures behind it. Everything comes from records."""

from jr_onnx.report.content import Report, read
from jr_onnx.report.html import page, write
from jr_onnx.report.section import Section

__all__ = ["Report", "Section", "page", "read", "write"]

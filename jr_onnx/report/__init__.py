"""Render an evaluation as a page: the verdict first, then the figures. Everything comes from records."""

from jr_onnx.report.html import page, write

__all__ = ["page", "write"]

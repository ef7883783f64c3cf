"""Render an evaluation as a page: the verdict first, then the figures. Everything comes from records."""

from jr_onnx.report.html import page, write_report

__all__ = ["page", "write_report"]

"""Find the ReLUs of a model, rewrite them to JumpReLU, and take it back; nothing else moves."""

from jr_onnx.rewriter.retrofit import Options, RewriteResult, restore, retrofit, rewrite
from jr_onnx.rewriter.sites import Other, Refusal, Site, SiteTable, find_sites

__all__ = [
    "Options",
    "Other",
    "Refusal",
    "RewriteResult",
    "Site",
    "SiteTable",
    "find_sites",
    "restore",
    "retrofit",
    "rewrite",
]

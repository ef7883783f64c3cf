"""Find the ReLUs of a model, rewrite them to JumpReLU, and take it back; nothing else moves."""

from jr_onnx.rewriter.api import fuse, restore, rewrite
from jr_onnx.rewriter.options import Options
from jr_onnx.rewriter.result import RewriteResult, RewrittenSite
from jr_onnx.rewriter.sites import Other, OwnJump, Refusal, Site, SiteTable, find_sites

__all__ = [
    "Options",
    "Other",
    "OwnJump",
    "Refusal",
    "RewriteResult",
    "RewrittenSite",
    "Site",
    "SiteTable",
    "find_sites",
    "fuse",
    "restore",
    "rewrite",
]

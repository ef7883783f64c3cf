"""What a rewrite did, as a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jr_onnx.records import Record
from jr_onnx.rewriter.sites import OwnJump, Refusal
from jr_onnx.semantics import SiteKappa


@dataclass(frozen=True, slots=True)
class RewrittenSite(Record):
    """One row of a result: what a site is now."""

    SCHEMA: ClassVar[str] = "jr_onnx.rewritten_site/1"
    id: str
    form: str
    dtype: str
    kappa: SiteKappa
    cap: float | None
    lowering: str
    reason: str


@dataclass(frozen=True, slots=True)
class RewriteResult(Record):
    """What a rewrite did.

    Attributes:
        sites: The rewritten sites, in graph order.
        skipped: Ids of sites that the plan or the filters left alone.
        refusals: ReLUs that cannot be rewritten, and gates and clamps that were left alone.
        changes: Everything else that changed, in words.
        warnings: What the user should know.
        source_sha256: Digest of the source.
        output: Path of the written file, None for protos and dry runs.
        external_data: How external data came to the output: none, reference, reflink, copy or hardlink.
        checker_problem: What onnx.checker reports for both the source and the result, None if nothing.
        proof: How it was proved that a conversion to another opset computes the same, None without a conversion.
        diff: Unified diff of the nodes, None unless it was asked for.
        left: Of jumps that the model has itself, those that could not be fused; empty where they were not asked for.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.rewrite_result/1"
    sites: tuple[RewrittenSite, ...]
    skipped: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    changes: tuple[str, ...]
    warnings: tuple[str, ...]
    source_sha256: str
    output: str | None = None
    external_data: str = "none"
    checker_problem: str | None = None
    proof: str | None = None
    diff: str | None = None
    left: tuple[OwnJump, ...] = ()

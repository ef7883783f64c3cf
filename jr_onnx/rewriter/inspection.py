"""What a model file is: its ReLUs, and of a retrofit the sites with their kappas, compared with the graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile import ModelFile
from jr_onnx.provenance import Provenance
from jr_onnx.records import Record
from jr_onnx.rewriter.agreement import Mismatch, examine
from jr_onnx.rewriter.optimised import is_optimised
from jr_onnx.rewriter.sites import SiteTable, locate
from jr_onnx.semantics import OP_DOMAIN, OP_TYPE, SiteKappa

_DRAWN_BY = {
    "input": "by jr_onnx.InferenceSession and jr-onnx serve, into the input {name!r}",
    "op": "by the op library",
    "graph": "by RandomUniform in the graph, which is predictable",
}


@dataclass(frozen=True, slots=True)
class InspectedSite(Record):
    """A site of a retrofit.

    Attributes:
        id: As in the original.
        form: How the ReLU was written.
        dtype: NumPy name of the element type.
        kappa: The jump, or one for each channel; None where it is drawn.
        kappa_range: The range that it is drawn from, or None.
        kappa_label: Either of them in words, and the input that it comes from.
        cap: Upper bound, or None.
        lowering: where, cast_mul, log_step, thresholded or custom.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.inspected_site/1"
    id: str
    form: str
    dtype: str
    kappa: SiteKappa | None
    kappa_range: tuple[float, float] | None
    kappa_label: str
    cap: float | None
    lowering: str


@dataclass(frozen=True, slots=True)
class InspectedRetrofit(Record):
    """What a retrofit says of itself, and whether its graph agrees.

    Attributes:
        source: File name of the original; "" for a model in memory.
        target: portable, cpu or cuda.
        draws: How kappa is drawn, in words; "" where it is fixed.
        optimised: Whether `jr-onnx optimize` wrote the file, so that nothing can be restored.
        sites: The sites, in graph order.
        mismatches: Where the graph is not what the provenance says; empty where it is.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.inspected_retrofit/1"
    source: str
    target: str
    draws: str
    optimised: bool
    sites: tuple[InspectedSite, ...]
    mismatches: tuple[Mismatch, ...]


def inspect(file: ModelFile) -> tuple[SiteTable, InspectedRetrofit | None]:
    """Return the ReLUs of a model other than its retrofitted sites, and the retrofit; None for any other model.

    Raises:
        ModelError: The file is not a usable model, or its provenance cannot be understood.
    """
    found = examine(file.proto, file.payloads, file.folder)
    record = found.record
    if record is None:
        return locate(file.proto, file.folder, payloads=file.payloads).table, None
    sites = tuple(
        InspectedSite(
            site.id, site.form, site.dtype, site.kappa if record.plan.random is None else None, _range(record.plan),
            record.plan.label(site.kappa), site.cap, site.lowering,
        )
        for site in record.sites
    )  # fmt: skip
    optimised = is_optimised(file.proto)
    retrofit = InspectedRetrofit(
        record.source_name, record.target, _draws(record), optimised, sites, found.mismatches
    )  # fmt: skip
    if found.original is None:
        table = locate(file.proto, file.folder, payloads=file.payloads).table
        own = f"{OP_DOMAIN}::{OP_TYPE}"
        return replace(table, others=tuple(item for item in table.others if item.op_type != own)), retrofit
    # Of the original, in which the retrofitted sites are the ReLUs they were: the others are what is left.
    table = locate(found.original, file.folder, payloads=found.payloads).table
    ids = {site.id for site in record.sites}
    sites_left = tuple(site for site in table.sites if site.id not in ids)
    refusals = tuple(item for item in table.refusals if item.id not in ids)  # a gate that was asked for
    if record.plan.own:  # a ReLU inside a jump went with it
        refusals = tuple(item for item in refusals if item.kind != "jump")
    jumps = tuple(item for item in table.jumps if item.id not in ids)
    return replace(table, sites=sites_left, refusals=refusals, jumps=jumps), retrofit


def _range(plan: KappaPlan) -> tuple[float, float] | None:
    return None if plan.random is None else (plan.random.low, plan.random.high)


def _draws(record: Provenance) -> str:
    random = record.plan.random
    if random is None:
        return ""
    name = record.undo.inputs_added[0] if record.undo.inputs_added else ""
    how = "once for the whole network" if random.per == "network" else "for every site"
    return f"kappa is drawn {how} in every run, {_DRAWN_BY[random.source].format(name=name)}"

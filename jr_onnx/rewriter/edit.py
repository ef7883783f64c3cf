"""The state of one rewrite: what was asked for, the names in use, what was done so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx

from jr_onnx.errors import RefusalError
from jr_onnx.kappa import KappaPlan
from jr_onnx.opsets import normal_domain
from jr_onnx.provenance import SiteRecord, Undo
from jr_onnx.rewriter.functions import Clones
from jr_onnx.rewriter.lowering import Choice, Jump, Names
from jr_onnx.rewriter.lowering.log_step import WITHOUT_KERNEL
from jr_onnx.rewriter.options import Options
from jr_onnx.rewriter.scopes import all_nodes
from jr_onnx.rewriter.sites import Site, SiteTable
from jr_onnx.semantics import SiteKappa

DEFAULTS_SINCE_IR = 4
"""From here on initializers need not be inputs, and those that are become optional."""


@dataclass
class Edit:
    """One rewrite while it goes on, and what it did.

    Attributes:
        model: The model, edited in place.
        options: What the caller asked for.
        plan: The kappa plan; once the sites are known, settled on their ids.
        names: The names that are taken.
        undo: What undoes the edit, besides the sites.
        folder: The folder that external data is relative to, or None.
        recorded: Kappa and lowering of every site as an earlier rewrite recorded them, which is done again; or None.
        table: Every site, refusal and other of the model as it was rewritten: after a demotion of its inputs.
        found: The sites of that table, and the gates and clamps, in graph order.
        records: The rewritten sites, in graph order.
        choices: Site id -> its lowering.
        changes: Everything else that changed, in words.
        clones: The cloned functions.
        runtime: Name of the scalar of the main graph that holds kappa at run time, or None.
        jumps: The jumps written as nodes of the op library.
        draws: Whether the op library draws kappa in front of the graph.
        cap_of_others: The cap that nodes of the op library name where they have none; None where they name none.
        kappa_is_input: Whether nodes of the op library read a fixed kappa at their second input, for some site has one
            for each channel.
        own: Site id -> kappa of a jump that the model has itself, where these are what is rewritten.
    """

    model: onnx.ModelProto
    options: Options
    plan: KappaPlan
    names: Names
    undo: Undo
    folder: Path | None = None
    recorded: Mapping[str, SiteRecord] | None = None
    table: SiteTable = field(default_factory=lambda: SiteTable((), (), ()))
    found: tuple[Site, ...] = ()
    records: list[SiteRecord] = field(default_factory=list)
    choices: dict[str, Choice] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    clones: Clones = field(default_factory=Clones)
    runtime: str | None = None
    jumps: list[Jump] = field(default_factory=list)
    draws: bool = False
    cap_of_others: float | None = None
    kappa_is_input: bool = False
    own: Mapping[str, SiteKappa] = field(default_factory=dict)

    @cached_property
    def not_run(self) -> str:
        """An operator of the model that ONNX Runtime does not run below opset 7, "" where there is none."""
        nodes = all_nodes(self.model)
        return next((str(node.op_type) for node in nodes if _is_without_kernel(node)), "")

    @cached_property
    def may_raise_ir(self) -> bool:
        """Whether raising the IR version leaves the meaning of the initializers as it is."""
        if self.model.ir_version >= DEFAULTS_SINCE_IR:
            return True
        inputs = {value.name for value in self.model.graph.input}
        return not any(tensor.name in inputs for tensor in self.model.graph.initializer)

    def raise_ir(self, version: int, what: str) -> None:
        """Raise the IR version where it is lower.

        Raises:
            RefusalError: Initializers that are also graph inputs would become overridable.
        """
        if self.model.ir_version >= version:
            return
        if not self.may_raise_ir:
            raise RefusalError(
                f"{what} needs IR {version}, and raising this model from IR {self.model.ir_version} would make "
                "its initializers, which are also graph inputs, overridable (and slow)",
                hint="Add --demote-initializer-inputs to take them off the inputs",
            )
        self.changes.append(f"IR version {self.model.ir_version} raised to {version}")
        self.model.ir_version = version


def _is_without_kernel(node: onnx.NodeProto) -> bool:
    return node.op_type in WITHOUT_KERNEL and not normal_domain(node.domain)

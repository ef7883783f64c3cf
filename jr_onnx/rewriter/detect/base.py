"""What a detector is given and what it may answer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property

import onnx

from jr_onnx import provenance
from jr_onnx.errors import ModelError
from jr_onnx.rewriter.constants import ConstantFinder
from jr_onnx.rewriter.detect.shapes import Shapes
from jr_onnx.rewriter.scopes import Scope, all_scopes
from jr_onnx.semantics import largest, round_to

_ACTIVATIONS = {"Relu", "Clip", "Max", "ThresholdedRelu", "JumpRelu"}


@dataclass(frozen=True)
class Context:
    """What detectors may ask about the model.

    Attributes:
        model: The whole model.
        constants: Proves values constant.
        shapes: Knows the shapes of values.
        functions: Keys of the model-local functions.
    """

    model: onnx.ModelProto
    constants: ConstantFinder
    shapes: Shapes
    functions: set[str]

    def consumers(self, scope: Scope) -> dict[str, list[onnx.NodeProto]]:
        """Return which nodes of a scope read a value, by its name."""
        if scope not in self._consumers:
            found: dict[str, list[onnx.NodeProto]] = {}
            for node in scope.nodes:
                for name in node.input:
                    found.setdefault(name, []).append(node)
            self._consumers[scope] = found
        return self._consumers[scope]

    @cached_property
    def _consumers(self) -> dict[Scope, dict[str, list[onnx.NodeProto]]]:
        return {}

    def is_retrofitted(self, scope: Scope, node: onnx.NodeProto, lowering: str) -> bool:
        """Tell whether a rewrite wrote this node, by the provenance: some lowerings end in what looks like a ReLU."""
        if not self._retrofitted:
            return False
        return self._retrofitted.get((scope.path, str(node.output[0]).partition("/jr_jumped")[0])) == lowering

    def is_activated_behind(self, scope: Scope, quantised: str) -> bool:
        """Tell whether a quantised value goes through DequantizeLinear into a ReLU, or into what one has become."""
        return (scope.path, quantised) in self._activated

    @cached_property
    def _activated(self) -> set[tuple[str, str]]:
        found = set()
        for scope in all_scopes(self.model):
            dequantised = {
                str(node.output[0]): str(node.input[0])
                for node in scope.nodes
                if node.op_type == "DequantizeLinear" and node.input and node.output
            }
            for node in scope.nodes:
                if node.op_type in _ACTIVATIONS and node.input and node.input[0] in dequantised:
                    found.add((scope.path, dequantised[node.input[0]]))
        return found

    @cached_property
    def _retrofitted(self) -> dict[tuple[str, str], str]:
        try:
            record = provenance.read(self.model)
        except ModelError:  # said wherever the provenance itself is wanted
            return {}
        return {(site.scope, site.output): site.lowering for site in record.sites} if record is not None else {}


@dataclass(frozen=True)
class Threshold:
    """What a jump of the model's own compares with; `rewriter.thresholds` reads the numbers.

    Attributes:
        scope: Where the thresholds are seen.
        name: What they are called there.
        axis: The axis of the operand along which they differ; None for a single threshold.
        count: How many may differ: 1 if all elements are known to be equal.
        rank: Rank of a tensor whose axis 1 is that axis: the operand's rank, less the axes in front of the last one.
        strict: Whether a value at its threshold becomes 0; if not, it passes.
        clamped: Whether a threshold below 0 counts as 0, for a ReLU lies in front.
    """

    scope: Scope
    name: str
    axis: int | None
    count: int
    rank: int
    strict: bool
    clamped: bool


@dataclass(frozen=True)
class Match:
    """A ReLU: `before` nodes compute `operand`, then J, then `after` nodes (a cap).

    Attributes:
        form: How it was written.
        operand: Name of the tensor that J is applied to; "" where `before` creates it.
        typed_by: Name of a tensor of the model that has the site's element type.
        cap: Upper bound, or None.
        before: Nodes that compute the operand, without names for their last output; empty unless unfused.
        after: The Clip that applies the cap to J's output, or None; an upper bound without a name is for the
            lowering to fill in.
        dtype: Element type, filled in by the caller.
        widened: The element type that the operand is cast to before it is compared, or 0; the caller checks that the
            cast is exact.
        jump: The thresholds of a jump that the model has itself; None for a ReLU.
    """

    form: str
    operand: str
    typed_by: str
    cap: float | None = None
    before: tuple[onnx.NodeProto, ...] = ()
    after: onnx.NodeProto | None = None
    dtype: str = field(default="")
    widened: int = 0
    jump: Threshold | None = None

    def with_dtype(self, dtype: str) -> Match:
        """Return the match with its element type and the cap rounded to it; a type's largest number is not a cap."""
        if self.cap is None:
            return dataclasses.replace(self, dtype=dtype)
        cap = round_to(self.cap, dtype)
        if cap >= largest(dtype):
            return dataclasses.replace(self, dtype=dtype, cap=None, after=None)
        return dataclasses.replace(self, dtype=dtype, cap=cap)


@dataclass(frozen=True)
class Refused:
    """A ReLU that cannot be rewritten."""

    reason: str


@dataclass(frozen=True)
class NotASite:
    """A ReLU-like operator that is not a ReLU."""

    reason: str


def attributes_of(node: onnx.NodeProto) -> dict[str, onnx.AttributeProto]:
    """Return the node's attributes by name."""
    return {attribute.name: attribute for attribute in node.attribute}

"""Flips at quantisation steps: a quantiser rounds to whole numbers, so it is as discontinuous as a jump.

Two correct evaluations of a quantised model compute what goes into a quantiser with other roundings. An element that
lies half-way between two steps may then become either, and the outputs differ by far more than rounding. ONNX Runtime's
optimiser leaves nothing of the quantisers by which one could see that (it fuses them into integer kernels, and turns
int8 into uint8), so what a step does is measured, with optimisation off, on the retrofit itself:

    F = max |y(one element of a quantiser's input moved across its next half-way point) - y|

over all quantisers and the few elements of each that lie nearest to such a point, output by output.

How many flips chance brings: an element x = s q, |q| <= 255, is computed with an error of a few units in the last place
of the largest value, w = 8 u 255 s (u the unit roundoff of float32, 8 as in `tolerance`). It lies within w of one of
the half-way points, which are s apart, with probability 2 w / s = 16 u 255 = 2.4e-4, whatever the scale. With n
elements in all quantisers, m = 2.4e-4 n flips are expected in a run, and 1 + m + 4 sqrt(m) are granted to it: a
difference up to the bound plus that many times F is a flip, anything larger a defect. How many *runs* may flip is
decided as for jumps (`flips`), from m.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.element_types import Array
from jr_onnx.modelfile import copied
from jr_onnx.verifier.compare import Value, largest_difference
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError
from jr_onnx.verifier.evaluators.ort import OrtSession, Runnable
from jr_onnx.verifier.inputs import Sample
from jr_onnx.verifier.whole_model.tolerance import FLOOR_ROUNDINGS, unit_roundoff

CHANCE: Final = 2 * FLOOR_ROUNDINGS * unit_roundoff("float32") * 255
"""Part of a quantiser's elements that rounding may move by a step; derived above."""

_DEVIATIONS = 4.0
_SAMPLES = 3
_RUNS = 96
_ELEMENTS = 4
_BEYOND = 1e-3  # part of a step by which an element is moved beyond the half-way point


@dataclass(frozen=True)
class StepFlip:
    """A difference that quantisation steps explain.

    Attributes:
        site: The quantiser whose steps move the outputs most.
        size: How far the outputs are apart.
        effect: What one step does to them.
    """

    site: str
    size: float
    effect: float

    def __str__(self) -> str:
        """One line for reports."""
        return (
            f"outputs differ by {self.size:.2g}; one quantisation step at {self.site} moves them by {self.effect:.2g}"
        )


@dataclass(frozen=True)
class _Quantiser:
    value: str
    moved: str
    scale: Array | None  # None where it follows from the data


class StepEffects:
    """What one step of a quantiser does to the outputs of a model, measured when it is first asked for.

    Args:
        model: A quantised retrofit.
        names: Its outputs.
    """

    def __init__(self, model: Runnable, names: Sequence[str]) -> None:
        self._names = list(names)
        proto, self._quantisers = _instrumented(model.file.proto)
        file = replace(model.file, proto=proto)
        self._runnable = Runnable(f"{model.name}, its quantisers moved", file, library=model.library)
        self._session: OrtSession | None = None
        self._measured = 0
        self._effects = [0.0] * len(self._names)
        self._worst = ""
        self._elements = 0

    def __bool__(self) -> bool:
        """Whether the model has a quantiser that can be reached."""
        return bool(self._quantisers)

    @property
    def expected(self) -> float:
        """How many flips chance brings to a run."""
        return CHANCE * self._elements

    def explain(
        self, one: Sequence[Value], other: Sequence[Value], bounds: Sequence[float], sample: Sample
    ) -> StepFlip | None:
        """Return the flip that explains why two evaluations of a run differ; None where no number of steps does.

        Args:
            one: Outputs of the first evaluation.
            other: Outputs of the second.
            bounds: The rounding bound of every output.
            sample: The inputs of the run.
        """
        try:
            self._measure(sample)
        except (CannotLoadError, CannotRunError):
            return None
        granted = 1.0 + self.expected + _DEVIATIONS * math.sqrt(self.expected)
        sizes = [largest_difference(left, right) for left, right in zip(one, other, strict=True)]
        for size, bound, effect in zip(sizes, bounds, self._effects, strict=True):
            if not size <= bound + granted * effect:
                return None
        return StepFlip(self._worst, max(sizes), max(self._effects))

    def _measure(self, sample: Sample) -> None:
        if self._measured >= _SAMPLES or not self._quantisers:
            return
        self._measured += 1
        self._session = self._session or OrtSession(self._runnable, "plain")
        still: dict[str, Array] = {item.moved: np.zeros((), np.float32) for item in self._quantisers}
        wanted = [*self._names, *(item.value for item in self._quantisers)]
        found = self._session.run({**sample, **still}, wanted)
        outputs, values = found[: len(self._names)], found[len(self._names) :]
        self._elements = max(self._elements, sum(int(np.asarray(value).size) for value in values))
        each = max(1, min(_ELEMENTS, _RUNS // len(self._quantisers)))
        for item, value in list(zip(self._quantisers, values, strict=True))[:_RUNS]:
            for move in _moves(np.asarray(value), item.scale, each):
                again = self._session.run({**sample, **still, item.moved: move}, self._names)
                self._enter(item.value, outputs, again)

    def _enter(self, name: str, outputs: Sequence[Value], again: Sequence[Value]) -> None:
        for index, (left, right) in enumerate(zip(outputs, again, strict=True)):
            size = largest_difference(left, right)
            if np.isfinite(size) and size > self._effects[index]:
                self._effects[index] = size
                if size == max(self._effects):
                    self._worst = name


def _moves(value: Array, scale: Array | None, count: int) -> list[Array]:
    """Return what to add to a quantiser's input so that one element crosses its next half-way point."""
    wide = value.astype(np.float64)
    if wide.size == 0 or not np.isfinite(wide).all():
        return []
    if scale is None:
        step = np.asarray(max(float(wide.max(initial=0.0)) - min(float(wide.min(initial=0.0)), 0.0), 0.0) / 255)
    else:
        step = np.asarray(scale, np.float64)
    if step.size != 1 or not float(step.reshape(())) > 0:
        return []
    size = float(step.reshape(()))
    part = wide / size - np.floor(wide / size)
    missing = (0.5 - part).reshape(-1)
    moves: list[Array] = []
    # Elements at zero are mostly those that a site cut off; rounding does not move them.
    order = np.argsort(np.where(wide.reshape(-1) == 0, np.inf, np.abs(missing)), kind="stable")
    for place in order[:count]:
        move = np.zeros(wide.size, np.float32)
        move[place] = size * (missing[place] + math.copysign(_BEYOND, missing[place]))
        moves.append(move.reshape(value.shape))
    return moves


def _instrumented(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[_Quantiser]]:
    """Return a copy whose quantisers quantise x + d, with every x as an output and every d as an input."""
    copy = copied(model)
    constants: Mapping[str, TensorProto] = {tensor.name: tensor for tensor in copy.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    found: list[_Quantiser] = []
    given = {value.name for value in copy.graph.output}
    # What quantises an input is left alone: there the same number is quantised in every evaluation.
    fixed = {*constants, *(value.name for value in copy.graph.input)}
    for node in copy.graph.node:
        scale = _scale_of(node, constants, fixed)
        if scale is not None:
            value, moved = str(node.input[0]), f"jr_verify_moved_{len(found)}"
            nodes.append(helper.make_node("Add", [value, moved], [f"{moved}/sum"], name=moved))
            node.input[0] = f"{moved}/sum"
            copy.graph.input.append(helper.make_tensor_value_info(moved, TensorProto.FLOAT, None))
            if value not in given:
                given.add(value)
                copy.graph.output.append(onnx.ValueInfoProto(name=value))
            found.append(_Quantiser(value, moved, scale if scale.size else None))
        nodes.append(node)
    kept = [copied(node) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy, found


def _scale_of(node: onnx.NodeProto, constants: Mapping[str, TensorProto], fixed: set[str]) -> Array | None:
    """Return the scale of a float32 quantiser of activations, an empty array where it is dynamic, None for others."""
    if not node.input or node.input[0] in fixed:
        return None
    if node.op_type == "DynamicQuantizeLinear":
        return np.zeros(0, np.float32)
    if node.op_type != "QuantizeLinear" or len(node.input) < 2 or node.input[1] not in constants:
        return None
    tensor = constants[node.input[1]]
    return numpy_helper.to_array(tensor) if tensor.data_type == TensorProto.FLOAT else None

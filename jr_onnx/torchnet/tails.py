"""The end of a classifier: what stands between its logits and its output, and keeps the order of the classes.

    ... -> Gemm -> z -> Mul 6 -> Softmax -> Mul 100 -> p       the logits are z

A softmax, a temperature or a scale changes no answer, but it can hide the gradient from an attack. So the logits are
the earliest value behind which every operator is strictly increasing, the same way for every class of a sample:

| kind | operators |
|---|---|
| order of elements kept | Identity, Dropout, Reshape, Flatten, (Un)Squeeze, Transpose, Expand, Cast unless narrower |
| increasing function | Sigmoid, Tanh, Exp, Log, Sqrt, Erf, Softplus, Softsign, Atan, (A)Sinh, odd Pow, ... |
| along the classes | Softmax, LogSoftmax, LpNormalization |
| with one number per sample | Add and Sub of any, Mul and Div by a positive one |

The number may be a constant or computed, as the sum of the exponentials is. A bias or a scale per class, a negative
scale, a clip, a rounding, a conversion to a narrower type and everything else ends the search: they can change the
order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jr_onnx.errors import ModelError
from jr_onnx.torchnet.building import Compiled
from jr_onnx.torchnet.program import ABSENT, OpStep, Values

_MOVED = ("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand")
_INCREASING = (
    "Sigmoid", "Tanh", "Exp", "Log", "Sqrt", "Erf", "Softplus", "Softsign", "Atan", "Sinh", "Asinh", "Selu",
)  # fmt: skip
_SLOPED = {"LeakyRelu": 0.01, "Elu": 1.0, "Celu": 1.0}
"""Increasing where the attribute alpha is positive -> its default."""

_POSITIVE = ("Exp", "Sigmoid", "Softmax", "Softplus")
_POSITIVE_IF_INPUTS_ARE = (
    "Identity", "Add", "Mul", "Div", "Sqrt", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "Max", "Reshape",
    "Squeeze", "Unsqueeze", "Expand", "Cast",
)  # fmt: skip
_NORMS = ("ReduceL1", "ReduceL2")
"""Positive but where all logits are 0, which has no order to change."""

_DEPTH = 32
_OLD_SOFTMAX = 13
"""Below this operator set a softmax flattens what follows its axis."""


@dataclass(frozen=True)
class Tail:
    """Where the logits are.

    Attributes:
        place: The place of the logits.
        ops: The operators behind them, in the order of the graph.
        threshold: For a model of one score: the output above which the answer is class 1; None where the graph does not
            tell, and for a model of several classes.
    """

    place: int
    ops: tuple[str, ...] = ()
    threshold: float | None = None


def is_matrix(result: Tensor, batch: int) -> bool:
    """Return whether a value is (batch, classes), axes of length one aside, or (batch,): one score per sample."""
    return (
        result.is_floating_point()
        and result.dim() > 0
        and result.shape[0] == batch
        and sum(size > 1 for size in result.shape[1:]) <= 1
    )


def find_tail(compiled: Compiled, values: Values, batch: int) -> Tail:
    """Find the logits that a matrix of scores comes from.

    Args:
        compiled: Ends at the scores.
        values: All values of a trial run.
        batch: Its number of samples.

    Raises:
        ModelError: A softmax over a single class, whose answer is always the same.
    """
    search = _Search(compiled, values, batch)
    place = compiled.result
    passed: list[OpStep] = []
    single = values[place].numel() == batch
    while True:
        step = search.producer(place)
        before = search.scores_before(step) if step is not None else None
        if step is None or before is None:
            break
        if single and step.op_type in ("Softmax", "LogSoftmax"):
            raise ModelError(
                f"the model ends in a {step.op_type} over one class, whose answer is always the same",
                hint="Export the model with one score and Sigmoid, or with a score per class",
            )
        passed.append(step)
        place = before
        if single and step.op_type == "Sigmoid":
            return Tail(place, _names(passed), search.pushed(0.5, passed[:-1]))
    if single:  # without a sigmoid the graph does not tell where the two classes part
        return Tail(compiled.result)
    return Tail(place, _names(passed))


def _names(passed: list[OpStep]) -> tuple[str, ...]:
    return tuple(step.op_type for step in reversed(passed) if step.op_type not in _MOVED)


class _Search:
    """Walks from a program's result towards its input."""

    def __init__(self, compiled: Compiled, values: Values, batch: int) -> None:
        self._values, self._batch = values, batch
        self._single = values[compiled.result].numel() == batch
        self._producers = {place: step for step in compiled.program.steps for place in step.outputs}
        constants = compiled.compiler.constants
        self._constant = {
            *constants,
            *(at for source, at in compiled.compiler.on_device.items() if source in constants),
        }

    def producer(self, place: int) -> OpStep | None:
        """Return the operator that makes a value; None for an input, a site, a branch."""
        step = self._producers.get(place)
        return step if isinstance(step, OpStep) and step.domain == "" else None

    def scores_before(self, step: OpStep) -> int | None:
        """Return the input whose order of classes an operator keeps, None where none is."""
        if step.op_type in ("Add", "Sub", "Mul", "Div"):
            return self._arithmetic(step)
        place = step.inputs[0] if step.inputs else -1
        check = _CHECKS.get(step.op_type)
        if check is None or place < 0 or not self._alike(place, step.outputs[0]):
            return None
        return place if check(self, step) else None

    def pushed(self, value: float, steps: list[OpStep]) -> float:
        """Return what becomes of a number that goes through some operators, the last of them first in the list."""
        for step in reversed(steps):
            given = [self._values[place] if place >= 0 else None for place in step.inputs]
            at = next(index for index, place in enumerate(step.inputs) if place == self.scores_before(step))
            given[at] = torch.full_like(self._values[step.inputs[at]], value)
            result = step.function(*given)
            value = float((result if isinstance(result, Tensor) else result[0]).reshape(-1)[0])
        return value

    def _alike(self, before: int, after: int) -> bool:
        one, other = self._values[before], self._values[after]
        return is_matrix(one, self._batch) and is_matrix(other, self._batch) and one.numel() == other.numel()

    def _arithmetic(self, step: OpStep) -> int | None:
        first, second = step.inputs
        orders = [(first, second)] if step.op_type in ("Sub", "Div") else [(first, second), (second, first)]
        for scores, other in orders:
            if self._single and other not in self._constant:
                continue  # each sample would have a threshold of its own
            if not self._alike(scores, step.outputs[0]) or not self._one_per_sample(other, step.outputs[0]):
                continue
            if step.op_type in ("Add", "Sub") and self._finite(other):
                return scores
            if step.op_type in ("Mul", "Div") and self._is_positive(other, _DEPTH):
                return scores
        return None

    def _class_axis(self, place: int) -> int:
        """Return the axis of the classes, counted from the end: -1 is the last."""
        shape = self._values[place].shape
        long = [axis for axis in range(1, len(shape)) if shape[axis] > 1]
        return (long[0] if long else len(shape) - 1) - len(shape)

    def _one_per_sample(self, place: int, like: int) -> bool:
        """Return whether a value adds the same to every class of a sample when it is broadcast to the scores."""
        value, axis = self._values[place], self._class_axis(like)
        if value is ABSENT or value.dim() > self._values[like].dim():
            return False
        step = self.producer(place)
        if step is not None and step.op_type == "Expand":
            return self._one_per_sample(step.inputs[0], like)
        if value.dim() < -axis or value.shape[axis] == 1:
            return True
        return place in self._constant and bool((value == value.narrow(axis, 0, 1)).all())

    def _finite(self, place: int) -> bool:
        return place not in self._constant or bool(torch.isfinite(self._values[place]).all())

    def _is_positive(self, place: int, depth: int) -> bool:
        value, step = self._values[place], self.producer(place)
        if place in self._constant:
            return bool((torch.isfinite(value) & (value > 0)).all())
        if step is None or depth == 0:
            return False
        given = [at for at in step.inputs if at >= 0]
        if step.op_type in _POSITIVE or step.op_type in _NORMS:
            return True
        if step.op_type == "Clip":
            return len(given) > 1 and step.inputs[1] >= 0 and self._is_positive(step.inputs[1], depth - 1)
        if step.op_type == "Max":
            return any(self._is_positive(at, depth - 1) for at in given)
        if step.op_type not in _POSITIVE_IF_INPUTS_ARE:
            return False
        operands = given if step.op_type in ("Add", "Mul", "Div") else given[:1]
        return all(self._is_positive(at, depth - 1) for at in operands)

    def is_along_classes(self, step: OpStep) -> bool:
        """Return whether a softmax or a normalisation goes over the classes of each sample."""
        value = self._values[step.inputs[0]]
        axis = step.number("axis", 1 if step.op_type != "LpNormalization" and step.opset < _OLD_SOFTMAX else -1)
        axis = int(axis) % value.dim()
        mine = value.dim() + self._class_axis(step.inputs[0])
        if step.op_type != "LpNormalization" and step.opset < _OLD_SOFTMAX:
            return bool(1 <= axis <= mine)
        return bool(axis == mine)

    def is_no_narrower(self, step: OpStep) -> bool:
        """Return whether a conversion keeps every value."""
        before, after = self._values[step.inputs[0]].dtype, self._values[step.outputs[0]].dtype
        return bool(torch.promote_types(before, after) == after)

    def is_odd_power(self, step: OpStep) -> bool:
        """Return whether the exponent is a constant 1, 3, 5, ..., or any positive one of positive scores."""
        exponent = step.inputs[1]
        if exponent not in self._constant or self._values[exponent].numel() != 1:
            return False
        number = float(self._values[exponent].reshape(()))
        odd = number > 0 and math.isfinite(number) and number % 2 == 1
        return odd or (0 < number < math.inf and self._is_positive(step.inputs[0], _DEPTH))


_Check = Callable[[_Search, OpStep], bool]


def _sloped(default: float) -> _Check:
    return lambda _, step: step.number("alpha", default) > 0


def _selu(_: object, step: OpStep) -> bool:
    return all(step.number(name, 1.0) > 0 for name in ("alpha", "gamma"))


_CHECKS: dict[str, _Check] = {
    **dict.fromkeys((*_MOVED, *_INCREASING), lambda *_: True),
    **{name: _sloped(default) for name, default in _SLOPED.items()},
    "Selu": _selu,
    "Softmax": _Search.is_along_classes,
    "LogSoftmax": _Search.is_along_classes,
    "LpNormalization": _Search.is_along_classes,
    "Cast": _Search.is_no_narrower,
    "CastLike": _Search.is_no_narrower,
    "Pow": _Search.is_odd_power,
}

"""Arithmetic on sizes: what `Shape -> Gather -> Concat -> Reshape` and the like compute, element by element.

An element is a `Size`, a float, a bool or a string; None for a number that is not known but the same for every batch;
`CHANGING` for one that depends on the batch in a way that is not followed. Only operators whose inputs are all known
come here; a function returns None where it cannot say.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import onnx

from jr_onnx.rows.node import Node
from jr_onnx.rows.size import Size
from jr_onnx.rows.value import CHANGING, LARGEST_CONTENT, Content, changes, integers

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
_MOST = 1 << 31
"""From here on numbers of 32 bits wrap around; what is computed beyond is not known."""

_MOST_TIMES_BATCH = 1 << 22
"""Times the number of rows; 512 rows bring that to where numbers of 32 bits wrap around."""

_MOST_FLOAT = 2048
"""Whole numbers up to here are exact in every floating type, half precision included."""


def _unknown(*elements: object) -> Any:
    return CHANGING if any(changes(element) for element in elements) else None


def _plain(element: object) -> Any:
    """Return an element's value where it is a plain number or truth value."""
    if isinstance(element, Size):
        return element.number
    return element if isinstance(element, bool | float) else None


def _wrap(number: Any) -> Any:
    """Return a computed number as an element, None where the runtime's own type may have rounded it or wrapped it."""
    if isinstance(number, bool):
        return number
    if isinstance(number, float):
        return number if number.is_integer() and abs(number) <= _MOST_FLOAT else None
    return Size(int(number)) if abs(number) < _MOST else None


def _arithmetic(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def run(one: Any, other: Any) -> Any:
        a, b = _plain(one), _plain(other)
        if a is None or b is None:
            return _unknown(one, other)
        return _wrap(function(a, b))

    return run


def _multiply(one: Any, other: Any) -> Any:
    if isinstance(one, Size) and isinstance(other, Size):
        result = one * other
        most = _MOST_TIMES_BATCH if result.has_batch else _MOST
        return result if abs(result.factor) < most else _unknown(one, other)
    return _arithmetic(operator.mul)(one, other)


def _subtract(one: Any, other: Any) -> Any:
    if isinstance(one, Size) and one == other:
        return Size(0)
    if other == Size(0):
        return one
    return _arithmetic(operator.sub)(one, other)


def _add(one: Any, other: Any) -> Any:
    if one == Size(0):
        return other
    if other == Size(0):
        return one
    return _arithmetic(operator.add)(one, other)


def _divide(one: Any, other: Any) -> Any:
    if isinstance(one, Size) and isinstance(other, Size):
        exact = one.divided(other)
        if exact is not None:
            return exact
        a, b = one.number, other.number
        if a is None or not b:
            return _unknown(one, other)
        return Size(abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1))  # integers are cut off towards 0
    if isinstance(one, float) and isinstance(other, float) and other:
        return _wrap(one / other)
    return _unknown(one, other)


def _equal(one: Any, other: Any) -> Any:
    if isinstance(one, Size) and isinstance(other, Size):
        if one == other:
            return True
        named, plain = (one, other) if one.names else (other, one)
        if plain.number is not None and plain.number < 0 < named.factor:
            return False  # a size is never negative
    return _arithmetic(operator.eq)(one, other)


def _largest(one: Any, other: Any) -> Any:
    return one if one == other and one is not CHANGING else _arithmetic(max)(one, other)


def _smallest(one: Any, other: Any) -> Any:
    return one if one == other and one is not CHANGING else _arithmetic(min)(one, other)


def _pairwise(function: Callable[[Any, Any], Any]) -> Callable[[Node], Content | None]:
    def run(node: Node) -> Content | None:
        if node.attr("broadcast", 0):
            return None
        first, *others = _contents(node)
        for other in others:
            if np.broadcast(first, other).size > LARGEST_CONTENT:
                return None
            first = np.asarray(np.frompyfunc(function, 2, 1)(first, other), dtype=object)
        return first

    return run


def _single(function: Callable[[Any], Any]) -> Callable[[Node], Content | None]:
    def run(node: Node) -> Content | None:
        return np.asarray(np.frompyfunc(function, 1, 1)(_contents(node)[0]), dtype=object)

    return run


def _contents(node: Node) -> list[Content]:
    return [value.content for value in node.inputs if value is not None and value.content is not None]


def _of_float(function: Callable[[float], float]) -> Callable[[Any], Any]:
    return lambda x: float(function(x)) if isinstance(x, float) and math.isfinite(x) else _unknown(x)


def _remainder(one: Any, other: Any) -> Any:
    return _arithmetic(operator.mod)(one, other) if _plain(other) else _unknown(one, other)


def _modulo(node: Node) -> Content | None:
    return None if node.attr("fmod", 0) else _pairwise(_remainder)(node)


def _negate(x: Any) -> Any:
    if isinstance(x, Size):
        return x * Size(-1)
    return -x if isinstance(x, float) else _unknown(x)


def _invert(x: Any) -> Any:
    return not x if isinstance(x, bool) else _unknown(x)


def _cast(node: Node) -> Content | None:
    target = node.integer("to")
    result: Content = np.asarray(np.frompyfunc(lambda x: _cast_one(x, target), 1, 1)(_contents(node)[0]), dtype=object)
    return result


def _cast_one(x: Any, target: int) -> Any:
    if target in _INTEGERS and isinstance(x, Size):
        return x
    plain = _plain(x)
    if plain is None or (isinstance(plain, float) and not math.isfinite(plain)):
        return _unknown(x)
    if target in _INTEGERS:
        return _wrap(int(plain))
    if target in _FLOATS:
        return _wrap(float(plain))
    return bool(plain) if target == onnx.TensorProto.BOOL else _unknown(x)


def _choose(node: Node) -> Content | None:
    condition, yes, no = _contents(node)

    def one(chosen: Any, a: Any, b: Any) -> Any:
        if isinstance(chosen, bool):
            return a if chosen else b
        return a if isinstance(a, Size) and a == b else _unknown(chosen, a, b)

    if np.broadcast(condition, yes, no).size > LARGEST_CONTENT:
        return None
    return np.asarray(np.frompyfunc(one, 3, 1)(condition, yes, no), dtype=object)


def _gather(node: Node) -> Content | None:
    data, _ = _contents(node)
    axis = int(node.attr("axis", 0))
    indices = integers(node.value(1))
    if indices is None or not -data.ndim <= axis < data.ndim or any(not _fits(i, data.shape[axis]) for i in indices):
        return None
    shape = [int(size.factor) for size in node.value(1).dims or ()]
    return np.asarray(np.take(data, np.asarray(indices, dtype=np.int64).reshape(shape), axis=axis), dtype=object)


def _fits(index: int, size: int) -> bool:
    return -size <= index < size


def _concat(node: Node) -> Content | None:
    return np.concatenate(_contents(node), axis=int(node.attr("axis", 1)))


def axes_of(node: Node, index: int, name: str = "axes") -> list[int] | None:
    """Return axes given as an attribute or, later, as an input; None where they are left away or not known."""
    given = node.ints(name)
    return integers(node.find(index)) if given is None else given


def _slices_of(node: Node, rank: int) -> dict[int, slice] | None:
    """Return what Slice takes of each axis it names, None where that is not known."""
    if node.version < 10:
        starts, ends = node.ints("starts") or [], node.ints("ends") or []
        axes: Sequence[int] | None = node.ints("axes")
        steps: Sequence[int] | None = None
    else:
        found = integers(node.find(1)), integers(node.find(2))
        if found[0] is None or found[1] is None:
            return None
        starts, ends = found[0], found[1]
        axes, steps = integers(node.find(3)), integers(node.find(4))
        if (axes is None and node.find(3) is not None) or (steps is None and node.find(4) is not None):
            return None
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or any(not -rank <= axis < rank for axis in axes):
        return None
    parts = zip(axes, starts, ends, steps, strict=True)
    return {axis % rank: slice(start, end, step) for axis, start, end, step in parts if step}


def _cut(node: Node) -> Content | None:
    data = _contents(node)[0]
    parts = _slices_of(node, data.ndim)
    if parts is None or any(part.step < 0 for part in parts.values()):
        return None
    return np.asarray(data[tuple(parts.get(axis, slice(None)) for axis in range(data.ndim))], dtype=object)


def _unsqueeze(node: Node) -> Content | None:
    axes = axes_of(node, 1)
    if axes is None:
        return None
    return np.asarray(np.expand_dims(_contents(node)[0], tuple(axes)), dtype=object)


def _squeeze(node: Node) -> Content | None:
    axes = axes_of(node, 1)
    if axes is None and node.find(1) is not None:
        return None
    return np.asarray(np.squeeze(_contents(node)[0], None if axes is None else tuple(axes)), dtype=object)


def _reshape(node: Node) -> Content | None:
    target = integers(node.find(1))
    if target is None or 0 in target:
        return None
    return np.asarray(_contents(node)[0].reshape(target), dtype=object)


def _multiply_all(node: Node) -> Content | None:
    data = _contents(node)[0]
    axes = axes_of(node, 1)
    if axes is None and (node.find(1) is not None or node.attr("noop_with_empty_axes", 0)):
        return None
    if data.ndim != 1 or axes not in (None, [0], [-1]) or not all(isinstance(element, Size) for element in data):
        return None
    whole: Any = functools.reduce(_multiply, data, Size(1))
    return np.asarray([whole] if node.attr("keepdims", 1) else whole, dtype=object)


def _fill(node: Node) -> Content | None:
    shape = integers(node.value(0))
    if shape is None or min(shape, default=0) < 0 or math.prod(shape) > LARGEST_CONTENT:
        return None
    given = node.attr("value", onnx.TensorProto())
    number = onnx.numpy_helper.to_array(given).reshape(-1)[0].item() if "value" in node.attributes else 0.0
    return np.full(shape, _wrap(number), dtype=object)


def _range(node: Node) -> Content | None:
    bounds = [integers(node.find(index)) for index in range(3)]
    if not all(bound and len(bound) == 1 for bound in bounds):
        return None
    start, end, step = (bound[0] for bound in bounds if bound)
    if step == 0 or len(range(start, end, step)) > LARGEST_CONTENT:
        return None
    return np.asarray([Size(number) for number in range(start, end, step)], dtype=object)


def _expand(node: Node) -> Content | None:
    shape = integers(node.find(1))
    data = _contents(node)[0]
    if shape is None or min(shape, default=1) < 1 or math.prod(shape) * max(1, data.size) > LARGEST_CONTENT:
        return None
    return np.asarray(np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(shape))), dtype=object)


CONTENTS: Final[dict[str, Callable[[Node], Content | None]]] = {
    "Add": _pairwise(_add),
    "And": _pairwise(_arithmetic(lambda a, b: bool(a and b))),
    "Cast": _cast,
    "Ceil": _single(_of_float(math.ceil)),
    "Concat": _concat,
    "ConstantOfShape": _fill,
    "Div": _pairwise(_divide),
    "Equal": _pairwise(_equal),
    "Expand": _expand,
    "Floor": _single(_of_float(math.floor)),
    "Gather": _gather,
    "Greater": _pairwise(_arithmetic(operator.gt)),
    "GreaterOrEqual": _pairwise(_arithmetic(operator.ge)),
    "Identity": _single(lambda x: x),
    "Less": _pairwise(_arithmetic(operator.lt)),
    "LessOrEqual": _pairwise(_arithmetic(operator.le)),
    "Max": _pairwise(_largest),
    "Min": _pairwise(_smallest),
    "Mod": _modulo,
    "Mul": _pairwise(_multiply),
    "Neg": _single(_negate),
    "Not": _single(_invert),
    "Or": _pairwise(_arithmetic(lambda a, b: bool(a or b))),
    "Range": _range,
    "ReduceProd": _multiply_all,
    "Reshape": _reshape,
    "Slice": _cut,
    "Squeeze": _squeeze,
    "Sub": _pairwise(_subtract),
    "Unsqueeze": _unsqueeze,
    "Where": _choose,
}
"""Operators of the standard domain that are computed on known elements."""

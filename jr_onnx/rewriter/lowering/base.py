"""What every lowering is given, and the names and constants it uses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx
from onnx import helper

from jr_onnx.element_types import NUMBERS
from jr_onnx.rewriter.scopes import Scope, walk
from jr_onnx.semantics import SiteKappa, channels_of, kappa_dims


class Names:
    """Fresh names: no tensor or node of the model has them, in any scope."""

    def __init__(self, tops: Iterable[Scope]) -> None:
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}  # wanted name -> last number it was given
        for scope in (scope for top in tops for scope in walk(top)):
            self._taken.update(scope.defined_names())
            # What a model says of a name without defining it would then be said of a fresh value of that name.
            holder = scope.graph if scope.graph is not None else scope.function
            if holder is not None:
                self._taken.update(value.name for value in holder.value_info)
            if scope.graph is not None:
                self._taken.update(value.name for value in scope.graph.output)
                self._taken.update(item.tensor_name for item in scope.graph.quantization_annotation)
            for node in scope.nodes:
                self._taken.add(node.name)
                self._taken.update(node.input)

    def fresh(self, wanted: str) -> str:
        """Return the wanted name, or the first of wanted_1, wanted_2, ... that is free, and take it."""
        name, count = wanted, self._last.get(wanted, 0)
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._last[wanted] = count
        self._taken.add(name)
        return name


@dataclass(frozen=True)
class Jump:
    """One J to be written as nodes.

    Attributes:
        operand: Name of z.
        result: Name of J(z).
        node_name: Name of the node that yields the result.
        base: What the names of helper nodes and tensors start with.
        dtype: NumPy name of the element type.
        opset: Version of the standard operator set where the nodes will stand.
        kappa: The jump, rounded to the dtype, or one for each channel.
        runtime: Name of a float32 scalar that holds kappa at run time, or None.
        draw: Low and high end if the node itself shall draw kappa, or None.
        cap: Upper bound if the lowering itself shall apply it, or None.
        rank: Rank of z where kappa is one for each channel, axis 1 of (N, C, ...).
        kappa_is_input: Whether a node of the op library shall read a fixed kappa at its second input, not in an
            attribute: one function body serves all nodes of a file, and a kappa per channel is an input.
        channel_block: How many channels of z lie together in ONNX Runtime's blocked layout, 0 where z is not in it.
    """

    operand: str
    result: str
    node_name: str
    base: str
    dtype: str
    opset: int
    kappa: SiteKappa
    runtime: str | None = None
    draw: tuple[float, float] | None = None
    cap: float | None = None
    rank: int | None = None
    kappa_is_input: bool = False
    channel_block: int = 0


def constant(
    names: Names, base: str, what: str, value: SiteKappa, dtype: str, rank: int | None = None
) -> onnx.NodeProto:
    """Return a Constant node that holds a scalar of the dtype, or one per channel, under a fresh name."""
    name = names.fresh(f"{base}/jr_{what}")
    return helper.make_node("Constant", [], [name], name=name, value=constant_tensor(value, dtype, rank))


def constant_tensor(value: SiteKappa, dtype: str, rank: int | None = None) -> onnx.TensorProto:
    """Return a TensorProto with raw data, whose values are exact in the dtype.

    Args:
        value: A scalar, or one value for each channel.
        dtype: NumPy name of the element type.
        rank: Rank of the tensor with these channels, over which the result broadcasts.
    """
    values = channels_of(value)
    if dtype == "bfloat16":
        raw = (np.asarray(values, dtype="<f4").view("<u4") >> 16).astype("<u2").tobytes()
    else:
        raw = np.asarray(values, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()
    return onnx.TensorProto(data_type=NUMBERS[dtype], dims=kappa_dims(value, rank), raw_data=raw)


@lru_cache(maxsize=4096)
def allows(op_type: str, opset: int, dtype: str) -> bool:
    """Tell whether the standard operator takes this element type as its first floating input at this opset."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    wanted = f"tensor({_SPELLED.get(dtype, dtype)})"
    position = 1 if op_type == "Where" else 0
    variable = schema.inputs[position].type_str
    for parameter in schema.type_constraints:
        if parameter.type_param_str == variable:
            return wanted in parameter.allowed_type_strs
    return variable == wanted


@lru_cache(maxsize=4096)
def means_the_same(op_type: str, opset: int, other: int) -> bool:
    """Tell whether an operator of the standard domain is one and the same in two operator sets.

    onnx.checker wants that of every node of a function whose operator set is not the model's.
    """
    try:
        one, two = (onnx.defs.get_schema(op_type, version, "") for version in (opset, other))
    except onnx.defs.SchemaError:
        return False
    return bool(one.since_version == two.since_version)


_SPELLED = {"float32": "float", "float64": "double"}

"""Carry operators past onnx's version converter that it does not know, or converts wrongly.

    Op(...) without a schema           ->  jr_onnx.legacy::Op(...)  -> [converter] ->  standard nodes, or Op(...) again
    Add(a, b; broadcast=1, axis=1)     ->  jr_onnx.legacy::Add(...) -> [converter] ->  Add(a, Unsqueeze(b))
    Resize(x, scales), opset 10        ->  [converter] ->  Resize(x, , scales; asymmetric, floor)

The converter leaves other domains alone. Of the operators that ONNX had before it was stable, ImageScaler, Affine,
Scale, ScaledTanh and ParametricSoftplus are written with standard ones (their definitions: operators.md of ONNX 1.1),
the others come back as they were. The broadcast of the operator sets below 7 aligns b with the axes of a from `axis`
on; the converter gives b as many new axes as a has, less one, whatever `axis` says, and wants all sizes as numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from jr_onnx.element_types import Array
from jr_onnx.errors import RefusalError
from jr_onnx.modelfile import copied
from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter.detect.shapes import Shapes
from jr_onnx.rewriter.lowering.base import Names
from jr_onnx.rewriter.scopes import Scope, all_scopes, substitute, top_scopes, walk

DOMAIN = "jr_onnx.legacy"
BROADCASTING = frozenset({"Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"})
_NUMPY_BROADCAST_SINCE = 7
_AXES_AS_INPUT_SINCE = 13
_HALF_PIXELS_SINCE = 11
_NEW_AXES = "new_axes"


def mask(model: onnx.ModelProto) -> list[str]:
    """Move the nodes that onnx's converter must not see to a domain of their own, in place; return their operators.

    Raises:
        RefusalError: A legacy broadcast whose ranks are not known.
    """
    shapes = Shapes(copied(model))
    found = []
    for scope in all_scopes(model):
        for node in scope.nodes:
            if normal_domain(node.domain):
                continue
            if node.op_type in BROADCASTING and scope.opset < _NUMPY_BROADCAST_SINCE:
                axes = _new_axes(scope, node, shapes)
                node.attribute.append(helper.make_attribute(_NEW_AXES, axes, attr_type=onnx.AttributeProto.INTS))
            elif _has_schema(str(node.op_type), scope.opset):
                continue
            node.domain = DOMAIN
            found.append(str(node.op_type))
    if found:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return list(dict.fromkeys(found))


def unmask(model: onnx.ModelProto) -> list[str]:
    """Write masked nodes with standard operators, or as they were, in place; return the operators that came back."""
    tops = top_scopes(model)
    names = Names(tops)
    kept = []
    masked = {
        scope: {index: scope.opset for index, node in enumerate(scope.nodes) if node.domain == DOMAIN}
        for top in tops
        for scope in walk(top)
    }

    def write(node: onnx.NodeProto, opset: int) -> list[onnx.NodeProto]:
        node.domain = ""
        if node.op_type in _EXPANSIONS:
            return _expand(node, names)
        if node.op_type in BROADCASTING:
            return _broadcast(node, opset, names)
        kept.append(str(node.op_type))
        return [node]

    substitute(masked, write)
    for index in reversed(range(len(model.opset_import))):
        if model.opset_import[index].domain == DOMAIN:
            del model.opset_import[index]
    return list(dict.fromkeys(kept))


def keep_resizing(model: onnx.ModelProto, before: int) -> None:
    """Let Resize compute what it did up to opset 10, in place: onnx's converter leaves the newer defaults to it.

    Up to opset 10 pixel i of the result lies at i / scale, from opset 11 on at (i + 0.5) / scale - 0.5 unless an
    attribute says otherwise; the nearest pixel was the one below.

    Args:
        model: The converted model.
        before: The opset that it had.
    """
    for scope in all_scopes(model):
        if not before < _HALF_PIXELS_SINCE <= scope.opset:
            continue
        for node in scope.nodes:
            if node.op_type != "Resize" or normal_domain(node.domain):
                continue
            given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            wanted = {"coordinate_transformation_mode": "asymmetric"}
            if given.get("mode", b"nearest") == b"nearest":
                wanted["nearest_mode"] = "floor"
            node.attribute.extend(helper.make_attribute(*item) for item in wanted.items() if item[0] not in given)


def _has_schema(op_type: str, opset: int) -> bool:
    try:
        onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    return True


def _new_axes(scope: Scope, node: onnx.NodeProto, shapes: Shapes) -> list[int]:
    """Return the axes that the second input gets behind its own."""
    given = {attribute.name: int(attribute.i) for attribute in node.attribute}
    if not given.get("broadcast") or "axis" not in given:
        return []
    ranks = [shapes.of(scope, name) for name in node.input]
    if len(ranks) != 2 or ranks[0] is None or ranks[1] is None:
        raise RefusalError(
            f"{node.op_type} {scope.node_label(node)!r} broadcasts along the axis {given['axis']}, as before opset 7, "
            "and the rank of its inputs is not known",
            hint="Add shapes (onnx.shape_inference.infer_shapes), or export the model again",
        )
    axis = given["axis"] if given["axis"] >= 0 else given["axis"] + len(ranks[0])
    return list(range(len(ranks[1]), len(ranks[0]) - axis))


def _broadcast(node: onnx.NodeProto, opset: int, names: Names) -> list[onnx.NodeProto]:
    axes = next((list(item.ints) for item in node.attribute if item.name == _NEW_AXES), [])
    del node.attribute[:]
    if not axes:
        return [node]
    label = node.name or node.output[0]
    aligned = names.fresh(f"{label}/aligned")
    second = str(node.input[1])
    node.input[1] = aligned
    if opset < _AXES_AS_INPUT_SINCE:
        return [helper.make_node("Unsqueeze", [second], [aligned], name=aligned, axes=axes), node]
    constant = _constant(names.fresh(f"{label}/axes"), np.asarray(axes, np.int64))
    return [constant, helper.make_node("Unsqueeze", [second, constant.output[0]], [aligned], name=aligned), node]


def _constant(name: str, value: Array) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(value))


Parts = list[tuple[str, npt.NDArray[np.float32] | None]]
"""Operators to apply one after the other, with their second input where they have one."""


def _expand(node: onnx.NodeProto, names: Names) -> list[onnx.NodeProto]:
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    parts = _EXPANSIONS[str(node.op_type)](given)
    label = node.name or node.output[0]
    nodes: list[onnx.NodeProto] = []
    current = str(node.input[0])
    for number, (op_type, other) in enumerate(parts):
        inputs = [current]
        if other is not None:
            constant = _constant(names.fresh(f"{label}/number_{number}"), other)
            nodes.append(constant)
            inputs.append(constant.output[0])
        last = number == len(parts) - 1
        current = str(node.output[0]) if last else names.fresh(f"{label}/part_{number}")
        nodes.append(helper.make_node(op_type, inputs, [current], name=node.name if last else current))
    return nodes


def _number(value: object) -> npt.NDArray[np.float32]:
    return np.asarray(value, np.float32)


def _image_scaler(given: dict[str, object]) -> Parts:
    bias = _number(given.get("bias", [0.0]))
    return [("Mul", _number(given.get("scale", 1.0))), ("Add", bias.reshape(-1, 1, 1))]


_EXPANSIONS: dict[str, Callable[[dict[str, object]], Parts]] = {
    "ImageScaler": _image_scaler,
    "Affine": lambda given: [("Mul", _number(given.get("alpha", 1.0))), ("Add", _number(given.get("beta", 0.0)))],
    "Scale": lambda given: [("Mul", _number(given.get("scale", 1.0)))],
    "ScaledTanh": lambda given: [
        ("Mul", _number(given.get("beta", 1.0))), ("Tanh", None), ("Mul", _number(given.get("alpha", 1.0))),
    ],
    "ParametricSoftplus": lambda given: [
        ("Mul", _number(given.get("beta", 1.0))), ("Softplus", None), ("Mul", _number(given.get("alpha", 1.0))),
    ],
}  # fmt: skip

"""A model that draws random numbers, with the mean of every draw in its place: what torch is compared with.

    RandomNormalLike(x) -> mean,  RandomUniform -> (low + high) / 2,  Dropout -> x,  Bernoulli(p) -> 1 - p > 1/2,
    Multinomial(z) -> argmax z

`draw.Draw(take_mean=True)` takes the same values, so that both sides are fixed functions; everything but the numbers
drawn is compared, in the main graph, in sub-graphs and in functions.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, inliner, numpy_helper

from jr_onnx.errors import ModelError, blaming
from jr_onnx.modelfile import copied, load_whole

RANDOM_OPS = (
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial",
)  # fmt: skip
_CAST_LIKE = 15
"""The operator set that brought CastLike."""


def with_mean_draws(model: str | Path | onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model that draws nothing."""
    copy = copied(load_whole(model))
    if any(_depends_on_call(nodes) for function in copy.functions for nodes in _bodies(function.node)):
        with blaming("onnx cannot inline the functions that draw random numbers", ModelError):
            copy = inliner.inline_local_functions(copy)
    main = {entry.domain: entry.version for entry in copy.opset_import}
    for nodes in _bodies(copy.graph.node):
        _replace(nodes, main)
    for function in copy.functions:
        own = {entry.domain: entry.version for entry in function.opset_import} or main
        for nodes in _bodies(function.node):
            _replace(nodes, own)
    return copy


def _bodies(nodes: MutableSequence[NodeProto]) -> Iterator[MutableSequence[NodeProto]]:
    """Yield a list of nodes and those of all graphs inside."""
    for node in nodes:
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.type == AttributeProto.GRAPH else list(attribute.graphs)
            for graph in graphs:
                yield from _bodies(graph.node)
    yield nodes


def _depends_on_call(nodes: MutableSequence[NodeProto]) -> bool:
    """Return whether a draw takes its mean, range or shape from the call of the function that it stands in."""
    return any(
        node.op_type in RANDOM_OPS and any(attribute.ref_attr_name for attribute in node.attribute) for node in nodes
    )


def _replace(nodes: MutableSequence[NodeProto], opsets: dict[str, int]) -> None:
    if not any(node.op_type in (*RANDOM_OPS, "Dropout") for node in nodes):
        return
    opset = opsets.get("", opsets.get("ai.onnx", 1))
    found = [made for node in nodes for made in _without_draw(node, opset)]
    del nodes[:]
    nodes.extend(found)


def _without_draw(node: NodeProto, opset: int) -> list[NodeProto]:
    if node.domain not in ("", "ai.onnx") or node.op_type not in (*RANDOM_OPS, "Dropout"):
        return [node]
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    out = node.output[0]
    if node.op_type == "Dropout":
        return _without_dropout(node)
    if node.op_type in ("RandomNormal", "RandomUniform"):
        kind = helper.tensor_dtype_to_np_dtype(given.get("dtype", TensorProto.FLOAT))
        value = numpy_helper.from_array(np.full(given["shape"], _mean(node, given), dtype=kind))
        return [helper.make_node("Constant", [], [out], value=value)]
    raw, x = f"{out}/mean_draw", node.input[0]
    if node.op_type == "Bernoulli":
        half = numpy_helper.from_array(np.array(0.5, dtype=np.float32))
        made = [
            helper.make_node("Cast", [x], [f"{raw}/p"], to=TensorProto.FLOAT),
            helper.make_node("Constant", [], [f"{raw}/half"], value=half),
            helper.make_node("Greater", [f"{raw}/half", f"{raw}/p"], [raw]),  # see `ops.random`
        ]
    elif node.op_type == "Multinomial":
        repeats = numpy_helper.from_array(np.array([1, given.get("sample_size", 1)], dtype=np.int64))
        made = [
            helper.make_node("ArgMax", [x], [f"{raw}/best"], axis=1, keepdims=1),
            helper.make_node("Constant", [], [f"{raw}/repeats"], value=repeats),
            helper.make_node("Tile", [f"{raw}/best", f"{raw}/repeats"], [raw]),
        ]
        given.setdefault("dtype", TensorProto.INT32)
    else:
        value = numpy_helper.from_array(np.array([_mean(node, given)], dtype=np.float32))
        made = [
            helper.make_node("Shape", [x], [f"{raw}/shape"]),
            helper.make_node("ConstantOfShape", [f"{raw}/shape"], [raw], value=value),
        ]
    if "dtype" in given or opset < _CAST_LIKE:
        return [*made, helper.make_node("Cast", [raw], [out], to=int(given.get("dtype", TensorProto.FLOAT)))]
    return [*made, helper.make_node("CastLike", [raw, x], [out])]


def _mean(node: NodeProto, given: dict[str, Any]) -> float:
    if node.op_type.startswith("RandomNormal"):
        return float(given.get("mean", 0.0))
    return (float(given.get("low", 0.0)) + float(given.get("high", 1.0))) / 2


def _without_dropout(node: NodeProto) -> list[NodeProto]:
    made = [helper.make_node("Identity", [node.input[0]], [node.output[0]])]
    if len(node.output) > 1 and node.output[1]:
        mask = node.output[1]
        kept = numpy_helper.from_array(np.array([True]))
        made += [
            helper.make_node("Shape", [node.input[0]], [f"{mask}/shape"]),
            helper.make_node("ConstantOfShape", [f"{mask}/shape"], [mask], value=kept),
        ]
    return made

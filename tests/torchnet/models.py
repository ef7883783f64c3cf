"""Small ONNX models for the tests, written as text or built by hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper, parser


def parse(text: str, weights: Mapping[str, npt.NDArray[np.generic]] | None = None) -> onnx.ModelProto:
    """Parse a model and add initializers."""
    model = parser.parse_model(text)
    for name, value in (weights or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def dense_weights(*sizes: int, seed: int = 0) -> dict[str, npt.NDArray[np.generic]]:
    """Weights w1, b1, w2, b2, ... of a chain of matrix products."""
    random = np.random.default_rng(seed)
    result: dict[str, npt.NDArray[np.generic]] = {}
    for at, (rows, columns) in enumerate(itertools.pairwise(sizes), start=1):
        result[f"w{at}"] = (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)
        result[f"b{at}"] = (random.standard_normal(columns) * 0.3).astype(np.float32)
    return result


def mlp(opset: int = 17, batch: str = "N") -> onnx.ModelProto:
    """Two hidden layers: a Relu and a Clip to [0, 6]; logits of three classes."""
    model = parse(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        mlp (float[{batch}, 6] x) => (float[{batch}, 3] logits) {{
            h1 = Gemm (x, w1, b1)
            a1 = Relu (h1)
            h2 = Gemm (a1, w2, b2)
            a2 = Clip (h2, low, high)
            logits = Gemm (a2, w3, b3)
        }}""",
        {**dense_weights(6, 16, 12, 3), "low": np.float32(0.0), "high": np.float32(6.0)},
    )
    for number, node in enumerate(model.graph.node):
        node.name = f"node{number}"
    return model


def convolutional(reshape: list[int], *, batch: int | str = 1, softmax: bool = False) -> onnx.ModelProto:
    """Conv, Relu, Reshape to a constant shape, Gemm: as exporters with a fixed batch write it."""
    random = np.random.default_rng(1)
    weights = {
        "k": random.standard_normal((4, 1, 3, 3)).astype(np.float32),
        "shape": np.array(reshape, dtype=np.int64),
        **dense_weights(4 * 6 * 6, 3),
    }
    tail = "scores = Gemm (flat, w1, b1) probabilities = Softmax <axis: int = 1> (scores)" if softmax else ""
    output = "probabilities" if softmax else "scores"
    return parse(
        f"""<ir_version: 8, opset_import: ["" : 13]>
        net (float[{batch}, 1, 8, 8] x) => (float[{batch}, 3] {output}) {{
            c = Conv (x, k)
            a = Relu (c)
            flat = Reshape (a, shape)
            {tail or "scores = Gemm (flat, w1, b1)"}
        }}""",
        weights,
    )


def bound_to_one() -> onnx.ModelProto:
    """Two heads that a Reshape takes for the leading axis: right for one sample, wrong for more."""
    return parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[1, 6] x) => (float[1, 3] logits) {
            h = Gemm (x, w1, b1)
            a = Relu (h)
            heads = Reshape (a, heads_first)
            turned = Transpose <perm = [1, 0, 2]> (heads)
            flat = Reshape (turned, together)
            logits = Gemm (flat, w2, b2)
        }""",
        {
            **dense_weights(6, 10, 3),
            "heads_first": np.array([2, -1, 5], dtype=np.int64),
            "together": np.array([-1, 10], dtype=np.int64),
        },
    )


def with_functions() -> onnx.ModelProto:
    """A function that holds a Relu, called twice and once through another function; and an attribute handed down."""
    return parse(
        """<ir_version: 8, opset_import: ["" : 17, "pkg" : 1]>
        net (float[N, 6] x) => (float[N, 3] logits) {
            h = Gemm (x, w1, b1)
            a = pkg.twice <slope = 0.2> (h)
            b = pkg.act (a)
            logits = Gemm (b, w2, b2)
        }
        <domain: "pkg", opset_import: ["" : 17, "pkg" : 1]>
        twice <slope> (v) => (y) {
            u = pkg.act (v)
            s = LeakyRelu <alpha: float = @slope> (u)
            shifted = Sub (s, u)
            y = Sub (v, shifted)
        }
        <domain: "pkg", opset_import: ["" : 17]>
        act (v) => (y) {
            y = Relu (v)
        }""",
        dense_weights(6, 10, 3),
    )


def with_if(condition: str) -> onnx.ModelProto:
    """A Relu in a branch that is taken where `condition`, a constant or a computed rank, is true."""
    branch = {}
    for name, operator in (("then_branch", "Relu"), ("else_branch", "Neg")):
        node = helper.make_node(operator, ["h"], [f"{operator}_out"], name=f"{operator}_node")
        value = helper.make_tensor_value_info(f"{operator}_out", TensorProto.FLOAT, None)
        branch[name] = helper.make_graph([node], name, [], [value])
    nodes = [helper.make_node("Gemm", ["x", "w1", "b1"], ["h"])]
    if condition == "shape":
        nodes += [
            helper.make_node("Shape", ["h"], ["s"]),
            helper.make_node("Gather", ["s", "one"], ["columns"]),
            helper.make_node("Equal", ["columns", "ten"], ["taken"]),
        ]
    nodes += [
        helper.make_node("If", ["taken"], ["a"], name="choice", **branch),
        helper.make_node("Gemm", ["a", "w2", "b2"], ["logits"]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in dense_weights(6, 10, 3).items()]
    initializers += [
        numpy_helper.from_array(np.array(1, dtype=np.int64), "one"),
        numpy_helper.from_array(np.array(10, dtype=np.int64), "ten"),
    ]
    if condition != "shape":
        initializers.append(numpy_helper.from_array(np.array(condition == "true"), "taken"))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

"""Models that keep their weights in every place where a file may have them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.5).astype(dtype)


def with_initializers(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return model


def plain() -> onnx.ModelProto:
    """Preprocessing, a convolution, a BatchNormalization, a product and its bias; one weight is larger than a token."""
    return with_initializers(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 1, 8, 8] x) => (float[N, 3] logits) {
            centred = Sub (x, mean)
            scaled = Div (centred, deviation)
            c = Conv <pads = [1, 1, 1, 1]> (scaled, k, kb)
            n = BatchNormalization (c, scale, shift, running_mean, running_var)
            a = Relu (n)
            flat = Flatten (a)
            wide = MatMul (flat, w1)
            moved = Add (wide, b1)
            h = Relu (moved)
            logits = Gemm <transB = 1> (h, w2, b2)
        }""",
        mean=numbers(1, 1, 8, 8), deviation=np.full((1, 1, 8, 8), 0.5, "float32"), k=numbers(4, 1, 3, 3, seed=1),
        kb=numbers(4, seed=2), scale=np.ones(4, "float32"), shift=numbers(4, seed=3), running_mean=numbers(4, seed=4),
        running_var=np.ones(4, "float32"), w1=numbers(256, 40, seed=5), b1=numbers(40, seed=6),
        w2=numbers(3, 40, seed=7), b2=numbers(3, seed=8),
    )  # fmt: skip


def shared() -> onnx.ModelProto:
    """One matrix read twice, once transposed."""
    return with_initializers(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 6] x) => (float[N, 6] logits) {
            h = MatMul (x, w)
            a = Relu (h)
            t = Transpose <perm = [1, 0]> (w)
            logits = MatMul (a, t)
        }""",
        w=numbers(6, 6),
    )


def in_a_function() -> onnx.ModelProto:
    """A function with a Constant inside and a matrix from outside, called twice."""
    return with_initializers(
        """<ir_version: 9, opset_import: ["" : 17, "local" : 1]>
        net (float[N, 6] x) => (float[N, 6] logits) {
            h = local.dense (x, w)
            a = Relu (h)
            logits = local.dense (a, v)
        }
        <domain: "local", opset_import: ["" : 17]>
        dense (x, matrix) => (y) {
            bias = Constant <value = float[6] {0.1, 0.2, 0.3, 0.4, 0.5, 0.6}> ()
            product = MatMul (x, matrix)
            y = Add (product, bias)
        }""",
        w=numbers(6, 6),
        v=numbers(6, 6, seed=1),
    )


def in_a_branch() -> onnx.ModelProto:
    """An If whose branches have initializers of their own."""

    def branch(name: str, seed: int) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["x", "w"], [f"{name}_y"])
        output = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["N", 4])
        return helper.make_graph([node], name, [], [output], [numpy_helper.from_array(numbers(6, 4, seed=seed), "w")])

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "zero"], ["positive"]),
        helper.make_node(
            "If", ["positive"], ["h"], name="If_0", then_branch=branch("a", 1), else_branch=branch("b", 2)
        ),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "last"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.float32(0.0), "zero"), numpy_helper.from_array(numbers(4, 3, seed=3), "last")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def of_halves() -> onnx.ModelProto:
    """Weights of float16, one of them in the field for integers."""
    model = with_initializers(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float16[N, 6] x) => (float16[N, 3] logits) {
            h = Gemm (x, w1, b1)
            a = Relu (h)
            logits = Gemm (a, w2)
        }""",
        w1=numbers(6, 8, dtype="float16"),
        w2=numbers(8, 3, dtype="float16", seed=1),
    )
    model.graph.initializer.append(
        helper.make_tensor("b1", TensorProto.FLOAT16, [8], numbers(8, seed=2).astype("float16"))
    )
    return model


def in_typed_fields() -> onnx.ModelProto:
    """Weights in float_data, a small one and one that is larger than a token."""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 120] x) => (float[N, 3] logits) {
            h = Gemm (x, w1)
            a = Relu (h)
            logits = Gemm (a, w2)
        }"""
    )
    for name, value in (("w1", numbers(120, 100)), ("w2", numbers(100, 3, seed=1))):
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.ravel().tolist()))
    return model


KINDS: dict[str, Callable[[], onnx.ModelProto]] = {
    "plain": plain,
    "shared": shared,
    "function": in_a_function,
    "branch": in_a_branch,
    "halves": of_halves,
    "typed fields": in_typed_fields,
}

"""Small networks for the tests of verify: one or two sites in every form, type, opset and kind of scope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.element_types import NUMBERS, numpy_dtype

FEATURES, HIDDEN, CLASSES = 8, 12, 4


def weights(shape: tuple[int, ...], seed: int, dtype: str, name: str) -> onnx.TensorProto:
    values = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[0])
    return numpy_helper.from_array(values.astype(numpy_dtype(dtype)), name)


def network(
    form: str = "relu",
    *,
    opset: int = 17,
    dtype: str = "float32",
    ir_version: int = 8,
    scope: str = "main",
    sites: int = 2,
) -> onnx.ModelProto:
    """x (batch, 8) -> MatMul -> site -> MatMul -> site -> ... -> y (batch, 4)."""
    element = NUMBERS[dtype]
    initializers: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    functions: list[onnx.FunctionProto] = []
    value, width = "x", FEATURES
    for number in range(sites):
        weight = weights((width, HIDDEN), number, dtype, f"w{number}")
        initializers.append(weight)
        fused = form in ("fused_gemm", "fused_conv")
        if not fused:
            nodes.append(helper.make_node("MatMul", [value, weight.name], [f"z{number}"], name=f"mul{number}"))
        nodes.extend(site_nodes(form, number, opset, dtype, scope, initializers, value, weight.name))
        value, width = f"a{number}", HIDDEN
    last = weights((HIDDEN, CLASSES), sites, dtype, "last")
    initializers.append(last)
    nodes.append(helper.make_node("MatMul", [value, "last"], ["y"], name="head"))
    imports = [helper.make_opsetid("", opset)]
    if fused_domain(form):
        imports.append(helper.make_opsetid("com.microsoft", 1))
    if scope == "function":
        imports.append(helper.make_opsetid("local", 1))
        body = site_nodes(form, 0, opset, dtype, "main", [], "z0", "")
        for node in body:
            node.name = "inner"
        functions.append(helper.make_function("local", "act", ["z0"], ["a0"], body, [helper.make_opsetid("", opset)]))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", element, ["batch", FEATURES])],
        [helper.make_tensor_value_info("y", element, ["batch", CLASSES])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=ir_version)


def fused_domain(form: str) -> bool:
    return form.startswith("fused")


def site_nodes(
    form: str,
    number: int,
    opset: int,
    dtype: str,
    scope: str,
    initializers: list[onnx.TensorProto],
    value: str,
    weight: str,
) -> list[onnx.NodeProto]:
    """Return the nodes from z to a of one site."""
    z, a, name = f"z{number}", f"a{number}", f"act{number}"
    if scope == "function":
        return [helper.make_node("act", [z], [a], name=name, domain="local")]
    if scope == "branch":
        inner = site_nodes(form, number, opset, dtype, "main", initializers, value, weight)
        inner[-1].output[0] = f"{a}_then"
        shape: list[Any] = ["batch", HIDDEN]
        element = NUMBERS[dtype]
        then = helper.make_graph(inner, "then", [], [helper.make_tensor_value_info(f"{a}_then", element, shape)])
        other = helper.make_node("Neg", [z], [f"{a}_else"])
        otherwise = helper.make_graph([other], "else", [], [helper.make_tensor_value_info(f"{a}_else", element, shape)])
        condition = helper.make_node(
            "Constant", [], [f"yes{number}"], value=helper.make_tensor("", TensorProto.BOOL, [], [True])
        )
        branch = helper.make_node(
            "If", [f"yes{number}"], [a], name=f"if{number}", then_branch=then, else_branch=otherwise
        )
        return [condition, branch]
    if form == "relu":
        return [helper.make_node("Relu", [z], [a], name=name)]
    if form == "clip" and opset < 11:
        return [helper.make_node("Clip", [z], [a], name=name, min=0.0, max=0.5)]
    if form == "clip":
        for what, bound in (("low", 0.0), ("high", 0.5)):
            bound_name = f"{what}{number}"
            initializers.append(numpy_helper.from_array(np.asarray(bound, dtype=numpy_dtype(dtype)), bound_name))
        return [helper.make_node("Clip", [z, f"low{number}", f"high{number}"], [a], name=name)]
    if form == "max":
        initializers.append(numpy_helper.from_array(np.zeros((), dtype=numpy_dtype(dtype)), f"nought{number}"))
        return [helper.make_node("Max", [z, f"nought{number}"], [a], name=name)]
    if form == "fused_gemm":
        return [
            helper.make_node("FusedGemm", [value, weight], [a], name=name, domain="com.microsoft", activation="Relu")
        ]
    raise ValueError(form)


def image_network(*, opset: int = 17, fused: bool = False) -> onnx.ModelProto:
    """x (1, 1, 8, 8) -> Conv -> site -> Conv -> site -> flat logits (1, 10), enough for digits."""
    initializers = [
        weights((4, 1, 3, 3), 0, "float32", "c0"),
        weights((4, 4, 3, 3), 1, "float32", "c1"),
        weights((64, 10), 2, "float32", "last"),
    ]
    nodes = []
    value = "x"
    for number in range(2):
        attributes = {"kernel_shape": [3, 3], "strides": [number + 1] * 2, "pads": [1, 1, 1, 1]}
        if fused:
            nodes.append(
                helper.make_node(
                    "FusedConv",
                    [value, f"c{number}"],
                    [f"a{number}"],
                    name=f"act{number}",
                    domain="com.microsoft",
                    activation="Relu",
                    **attributes,
                )
            )
        else:
            nodes.append(
                helper.make_node("Conv", [value, f"c{number}"], [f"z{number}"], name=f"c{number}", **attributes)
            )
            nodes.append(helper.make_node("Relu", [f"z{number}"], [f"a{number}"], name=f"act{number}"))
        value = f"a{number}"
    nodes.append(helper.make_node("Flatten", [value], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "last"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "images",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        initializers,
    )
    imports = [helper.make_opsetid("", opset)]
    if fused:
        imports.append(helper.make_opsetid("com.microsoft", 1))
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def save(model: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def half_network(opset: int) -> onnx.ModelProto:
    """x (N, 1, 8, 8) in float16 -> Conv -> Relu -> MaxPool -> Conv -> Relu -> Gemm -> y (N, 10).

    At opset 18 ONNX Runtime replaces the first Relu by its function body and leaves that in float32.
    """
    generator = np.random.default_rng(0)
    shapes = {"w1": (4, 1, 3, 3), "b1": (4,), "w2": (8, 4, 3, 3), "w3": (128, 10)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1", "b1"], ["z1"], pads=[1] * 4, name="conv1"),
            helper.make_node("Relu", ["z1"], ["a1"], name="act1"),
            helper.make_node("MaxPool", ["a1"], ["p"], kernel_shape=[2, 2], strides=[2, 2], name="pool"),
            helper.make_node("Conv", ["p", "w2"], ["z2"], pads=[1] * 4, name="conv2"),
            helper.make_node("Relu", ["z2"], ["a2"], name="act2"),
            helper.make_node("Flatten", ["a2"], ["flat"], name="flat"),
            helper.make_node("Gemm", ["flat", "w3"], ["y"], name="head"),
        ],
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["N", 10])],
        [
            numpy_helper.from_array((generator.standard_normal(shape) * 0.3).astype(np.float16), name)
            for name, shape in shapes.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)

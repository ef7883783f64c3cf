"""A stand-in for the paper's MNIST network: the digits drawn large, random features and a fitted readout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

from jr_onnx.data import PRESETS, load
from tests.data.builders import idx_bytes

HIDDEN = 96


def digits_as_mnist(folder: Path) -> str:
    """Write the digits as 28x28 IDX files and return the specification of the data."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, stem in (("train", "train"), ("test", "t10k")):
        data = load("digits", split=split)
        large = np.pad(np.kron(data.images[:, 0], np.ones((3, 3))), ((0, 0), (2, 2), (2, 2)))
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx_bytes((large * 255).astype(np.uint8)))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(data.labels.astype(np.uint8)))
    return f"mnist:{folder}"


def write_network(folder: Path, spec: str, variant: str, seed: int) -> Path:
    """Write lenet_like_VARIANT.onnx: one hidden ReLU layer, the last layer fitted by least squares."""
    data = load(spec, split="train")
    preset = PRESETS["mnist"]
    scale, offset = preset.affine(1)
    inputs = (data.images * np.float32(scale[0]) + np.float32(offset[0])).reshape(len(data), -1)
    generator = np.random.default_rng(seed)
    first = (generator.standard_normal((784, HIDDEN)) / 28).astype(np.float32)
    features = np.maximum(inputs @ first, 0)
    wanted = np.eye(10)[data.labels] * 10 - 1
    last = np.linalg.solve(features.T @ features + np.eye(HIDDEN), features.T @ wanted).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"], name="relu"),
        helper.make_node("MatMul", ["active", "last"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stand_in",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(last, "last")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model, full_check=True)
    path = folder / f"lenet_like_{variant}.onnx"
    save(model, path)
    path.with_suffix(".json").write_text(json.dumps({"source": "fitted by a test"}), encoding="utf-8")
    return path

"""A graph that grows by nodes that ONNX Runtime runs, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

ROWS = 3
"""Rows of the run in which graphs are built; other sizes are 3 as well now and then, so that axes can be mistaken."""

TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}
_runtime = ort.capi.onnxruntime_pybind11_state
ILLEGAL = (
    *(
        _runtime.Fail,
        _runtime.InvalidArgument,
        _runtime.InvalidGraph,
        _runtime.NotImplemented,
        _runtime.RuntimeException,
    ),
    *(IndexError, ValueError, KeyError, RuntimeError),
)
"""What a node that is not legal in its place raises, on building or on running."""

Draw = Callable[[st.SearchStrategy[Any]], Any]


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@dataclass
class Build:
    """A graph that grows by nodes which run on ONNX Runtime."""

    opset: int
    draw: Draw
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    pending: list[onnx.NodeProto] = field(default_factory=list)

    def const(self, array: Any, dtype: str = "float32") -> str:
        name = f"c{len(self.weights)}"
        self.weights[name] = np.asarray(array, dtype=dtype)
        self.arrays[name] = self.weights[name]
        return name

    def noise(self, *shape: int) -> str:
        return self.const(np.random.default_rng(len(self.weights)).standard_normal(shape))

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node and compute it; an illegal one raises."""
        names = [f"v{len(self.arrays) + index}" for index in range(outputs)]
        node = helper.make_node(op, list(inputs), names, **attributes)
        feeds = {name: self.arrays[name] for name in inputs if name}
        used = {name: array for name, array in self.arrays.items() if name not in feeds and _captures(node, name)}
        graph = helper.make_graph(
            [node],
            "one",
            [info(name, array.dtype.name, array.shape) for name, array in feeds.items()],
            [helper.make_empty_tensor_value_info(name) for name in names],
            [numpy_helper.from_array(array, name) for name, array in used.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        for name, array in zip(names, session(model).run(None, feeds), strict=True):
            self.arrays[name] = array
        self.pending.append(node)
        return names[0]

    def axes(self, op: str, value: str, axes: list[int], since: int, **attributes: Any) -> str:
        """Add a node whose axes became an input with an opset."""
        if self.opset >= since:
            return self.add(op, value, self.const(axes, "int64"), **attributes)
        return self.add(op, value, axes=axes, **attributes)

    def pick(self, dtype: str = "float32", rank: int | None = None) -> str | None:
        computed = [name for name in self.arrays if name not in self.weights and not name.startswith("_")]
        fitting = [
            name
            for name in computed
            if self.arrays[name].dtype.name == dtype and (rank is None or self.arrays[name].ndim == rank)
        ]
        return self.draw(st.sampled_from(fitting[-4:])) if fitting else None

    def axis(self, value: str) -> int:
        return int(self.draw(st.integers(0, max(0, self.arrays[value].ndim - 1))))

    def commit(self) -> None:
        self.nodes += self.pending
        self.pending = []

    def rollback(self, arrays: int, weights: int) -> None:
        self.arrays = dict(list(self.arrays.items())[:arrays])
        self.weights = dict(list(self.weights.items())[:weights])
        self.pending = []


def _captures(node: onnx.NodeProto, name: str) -> bool:
    return any(name in inner.input for attribute in node.attribute for inner in attribute.g.node)


def info(name: str, dtype: str, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TYPES[dtype], list(shape))

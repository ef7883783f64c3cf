"""What the load test asks for and what must come back: two small retrofits, requests to them, a tally of outcomes."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.kappa import RandomKappa
from jr_onnx.rewriter import rewrite
from jr_onnx.verifier.compare import largest_difference
from jr_onnx.verifier.whole_model.tolerance import rounding_bound

_KAPPA, _LOW, _HIGH = 0.06, 0.1, 0.2
_WIDTH = 64
_BATCHES = (1, 1, 1, 2, 5, 16)

Array = np.ndarray[Any, Any]


@dataclass
class Tally:
    """What all clients have seen."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, key: str) -> None:
        """Count one outcome."""
        with self.lock:
            self.counts[key] += 1

    def fail(self, what: str) -> None:
        """Note what must not happen."""
        with self.lock:
            self.wrong.append(what)

    def total(self, start: str) -> int:
        """Return how often outcomes were counted whose key begins so."""
        return sum(count for key, count in self.counts.items() if key.startswith(start))


@dataclass(frozen=True)
class Known:
    """Requests to the fixed retrofit with their answers, computed in this process.

    Attributes:
        rows: Inputs of several batch sizes.
        answers: The session's output for each.
        bound: How far two correct answers may be apart.
    """

    rows: list[Array]
    answers: list[Array]
    bound: float

    def fault(self, answer: Array, index: int) -> str | None:
        """Say what is wrong about an answer of the fixed retrofit."""
        expected = self.answers[index]
        if answer.shape != expected.shape:
            return f"an answer has the shape {answer.shape}, expected {expected.shape}"
        distance = largest_difference(answer, expected)
        if not distance <= self.bound:
            return f"an answer is off by {distance}, expected {self.bound} at most"
        return None


def ramp() -> Array:
    """Return the input (1, N) of the drawn retrofit: values over the range of its kappa, in ascending order."""
    return np.linspace(_LOW, _HIGH, _WIDTH, dtype=np.float32)[None]


def fault_of_drawn(answer: Array) -> str | None:
    """Say what is wrong about the drawn retrofit's answer to the ramp: one kappa must explain it all."""
    values = ramp()[0]
    passed = answer.ravel() != 0
    is_one_kappa = answer.size == values.size and bool((np.diff(passed.astype(int)) >= 0).all())
    if is_one_kappa and np.array_equal(answer.ravel()[passed], values[passed]):
        return None
    return f"no kappa explains the answer {answer.tolist()}"


def write_models(folder: Path) -> Path:
    """Write `fixed.jr.onnx` and `drawn.jr.onnx`, and return the original of the fixed one."""
    generator = np.random.default_rng(0)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", _WIDTH]) for name in ("x", "y")]
    weights = [
        numpy_helper.from_array((generator.standard_normal((_WIDTH, _WIDTH)) / 8).astype(np.float32), name)
        for name in ("v", "w")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    relu = [helper.make_node("Relu", ["x"], ["y"])]
    for name, graph_nodes, initializers in (("net", nodes, weights), ("relu", relu, [])):
        graph = helper.make_graph(graph_nodes, name, values[:1], values[1:], initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, folder / f"{name}.onnx")
    rewrite(folder / "net.onnx", _KAPPA, output=folder / "fixed.jr.onnx")
    rewrite(folder / "relu.onnx", RandomKappa(_LOW, _HIGH), output=folder / "drawn.jr.onnx")
    return folder / "net.onnx"


def known_answers(original: Path, retrofit: Path) -> Known:
    """Compute the expected answers, and how far correct ones may be apart.

    Inputs whose pre-activations come near the jump are left out: there rounding decides, and both sides are right.
    """
    import onnxruntime

    from jr_onnx.runtime.session import InferenceSession

    generator = np.random.default_rng(1)
    session = InferenceSession(str(retrofit), providers=["CPUExecutionProvider"])
    plain = onnxruntime.InferenceSession(str(original), providers=["CPUExecutionProvider"])
    first = numpy_helper.to_array(onnx.load(original).graph.initializer[0]).astype(np.float64)
    rows: list[Array] = []
    while len(rows) < 60:
        batch = generator.standard_normal((_BATCHES[len(rows) % len(_BATCHES)], _WIDTH)).astype(np.float32)
        if np.abs(batch @ first - _KAPPA).min() > 1e-5:  # some hundred roundings of a sum of 64 terms
            rows.append(batch)
    answers = [session.run(None, {"x": batch})[0] for batch in rows]
    together = plain.run(None, {"x": np.concatenate(rows)})[0]
    apart = np.concatenate([plain.run(None, {"x": row[None]})[0] for row in np.concatenate(rows)])
    return Known(rows, answers, rounding_bound([(together, apart)]).value)

"""Captured CUDA graphs: is the kernel right in them, and which random kappas stay the same at every replay?"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from jr_onnx.runtime.ops_library import Target
from tools.checks.gpu.findings import Verdict
from tools.checks.gpu.kernel import KAPPA, expected, sample
from tools.checks.gpu.sessions import CUDA, built_target, device_value, elementwise, jump_node, open_session, require_on

_GRAPH = [(CUDA, {"enable_cuda_graph": "1"})]
_REPLAYS = 8


class Replayer:
    """A model with its input and output at fixed places, run again and again."""

    def __init__(
        self, model: onnx.ModelProto, length: int, providers: list[Any], target: Target | None, device: str
    ) -> None:
        self._session = open_session(model, providers, target=target)
        name = providers[0][0] if isinstance(providers[0], tuple) else providers[0]
        require_on(self._session, name)
        self._source = device_value(np.zeros(length, dtype=np.float32), device)
        self._result = onnxruntime.OrtValue.ortvalue_from_shape_and_type([length], np.float32, device, 0)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input("x", self._source)
        self._binding.bind_ortvalue_output("y", self._result)

    def run(self, z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Put an input in its place, run (the first run captures, later ones replay), and return the output."""
        self._source.update_inplace(z)
        self._session.run_with_iobinding(self._binding)
        return np.array(self._result.numpy())


def captured_kernel(providers: list[Any] | None = None, target: Target | None = None, device: str = "cuda") -> Verdict:
    """Capture a graph of three jumps and replay it on other inputs."""
    library = target or built_target()
    nodes = [
        jump_node("x", "a", kappa=KAPPA / 4),
        jump_node("a", "b", kappa=KAPPA / 2),
        jump_node("b", "y", kappa=KAPPA),
    ]
    replayer = Replayer(elementwise(nodes), 4097, providers or _GRAPH, library, device)
    wrong = 0
    for seed in range(_REPLAYS):
        z = sample(4097, "float32", seed)
        wrong += replayer.run(z).tobytes() != expected(z, "float32", None).tobytes()
    return Verdict("failed" if wrong else "passed", f"{_REPLAYS} runs, {wrong} wrong", {"wrong": wrong})


def replayed_random_uniform(providers: list[Any] | None = None, device: str = "cuda") -> Verdict:
    """Find whether RandomUniform in a captured graph gives a new kappa at every replay."""
    nodes = [
        helper.make_node("RandomUniform", [], ["k"], low=0.2, high=0.6, shape=[1]),
        helper.make_node("Sub", ["x", "k"], ["d"]),
        helper.make_node("Abs", ["d"], ["y"]),
    ]
    replayer = Replayer(elementwise(nodes, shape=(1,)), 1, providers or _GRAPH, None, device)
    seen = [float(replayer.run(np.zeros(1, dtype=np.float32))[0]) for _ in range(_REPLAYS)]
    return _distinct(seen[1:])


def replayed_own_draw(
    providers: list[Any] | None = None, target: Target | None = None, device: str = "cuda"
) -> Verdict:
    """Find whether JumpRelu with a range draws a new kappa at every replay; if not, graphs need another source."""
    library = target or built_target()
    length = 4001
    node = jump_node("x", "y", kappa_low=0.2, kappa_high=0.6)
    replayer = Replayer(elementwise([node]), length, providers or _GRAPH, library, device)
    grid = np.linspace(0, 1, length, dtype=np.float32)
    seen = []
    for _ in range(_REPLAYS):
        result = replayer.run(grid)
        seen.append(float(result[result > 0].min()))
    return _distinct(seen[1:])


def _distinct(seen: list[float]) -> Verdict:
    count = len(set(seen))
    words = "the same value at every replay" if count == 1 else f"{count} different values in {len(seen)} replays"
    return Verdict("measured", words, {"replays": len(seen), "different": count})

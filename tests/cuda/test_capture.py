"""Captured CUDA graphs never give a stale answer: every replay uses the inputs, and the kappa, of its own run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from jr_onnx.semantics import jump_relu
from tests.cuda.conftest import Bound, Open
from tools.checks.gpu.sessions import jump_node

GRID = np.linspace(0, 1, 1001, dtype=np.float32)
GRAPH = {"enable_cuda_graph": "1"}
KAPPA = helper.make_tensor_value_info("kappa", TensorProto.FLOAT, ())


def draw_node() -> Any:
    return helper.make_node("DrawKappa", [], ["k"], name="draw", domain="jr_onnx", low=0.2, high=0.6)


def with_kappa(source: str) -> Any:
    return helper.make_node("JumpRelu", ["x", source], ["y"], name="site", domain="jr_onnx")


def kappa_of(y: np.ndarray[Any, Any], x: np.ndarray[Any, Any]) -> float:
    """Return the largest input that became 0, after making sure that one kappa explains the whole output."""
    kappa = float(x[y == 0].max())
    assert y.tobytes() == jump_relu(x, kappa).tobytes()
    return kappa


def test_a_fixed_kappa(open_session: Open) -> None:
    bound = Bound(open_session([jump_node("x", "y", kappa=0.25)], shape=GRID.shape, **GRAPH), {"x": GRID}, GRID.shape)
    for seed in range(6):
        x = np.random.default_rng(seed).permutation(GRID)
        assert bound.run(x=x).tobytes() == jump_relu(x, 0.25).tobytes()


@pytest.mark.parametrize(
    "nodes",
    [
        [jump_node("x", "y", kappa_low=0.2, kappa_high=0.6)],
        [jump_node("x", "a", kappa=0.1), jump_node("a", "y", kappa_low=0.2, kappa_high=0.6)],
        [draw_node(), with_kappa("k")],
    ],
    ids=["range", "range behind a fixed one", "DrawKappa"],
)
@pytest.mark.parametrize("options", [GRAPH, {}], ids=["captured", "eager"])
def test_a_random_kappa_differs_from_run_to_run(open_session: Open, nodes: list[Any], options: dict[str, str]) -> None:
    bound = Bound(open_session(nodes, shape=GRID.shape, **options), {"x": GRID}, GRID.shape)
    seen = []
    for seed in range(12):
        x = np.random.default_rng(seed).permutation(GRID)
        seen.append(kappa_of(bound.run(x=x), x))
    assert len(set(seen)) > 8, "every replay draws a new kappa"
    assert all(0.199 <= kappa < 0.6 for kappa in seen)


def test_two_random_sites_draw_apart(open_session: Open) -> None:
    """Sites of one network have generators of their own: at 0.2 to 0.6 twice, the larger of two draws."""
    nodes = [jump_node("x", "a", kappa_low=0.2, kappa_high=0.6), jump_node("a", "y", kappa_low=0.2, kappa_high=0.6)]
    bound = Bound(open_session(nodes, shape=GRID.shape, **GRAPH), {"x": GRID}, GRID.shape)
    larger = [kappa_of(bound.run(), GRID) for _ in range(200)]
    # The larger of two uniform draws has the mean low + 2/3 of the width (one draw: 1/2) and deviation 0.2357 of it.
    assert abs(np.mean(larger) - (0.2 + 0.4 * 2 / 3)) < 5 * 0.4 * 0.2357 / np.sqrt(200)


def test_a_kappa_input_is_read_at_every_replay(open_session: Open) -> None:
    session = open_session([with_kappa("kappa")], shape=GRID.shape, inputs=[KAPPA], **GRAPH)
    bound = Bound(session, {"x": GRID, "kappa": np.array(0.5, np.float32)}, GRID.shape)
    for kappa in (0.5, 0.25, 0.75, 0.0, 0.125):
        assert bound.run(kappa=np.array(kappa, np.float32)).tobytes() == jump_relu(GRID, kappa).tobytes()


def test_a_bad_kappa_input_cannot_pass_for_an_answer(open_session: Open) -> None:
    session = open_session([with_kappa("kappa")], shape=GRID.shape, inputs=[KAPPA], **GRAPH)
    bound = Bound(session, {"x": GRID, "kappa": np.array(0.5, np.float32)}, GRID.shape)
    bound.run()
    assert np.isnan(bound.run(kappa=np.array(-1, np.float32))).all()
    assert bound.run(kappa=np.array(0.5, np.float32)).tobytes() == jump_relu(GRID, 0.5).tobytes()

"""A session of this package with captured graphs never answers with the inputs, or the kappa, of another run."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

import jr_onnx
from jr_onnx.errors import InputError, RefusalError
from jr_onnx.kappa import KappaPlan, RandomKappa, RandomSource
from jr_onnx.runtime.fixed import FixedBinding
from jr_onnx.semantics import jump_relu
from tests.cuda.conftest import Bound
from tools.checks.gpu.sessions import CPU, CUDA, elementwise

GRID = np.linspace(0, 1, 1001, dtype=np.float32)
PROVIDERS = [(CUDA, {"enable_cuda_graph": "1"}), CPU]


def _session(plan: Any) -> Any:
    relu = elementwise([helper.make_node("Relu", ["x"], ["y"], name="site")])
    model = jr_onnx.rewrite(relu, plan, lowering="custom", target="cuda")[0]
    return jr_onnx.InferenceSession(model.SerializeToString(), providers=PROVIDERS)


def _kappa(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> float:
    kappa = float(x[y == 0].max())
    assert y.tobytes() == jump_relu(x, kappa).tobytes(), "one kappa explains the whole output"
    return kappa


@pytest.mark.parametrize("source", ["input", "op"])
def test_a_random_kappa_differs_at_every_replay(fake: ctypes.CDLL, source: RandomSource) -> None:
    session = _session(RandomKappa(0.2, 0.6, source=source))
    bound = Bound(session, {"x": GRID}, GRID.shape)
    seen = []
    for seed in range(24):
        x = np.random.default_rng(seed).permutation(GRID)
        seen.append(_kappa(x, bound.run(x=x)))
        # Something else takes the memory that a drawn kappa had, if it is not kept.
        del x
    assert len(set(seen)) > 20
    assert all(0.199 <= kappa < 0.6 for kappa in seen)


def test_a_replay_uses_the_kappa_that_was_bound_last(fake: ctypes.CDLL) -> None:
    session = _session(KappaPlan(0.25, input_name="kappa"))
    binding, y = session.io_binding(), onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros_like(GRID), "cuda", 0)
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(GRID, "cuda", 0))
    binding.bind_ortvalue_output("y", y)
    for kappa in (0.5, 0.125, 0.75, 0.0):
        binding.bind_cpu_input("kappa", np.array(kappa, np.float32))
        session.run_with_iobinding(binding)
        assert y.numpy().tobytes() == jump_relu(GRID, kappa).tobytes()


def test_runs_without_bound_memory_are_not_replayed(fake: ctypes.CDLL) -> None:
    session = _session(0.25)
    bound = Bound(session, {"x": GRID}, GRID.shape)
    for seed in range(4):
        x = np.random.default_rng(seed).permutation(GRID)
        shorter = x[: 500 + seed]
        assert session.run(None, {"x": shorter})[0].tobytes() == jump_relu(shorter, 0.25).tobytes()
        values = {"x": onnxruntime.OrtValue.ortvalue_from_numpy(shorter)}
        assert session.run_with_ort_values(None, values)[0].numpy().tobytes() == jump_relu(shorter, 0.25).tobytes()
        assert bound.run(x=x).tobytes() == jump_relu(x, 0.25).tobytes()
    options = onnxruntime.RunOptions()
    with pytest.raises(InputError, match="not bound to it"):
        session.run(None, {"x": GRID}, options)
    options.add_run_config_entry("gpu_graph_id", "-1")
    assert session.run(None, {"x": GRID}, options)[0].tobytes() == jump_relu(GRID, 0.25).tobytes()


def test_a_replay_with_other_memory_is_refused(fake: ctypes.CDLL) -> None:
    session = _session(0.25)
    first, second = (Bound(session, {"x": GRID}, GRID.shape) for _ in range(2))
    first.run()
    with pytest.raises(InputError, match="captured with other memory bound"):
        second.run()
    assert first.run().tobytes() == jump_relu(GRID, 0.25).tobytes()
    third = FixedBinding(session, {"x": GRID}, [np.zeros_like(GRID)], graph=3)
    third.run()
    assert third.fetch()[0].tobytes() == jump_relu(GRID, 0.25).tobytes()
    binding = session.io_binding()
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "4")
    y = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros_like(GRID), "cuda", 0)
    binding.bind_ortvalue_output("y", y)
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(GRID, "cuda", 0))
    session.run_with_iobinding(binding, options)
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(GRID[::-1].copy(), "cuda", 0))
    with pytest.raises(InputError, match="captured with other memory bound"):
        session.run_with_iobinding(binding, options)


@pytest.mark.parametrize("plan", [0.25, RandomKappa(0.2, 0.6, source="input")], ids=["fixed", "random"])
def test_a_binding_that_notes_nothing_is_refused(fake: ctypes.CDLL, plan: Any) -> None:
    """What is later bound to ONNX Runtime's own binding, kappa included, a replay would not see."""
    session = _session(plan)
    binding = onnxruntime.IOBinding(session)
    for name, bind in (("x", binding.bind_ortvalue_input), ("y", binding.bind_ortvalue_output)):
        bind(name, onnxruntime.OrtValue.ortvalue_from_numpy(GRID, "cuda", 0))
    with pytest.raises(InputError, match="does not note what is bound"):
        session.run_with_iobinding(binding)


def test_every_thread_has_its_own_graphs(fake: ctypes.CDLL) -> None:
    session = _session(0.25)

    def ask(seed: int) -> bool:
        x = np.random.default_rng(seed).permutation(GRID)
        bound = Bound(session, {"x": GRID}, GRID.shape)
        return bool(bound.run(x=x).tobytes() == jump_relu(x, 0.25).tobytes())

    for seed in range(3):  # one thread after the other: ONNX Runtime captures on one stream
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(ask, seed).result()


def test_a_graph_whose_capture_failed_is_not_replayed(fake: ctypes.CDLL) -> None:
    """ONNX Runtime keeps what it captured until then, and would replay that as if it were the model."""
    session = _session(0.25)
    small = FixedBinding(session, {"x": GRID}, [np.zeros(3, np.float32)])
    with pytest.raises(Exception, match="shape"):
        small.run()
    with pytest.raises(InputError, match="could not be captured"):
        small.run()
    assert session.run(None, {"x": GRID})[0].tobytes() == jump_relu(GRID, 0.25).tobytes()


def test_a_kappa_that_the_graph_draws_is_refused(fake: ctypes.CDLL) -> None:
    relu = elementwise([helper.make_node("Relu", ["x"], ["y"], name="site")])
    model = jr_onnx.rewrite(relu, RandomKappa(0.2, 0.6, source="graph"))[0].SerializeToString()
    with pytest.raises(RefusalError, match="every replay of a captured graph would use the kappa"):
        jr_onnx.InferenceSession(model, providers=PROVIDERS)
    jr_onnx.InferenceSession(model, providers=[CUDA, CPU])

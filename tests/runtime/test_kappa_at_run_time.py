"""kappa as an input, and kappa drawn for every run: by the session, by the op library, in the graph."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from jr_onnx.errors import KappaError
from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime import entropy
from jr_onnx.runtime.session import InferenceSession
from tests.runtime.exact_nets import ExactNet, convnet, images

CPU = ["CPUExecutionProvider"]
GRID = np.linspace(0, 1, 1001, dtype=np.float32)


def open_one(model: onnx.ModelProto, kappa: Any, way: str = "optimised", **rewriting: Any) -> InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return InferenceSession(rewrite(model, kappa, **rewriting)[0].SerializeToString(), options, CPU, retrofit=way)


def grid_net(sites: int = 1) -> onnx.ModelProto:
    """Sites that see a grid of [0, 1], so that the smallest survivor tells kappa."""
    net = ExactNet(0)
    shifted = net.add("Identity", ["x"])
    return net.model([net.relu(net.add("Abs", [shifted])) for _ in range(sites)], ["N"])


def seen(result: Any) -> float:
    """The kappa that a run used, up to the grid."""
    return float(result[result > 0].min())


@pytest.mark.parametrize("way", ["optimised", "plain"])
def test_a_kappa_input_has_a_default_and_can_be_fed(way: str) -> None:
    session = open_one(grid_net(), KappaPlan(kappa=0.25, input_name="k"), way)
    assert session.retrofit.kappa_input == "k"
    assert [item.name for item in session.get_inputs()] == ["x"]
    assert seen(session.run(None, {"x": GRID})[0]) == pytest.approx(0.251)
    for value in (np.float32(0.5), np.float64(0.5), 0.5, np.array([0.5])):
        assert seen(session.run(None, {"x": GRID, "k": value})[0]) == pytest.approx(0.501)


def test_a_fed_kappa_gives_the_same_bits_both_ways() -> None:
    plan = KappaPlan(kappa=3.0, input_name="k")
    fast, plain = open_one(convnet(), plan), open_one(convnet(), plan, "plain")
    for kappa in (0.0, 1.0, 3.0, 100.0):
        feed = {**images(), "k": np.float32(kappa)}
        np.testing.assert_array_equal(fast.run(None, feed)[0], plain.run(None, feed)[0])


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), 1e39, np.array([0.1, 0.2]), np.array(["a"])])
def test_an_invalid_kappa_that_is_fed_is_refused(value: Any) -> None:
    session = open_one(grid_net(), KappaPlan(kappa=0.25, input_name="k"))
    with pytest.raises(KappaError, match="input 'k' is"):
        session.run(None, {"x": GRID, "k": value})
    with pytest.raises(KappaError, match="input 'k' is"):
        session.io_binding().bind_cpu_input("k", value)


def run_plainly(session: InferenceSession) -> Any:
    return session.run(None, {"x": GRID})[0]


def run_with_ort_values(session: InferenceSession) -> Any:
    value = onnxruntime.OrtValue.ortvalue_from_numpy(GRID)
    return session.run_with_ort_values(["Relu_2"], {"x": value})[0].numpy()


def run_with_binding(session: InferenceSession) -> Any:
    binding = session.io_binding()
    binding.bind_cpu_input("x", GRID)
    binding.bind_output("Relu_2")
    session.run_with_iobinding(binding)
    return binding.copy_outputs_to_cpu()[0]


def run_in_another_thread(session: InferenceSession) -> Any:
    done, results = threading.Event(), []

    def callback(result: Any, user_data: Any, error: str) -> None:
        results.append(error or result[0])
        done.set()

    session.run_async(None, {"x": GRID}, callback, None)
    assert done.wait(20)
    return results[0]


@pytest.mark.parametrize("run", [run_plainly, run_with_ort_values, run_with_binding])
@pytest.mark.parametrize("way", ["optimised", "plain"])
def test_a_random_kappa_is_drawn_for_every_run(run: Any, way: str) -> None:
    session = open_one(grid_net(), RandomKappa(0.2, 0.6), way)
    found = [seen(run(session)) for _ in range(60)]
    assert all(0.2 < kappa < 0.602 for kappa in found)
    # 60 equal draws of 400 possible ones: chance does not explain less than 30 different values or a narrow range.
    assert len(set(found)) > 30
    assert max(found) - min(found) > 0.2


def test_a_random_kappa_is_drawn_for_an_asynchronous_run() -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2  # ONNX Runtime runs it in a thread of the session's pool
    data = rewrite(grid_net(), RandomKappa(0.2, 0.6))[0].SerializeToString()
    session = InferenceSession(data, options, CPU)
    assert len({seen(run_in_another_thread(session)) for _ in range(10)}) > 1


def test_a_caller_may_fix_a_random_kappa() -> None:
    session = open_one(grid_net(), RandomKappa(0.2, 0.6))
    name = session.retrofit.kappa_input
    assert seen(session.run(None, {"x": GRID, name: np.float32(0.9)})[0]) == pytest.approx(0.901)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(0.9, dtype=np.float32))
    feed = {"x": onnxruntime.OrtValue.ortvalue_from_numpy(GRID), name: value}
    assert seen(session.run_with_ort_values(["Relu_2"], feed)[0].numpy()) == pytest.approx(0.901)
    binding = session.io_binding()
    binding.bind_cpu_input("x", GRID)
    binding.bind_output("Relu_2")
    binding.bind_cpu_input(name, np.asarray(0.9, dtype=np.float32))
    session.run_with_iobinding(binding)
    assert seen(binding.copy_outputs_to_cpu()[0]) == pytest.approx(0.901)
    binding.clear_binding_inputs()
    binding.bind_cpu_input("x", GRID)
    session.run_with_iobinding(binding)
    assert seen(binding.copy_outputs_to_cpu()[0]) < 0.602


@pytest.mark.parametrize("source", ["op", "graph"])
@pytest.mark.parametrize("per", ["network", "site"])
def test_kappa_drawn_in_the_model(source: Any, per: Any) -> None:
    session = open_one(grid_net(2), RandomKappa(0.2, 0.6, per, source))
    assert session.retrofit.kappa_input is None
    pairs = [tuple(seen(result) for result in session.run(None, {"x": GRID})) for _ in range(40)]
    assert all(0.2 <= kappa < 0.602 for pair in pairs for kappa in pair)
    assert len({pair[0] for pair in pairs}) > 15
    same = sum(one == other for one, other in pairs)
    assert same == 40 if per == "network" else same < 10


def test_without_the_library_its_draws_run_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    monkeypatch.setattr("jr_onnx.runtime.ops_library._FOLDER", Path("/nowhere"))
    session = open_one(grid_net(), RandomKappa(0.2, 0.6, "network", "op"), "auto")
    assert session.retrofit.mode == "plain"
    assert session.retrofit.reason == "kappa is drawn by the op library, which is not there"
    assert 0.2 < seen(session.run(None, {"x": GRID})[0]) < 0.602


def test_draws_are_uniform_and_end_before_the_upper_end() -> None:
    random = RandomKappa(0.25, 0.75)
    draws = np.array([float(entropy.draw(random)) for _ in range(4000)])
    assert draws.min() >= 0.25
    assert draws.max() < 0.75
    # The mean of 4000 draws has a standard deviation of 0.5 / sqrt(12 * 4000) = 0.0023; five are 1 in 2 million.
    assert abs(draws.mean() - 0.5) < 5 * 0.0023
    narrow = RandomKappa(1.0, float(np.nextafter(np.float32(1), np.float32(2))))
    assert {float(entropy.draw(narrow)) for _ in range(50)} == {1.0}

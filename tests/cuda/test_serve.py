"""`jr-onnx serve --provider cuda` on the fake runtime: answers from captured graphs, compared with NumPy's jump."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import jr_onnx
from jr_onnx.kappa import KappaPlan, RandomKappa, RandomSource
from jr_onnx.semantics import jump_relu
from jr_onnx.serve.model import ServedModel
from jr_onnx.serve.options import Limits, Running
from tests.serve.support import Rest
from tools.checks.gpu.sessions import CPU, CUDA, elementwise
from tools.checks.serving.processes import running

WIDTH = 33
KAPPA = 0.25
GRAPHS = ("--provider", "cuda", "--cuda-options", "graph")


@pytest.fixture
def relu(fake: ctypes.CDLL, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="site")]
    onnx.save(elementwise(nodes, shape=("N", WIDTH)), str(path))
    return path


def _retrofit(relu: Path, plan: Any = KAPPA) -> Path:
    return Path(jr_onnx.rewrite(str(relu), plan, lowering="custom", target="cuda")[0])


def _served(path: Path, **options: Any) -> ServedModel:
    settings = {"providers": (CUDA, CPU), "cuda_options": "graph", **options}
    return ServedModel("model", "1", path, Running(**settings), Limits())


@contextmanager
def _server(path: Path, *options: str) -> Iterator[Any]:
    with running(["-m", "jr_onnx", "serve", str(path), *GRAPHS, *options, "--http-port", "0", "--no-grpc"]) as server:
        yield server


def _ask(client: Rest, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    data = {"name": "x", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    answer = client.infer("model", {"inputs": [data]})
    assert answer.status == 200, answer.body
    return answer.output()


def _rows(seed: int, count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform(-1, 1, (count, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("instances", ["1", "3"])
def test_concurrent_requests_of_all_sizes_get_their_own_answers(relu: Path, instances: str) -> None:
    def client_of(number: int) -> int:
        client = Rest(server.http_port)
        for turn in range(25):
            rows = _rows(100 * number + turn, 1 + (number + turn) % 9)
            assert _ask(client, rows).tobytes() == jump_relu(rows, KAPPA).tobytes()
        client.close()
        return 25

    options = ("--instances", instances, "--join-rows", "--max-batch", "8", "--batch-delay-us", "500")
    with _server(_retrofit(relu), *options) as server, ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(client_of, range(6))) == 150


def test_a_reload_while_requests_run(relu: Path) -> None:
    path = _retrofit(relu)

    def asking(number: int) -> None:
        client = Rest(server.http_port)
        for turn in range(40):
            rows = _rows(number * 1000 + turn, 2)
            assert _ask(client, rows).tobytes() == jump_relu(rows, KAPPA).tobytes()
        client.close()

    with _server(path, "--model-control") as server, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(asking, number) for number in range(3)]
        control = Rest(server.http_port)
        for _ in range(3):
            assert control.ask("POST", "/v2/repository/models/model/load", {}).status == 200
        control.close()
        for one in asked:
            one.result()


@pytest.mark.parametrize("source", ["input", "op"])
def test_every_request_has_its_own_random_kappa(relu: Path, source: RandomSource) -> None:
    grid = np.linspace(0, 1, WIDTH, dtype=np.float32).reshape(1, WIDTH)
    with _server(_retrofit(relu, RandomKappa(0.1, 0.9, source=source))) as server:
        client = Rest(server.http_port)
        seen = []
        for _ in range(24):
            found = _ask(client, grid)
            kappa = float(grid[found == 0].max())
            assert found.tobytes() == jump_relu(grid, kappa).tobytes()
            seen.append(kappa)
        client.close()
    # 26 values of the grid lie in the range: 24 draws that are all alike but a few are no draws.
    assert len(set(seen)) > 6


def test_a_kappa_of_the_client_is_used(relu: Path) -> None:
    model = _served(_retrofit(relu, KappaPlan(KAPPA, input_name="kappa")), expose_kappa=True)
    rows = _rows(1, 1)
    in_thread = model._batcher._threads.submit
    for kappa in (0.5, 0.75):
        found = in_thread(model.run, {"x": rows, "kappa": np.array(kappa, np.float32)}).result()["y"]
        assert found.tobytes() == jump_relu(rows, kappa).tobytes()
        assert in_thread(model.run, {"x": rows}).result()["y"].tobytes() == jump_relu(rows, KAPPA).tobytes()
    model.stop()


def _why_none(model: ServedModel) -> str:
    (note,) = (note for note in model.notes if note.startswith("no CUDA graphs are captured: "))
    return note.removeprefix("no CUDA graphs are captured: ")


def _graph_launches(model: ServedModel, sizes: Sequence[int], fake: ctypes.CDLL) -> dict[int, bool]:
    """Tell for which numbers of rows a graph is replayed; compares the answers."""
    fake.fake_cuda_replays.restype = ctypes.c_long
    replayed = {}
    for rows in (_rows(size, size) for size in sizes):
        before = fake.fake_cuda_replays()
        found = model._batcher._threads.submit(model.run, {"x": rows}).result()["y"]
        assert found.tobytes() == jump_relu(rows, KAPPA).tobytes()
        replayed[len(rows)] = fake.fake_cuda_replays() > before
    return replayed


def test_which_sizes_are_replayed(relu: Path, fake: ctypes.CDLL) -> None:
    model = _served(_retrofit(relu), graph_batch=(1, 4), max_batch=1)
    assert model.notes[-1] == "CUDA graphs of 1, 4 rows are captured"
    assert _graph_launches(model, (1, 2, 3, 4, 5), fake) == {1: True, 2: False, 3: False, 4: True, 5: False}
    model.stop()


def test_joined_rows_are_padded_to_at_most_twice_their_number(relu: Path, fake: ctypes.CDLL, monkeypatch: Any) -> None:
    monkeypatch.setattr("jr_onnx.serve.model.best_rows", lambda *_: 8)
    model = _served(_retrofit(relu), graph_batch=(1, 8), max_batch=8)
    replayed = _graph_launches(model, (1, 2, 3, 4, 5, 7, 8, 9), fake)
    assert [size for size, done in replayed.items() if done] == [1, 4, 5, 7, 8]
    model.stop()


def test_a_model_of_fixed_sizes_has_one_graph(fake: ctypes.CDLL, tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    onnx.save(elementwise([helper.make_node("Relu", ["x"], ["y"], name="site")], shape=(2, WIDTH)), str(path))
    model = _served(_retrofit(path))
    assert model.notes[-1] == "CUDA graphs are captured"
    assert _graph_launches(model, (2, 2, 2), fake) == {2: True}
    model.stop()


def test_what_cannot_be_captured_runs_without_and_says_why(fake: ctypes.CDLL, tmp_path: Path, relu: Path) -> None:
    random = _served(_retrofit_in_graph(relu))
    assert "its operator RandomUniform would repeat the captured numbers" in _why_none(random)
    random.stop()
    path = tmp_path / "open.onnx"
    onnx.save(elementwise([helper.make_node("Relu", ["x"], ["y"], name="site")], shape=("N", "M")), str(path))
    model = _served(_retrofit(path))
    assert _why_none(model) == "the sizes of input 'x' are open"
    assert _graph_launches(model, (1, 1), fake) == {1: False}
    model.stop()


def test_a_model_that_cuda_runs_in_part_is_not_captured(fake: ctypes.CDLL, tmp_path: Path) -> None:
    """ThresholdedRelu has no kernel on CUDA from opset 22 on, so ONNX Runtime refuses to capture the model."""
    path = tmp_path / "partly.onnx"
    nodes = [
        helper.make_node("ThresholdedRelu", ["x"], ["a"], alpha=0.5),
        helper.make_node("JumpRelu", ["a"], ["y"], domain="jr_onnx", kappa=KAPPA),
    ]
    model = elementwise(nodes, shape=("N", WIDTH))
    next(entry for entry in model.opset_import if entry.domain == "").version = 22
    onnx.save(model, str(path))
    served = _served(path)
    assert "ONNX Runtime cannot open" in _why_none(served)
    rows = _rows(0, 2)
    assert served.run({"x": rows})["y"].tobytes() == jump_relu(rows, 0.5).tobytes()
    served.stop()


def test_a_capture_that_fails_leaves_a_model_without_graphs(relu: Path, fake: ctypes.CDLL, monkeypatch: Any) -> None:
    def failing(self: Any) -> None:
        raise RuntimeError("capture went wrong")

    monkeypatch.setattr("jr_onnx.runtime.fixed.FixedBinding.run", failing)
    model = _served(_retrofit(relu), instances=2)
    assert _why_none(model) == "capture went wrong"
    assert _graph_launches(model, (1, 2), fake) == {1: False, 2: False}
    model.stop()


def test_a_graph_that_answers_with_old_inputs_does_not_serve(relu: Path, fake: ctypes.CDLL, monkeypatch: Any) -> None:
    monkeypatch.setattr("jr_onnx.runtime.fixed.FixedBinding.put", lambda *_: None)
    model = _served(_retrofit(relu))
    assert _why_none(model) == "a replay on other inputs gives the answer of the run that was captured"
    assert _graph_launches(model, (1, 2), fake) == {1: False, 2: False}
    model.stop()


def _retrofit_in_graph(relu: Path) -> Path:
    return Path(jr_onnx.rewrite(str(relu), RandomKappa(0.2, 0.6, source="graph"))[0])

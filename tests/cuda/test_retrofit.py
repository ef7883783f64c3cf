"""A retrofit on the CUDA provider: the session of this package, and the server."""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import jr_onnx
from jr_onnx.kappa import KappaPlan, RandomKappa, RandomPer, RandomSource
from jr_onnx.semantics import jump_relu, round_kappa
from tests.serve.support import Rest
from tools.checks.gpu.sessions import CPU, CUDA, elementwise
from tools.checks.serving.processes import running

GRID = np.linspace(-1, 1, 2001, dtype=np.float32)
PROVIDERS = [CUDA, CPU]


@pytest.fixture
def relu(fake: ctypes.CDLL, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(elementwise([helper.make_node("Relu", ["x"], ["y"], name="site")]), str(path))
    return path


def test_a_fixed_kappa(relu: Path) -> None:
    path, _ = jr_onnx.rewrite(str(relu), 0.25, lowering="custom", target="cuda")
    session = jr_onnx.InferenceSession(str(path), providers=PROVIDERS)
    assert session.get_providers()[0] == CUDA
    assert session.retrofit.mode == "optimised"
    assert session.run(None, {"x": GRID})[0].tobytes() == jump_relu(GRID, round_kappa(0.25, "float32")).tobytes()


@pytest.mark.parametrize(("source", "per"), [("input", "network"), ("op", "network"), ("op", "site")])
def test_a_random_kappa_is_drawn_for_every_run(relu: Path, source: RandomSource, per: RandomPer) -> None:
    kappa = RandomKappa(0.2, 0.6, per=per, source=source)
    path, _ = jr_onnx.rewrite(str(relu), kappa, lowering="custom", target="cuda")
    session = jr_onnx.InferenceSession(str(path), providers=PROVIDERS)
    seen = set()
    for _ in range(20):
        y = session.run(None, {"x": GRID})[0]
        seen.add(float(GRID[y == 0].max()))
    assert len(seen) > 10


def test_a_kappa_input(relu: Path) -> None:
    path, _ = jr_onnx.rewrite(str(relu), KappaPlan(0.25, input_name="kappa"), lowering="custom", target="cuda")
    session = jr_onnx.InferenceSession(str(path), providers=PROVIDERS)
    for kappa in (0.5, 0.75):
        y = session.run(None, {"x": GRID, "kappa": np.array(kappa, np.float32)})[0]
        assert y.tobytes() == jump_relu(GRID, kappa).tobytes()
    with pytest.raises(jr_onnx.errors.KappaError):
        session.run(None, {"x": GRID, "kappa": np.array(-1, np.float32)})


def test_the_server(relu: Path) -> None:
    path, _ = jr_onnx.rewrite(str(relu), 0.25, lowering="custom", target="cuda")
    command = [
        "-m",
        "jr_onnx",
        "serve",
        str(path),
        "--provider",
        CUDA,
        "--provider",
        CPU,
        "--http-port",
        "0",
        "--no-grpc",
    ]
    with running(command) as server:
        client = Rest(server.http_port)
        data = {"name": "x", "shape": [3], "datatype": "FP32", "data": [0.2, 0.25, 0.5]}
        answer = client.infer("model", {"inputs": [data]})
        assert (answer.status, answer.json["outputs"][0]["data"]) == (200, [0.0, 0.0, 0.5])
        client.close()


def test_doctor_runs_a_node_on_the_provider(relu: Path, caplog: pytest.LogCaptureFixture) -> None:
    from jr_onnx.runtime.providers import check_providers

    caplog.set_level(logging.WARNING)
    states = {item.name: item.works for item in check_providers()}
    assert states[CUDA]
    assert states[CPU]


def test_images_are_run_again_on_the_provider_that_will_serve(relu: Path) -> None:
    from jr_onnx.attack.classifier.served import open_session

    path, _ = jr_onnx.rewrite(str(relu), 0.25, lowering="custom", target="cuda")
    assert open_session(path, provider="cuda").get_providers()[0] == CUDA
    assert open_session(path).get_providers() == [CPU]


@pytest.mark.parametrize("instances", [1, 3])
def test_the_server_takes_short_names_and_several_instances(relu: Path, instances: int) -> None:
    path, _ = jr_onnx.rewrite(str(relu), 0.25, lowering="custom", target="cuda")
    command = ["-m", "jr_onnx", "serve", str(path), "--provider", "cuda", "--instances", str(instances)]
    with running([*command, "--http-port", "0", "--no-grpc"]) as server:
        client = Rest(server.http_port)
        for _ in range(8):
            data = {"name": "x", "shape": [3], "datatype": "FP32", "data": [0.2, 0.25, 0.5]}
            answer = client.infer("model", {"inputs": [data]})
            assert (answer.status, answer.json["outputs"][0]["data"]) == (200, [0.0, 0.0, 0.5])
        client.close()

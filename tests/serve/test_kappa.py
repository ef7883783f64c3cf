"""A random kappa is drawn for every request, also under concurrency; clients see nothing of it unless it is exposed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jr_onnx.kappa import RandomKappa
from jr_onnx.rewriter import rewrite
from tests.serve.builders import HIGH, LOW, jump
from tests.serve.support import Rest, request, tensor
from tools.checks.serving.processes import ServerProcess, jr_onnx, running

RAMP = np.linspace(LOW, HIGH, 64, dtype=np.float32)


def kappas(row: np.ndarray) -> tuple[float, float]:
    """Return the range of kappas that explain an answer to the ramp, refusing an answer that none explains."""
    passed = row != 0
    np.testing.assert_array_equal(row[passed], RAMP[passed])
    assert (np.diff(passed.astype(int)) >= 0).all(), "values pass from one point on, because kappa is one number"
    below = RAMP[~passed]
    return float(below.max(initial=RAMP[0])), float(RAMP[passed].min(initial=RAMP[-1]))


def test_every_request_has_its_own_kappa(server: ServerProcess) -> None:
    def ask(_: int) -> list[tuple[float, float]]:
        client = Rest(server.http_port)
        try:
            return [kappas(client.infer("drawn", request(RAMP[None])).output()[0]) for _ in range(20)]
        finally:
            client.close()

    with ThreadPoolExecutor(8) as pool:
        ranges = [found for answers in pool.map(ask, range(8)) for found in answers]
    assert all(low <= high for low, high in ranges)
    # 160 draws from 64 intervals: all below 20 different ones has a probability far below 1e-40.
    assert len(set(ranges)) > 20
    middles = np.array([(low + high) / 2 for low, high in ranges])
    # The mean of n uniform draws has the deviation (high - low) / sqrt(12 n); six of them is a chance of 2e-9.
    assert abs(middles.mean() - (LOW + HIGH) / 2) < 6 * (HIGH - LOW) / np.sqrt(12 * len(ranges)) + 1e-3


def test_rows_of_one_request_share_its_kappa(rest: Rest) -> None:
    first, second = rest.infer("drawn", request(np.stack([RAMP, RAMP]))).output()
    np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module")
def exposing(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path]) -> Iterator[ServerProcess]:
    drawn = tmp_path_factory.mktemp("exposed") / "drawn.jr.onnx"
    rewrite(jump(drawn.with_name("relu.onnx")), RandomKappa(LOW, HIGH), output=drawn)
    with running(jr_onnx(drawn, models["input"], "--expose-kappa")) as process:
        yield process


def test_an_exposed_kappa_is_seen_and_set(exposing: ServerProcess) -> None:
    client = Rest(exposing.http_port)
    metadata = client.get("/v2/models/input").json
    assert metadata["inputs"][1] == {"name": "kappa", "datatype": "FP32", "shape": [1]}
    for kappa in (0.0, 0.13, 0.5):
        body = {"inputs": [tensor(RAMP[None]), tensor(np.array([kappa], np.float32), "kappa")]}
        np.testing.assert_array_equal(
            client.infer("input", body).output()[0], np.where(np.float32(kappa) < RAMP, RAMP, 0)
        )
    default = client.infer("input", request(RAMP[None])).output()[0]
    np.testing.assert_array_equal(default, np.where(np.float32(0.15) < RAMP, RAMP, 0))
    client.close()


def test_an_exposed_random_kappa_is_drawn_where_the_client_sets_none(exposing: ServerProcess) -> None:
    client = Rest(exposing.http_port)
    drawn = {kappas(client.infer("drawn", request(RAMP[None])).output()[0]) for _ in range(30)}
    assert len(drawn) > 3  # that 30 draws hit three of 64 intervals at most has a probability below 1e-30
    client.close()


@pytest.mark.parametrize("kappa", [-0.1, float("inf"), float("nan")])
def test_an_invalid_kappa_is_refused(exposing: ServerProcess, kappa: float) -> None:
    client = Rest(exposing.http_port)
    name = client.get("/v2/models/input").json["inputs"][0]["name"]
    head = {
        "inputs": [
            {"name": name, "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": 256}},
            {"name": "kappa", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}},
        ]
    }
    answer = client.binary("input", head, RAMP.tobytes() + np.float32(kappa).tobytes())
    assert (answer.status, "kappa" in answer.error) == (400, True)
    client.close()

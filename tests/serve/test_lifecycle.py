"""Start, overload, timeouts, drain, death and return."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.serve.support import GOOD, Rest, request
from tools.checks.serving.processes import ROOT, jr_onnx, running

_STOPPED = re.compile(r"stopped: (\d+) requests accepted, (\d+) answered")


def trips(number: int) -> dict:
    """About a millisecond of work each, more on a busy machine."""
    return request(np.array([number]), "trips", "INT64")


def busy(port: int, name: str, seconds: float) -> dict:
    """Build a request that keeps the slow model busy for so long on this machine."""
    count = 100
    while True:
        began = time.monotonic()
        assert status(port, name, trips(count)) == 200
        taken = time.monotonic() - began
        if taken > min(seconds / 4, 0.2):
            return trips(int(count * seconds / taken))
        count *= 2


def status(port: int, model: str, body: dict) -> int:
    client = Rest(port, timeout=120)
    try:
        return client.infer(model, body).status
    finally:
        client.close()


def test_sigterm_under_load_loses_no_accepted_request(models: dict[str, Path]) -> None:
    with running(jr_onnx(models["fixed"], "--drain-delay", "0.3")) as server:
        answered: list[int] = []
        refused = threading.Event()
        broken: list[str] = []

        def ask() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
            body = json.dumps(GOOD)
            while not refused.is_set():
                try:
                    connection.request("POST", "/v2/models/fixed/infer", body)
                    response = connection.getresponse()
                    response.read()
                    answered.append(response.status)
                except ConnectionRefusedError:
                    refused.set()  # the door is closed: nothing was accepted
                except (ConnectionError, http.client.HTTPException) as error:
                    # Closed in the queue of the operating system, or between two requests: the count below tells.
                    broken.append(repr(error))
                    connection.close()

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        assert server.terminate() == 0
        refused.set()
        for thread in threads:
            thread.join(30)
        accepted, done = map(int, _STOPPED.search(server.log).groups())  # type: ignore[union-attr]
        assert accepted == done == len(answered), (server.log, broken)
        assert set(answered) == {200}


def test_sigterm_waits_for_a_long_run_and_says_not_ready_meanwhile(models: dict[str, Path]) -> None:
    with (
        running(jr_onnx(models["slow"], models["fixed"], "--drain-delay", "1")) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        long = pool.submit(status, server.http_port, "slow", busy(server.http_port, "slow", 1.2))
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        client = Rest(server.http_port)
        answer = client.get("/v2/health/ready")
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert client.get("/v2/health/live").status == 200
        assert client.infer("fixed", GOOD).status == 200, "requests are still answered during the delay"
        client.close()
        assert long.result(60) == 200
        assert server.process.wait(40) == 0


def test_a_drain_of_less_than_a_second_is_kept_over_grpc_too(models: dict[str, Path], tmp_path: Path) -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    pytest.importorskip("tritonclient", reason="tritonclient is not installed")
    raw, message = tmp_path / "raw", tmp_path / "message"
    tensor = json.dumps({"name": "trips", "shape": [1], "datatype": "INT64"})
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tools.checks.serving.message",
        "write",
        tensor,
        str(raw),
        str(message),
    ]
    options = ("--drain", "0.99", "--drain-delay", "0")
    with (
        running(jr_onnx(f"model={models['slow']}", *options)) as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        raw.write_bytes(np.array(busy(server.http_port, "model", 0.5)["inputs"][0]["data"], np.int64).tobytes())
        subprocess.run(words, cwd=ROOT, check=True)
        long = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer").future(message.read_bytes())
        time.sleep(0.1)
        assert not long.done()
        assert server.terminate() == 0
        assert long.result(timeout=30)


def test_a_second_signal_stops_at_once(models: dict[str, Path]) -> None:
    with running(jr_onnx(models["slow"])) as server, ThreadPoolExecutor(1) as pool:
        cut_off = pool.submit(status, server.http_port, "slow", busy(server.http_port, "slow", 20))
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 128 + signal.SIGTERM
        assert "SIGTERM again: 1 requests are given up" in server.log
        with pytest.raises(ConnectionError):
            cut_off.result(30)


def test_a_killed_server_comes_back(models: dict[str, Path]) -> None:
    with running(jr_onnx(models["fixed"])) as server:
        port = server.http_port
        assert status(port, "fixed", GOOD) == 200
        server.process.kill()
        server.process.wait()
    command = ["-m", "jr_onnx", "serve", str(models["fixed"]), "--http-port", str(port), "--no-grpc"]
    with running(command) as server:
        # The aim is 5 s on an idle machine; this one may have other tests to run.
        assert server.started_s < 20
        assert status(port, "fixed", GOOD) == 200


def test_a_full_queue_and_a_timeout_are_said_clearly(models: dict[str, Path]) -> None:
    options = ("--max-queue", "2", "--timeout", "1.5")
    with running(jr_onnx(models["slow"], models["fixed"], *options)) as server, ThreadPoolExecutor(8) as pool:
        long_run = busy(server.http_port, "slow", 4)

        def ask(_: int) -> tuple[int, str, str]:
            client = Rest(server.http_port, timeout=60)
            answer = client.infer("slow", long_run)
            client.close()
            return answer.status, answer.error, answer.headers.get("retry-after", "")

        answers = list(pool.map(ask, range(6)))
        statuses = sorted(code for code, _, _ in answers)
        assert set(statuses) == {503, 504}, answers
        assert statuses.count(503) >= 2
        for code, error, retry in answers:
            expected = "requests are waiting already" if code == 503 else "not ready within 1.5 s"
            assert expected in error
            assert retry == ("1" if code == 503 else "")
        client = Rest(server.http_port)
        assert client.infer("fixed", GOOD).status == 200, "another model goes on meanwhile"
        client.close()


def test_the_clients_own_timeout_counts(models: dict[str, Path]) -> None:
    with running(jr_onnx(models["slow"])) as server:
        client = Rest(server.http_port)
        long_run = busy(server.http_port, "slow", 1)
        answer = client.infer("slow", {**long_run, "parameters": {"timeout": 100_000}})
        assert (answer.status, "0.1 s" in answer.error) == (504, True)
        client.close()


def test_a_model_is_unloaded_and_loaded_while_others_are_asked(models: dict[str, Path]) -> None:
    with running(jr_onnx(models["fixed"], models["slow"])) as server, ThreadPoolExecutor(1) as pool:
        client = Rest(server.http_port)
        long = pool.submit(status, server.http_port, "slow", busy(server.http_port, "slow", 0.8))
        time.sleep(0.2)
        assert client.ask("POST", "/v2/repository/models/slow/unload", {}).json == {"name": "slow", "unload": True}
        assert long.result(60) == 200, "a request is answered by the model that accepted it"
        assert client.infer("slow", trips(1)).status == 404
        assert client.get("/v2/models").json == {"models": ["fixed"]}
        rows = client.ask("POST", "/v2/repository/index", {}).json
        assert {row["name"]: row["state"] for row in rows} == {"fixed": "READY", "slow": "UNAVAILABLE"}
        assert client.ask("POST", "/v2/repository/models/slow/load", {}).json == {"name": "slow", "load": True}
        assert client.infer("slow", trips(1)).status == 200
        assert client.ask("POST", "/v2/repository/models/fixed/load", {}).status == 200, "loading again replaces"
        assert client.infer("fixed", GOOD).status == 200
        wanted = {"parameters": {"config": "{}"}}
        assert client.ask("POST", "/v2/repository/models/slow/load", wanted).status == 400
        client.close()


@pytest.mark.parametrize("how", ["gone", "full", "stalled", "closed"])
def test_sigterm_drains_whatever_becomes_of_the_log(models: dict[str, Path], how: str) -> None:
    """Nobody reads stderr, its disk is full, its reader has stopped reading, or it was never open."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, *jr_onnx(models["fixed"], "--http-port", str(port), "--no-grpc")]
    reading, writing = os.pipe()
    if how == "full":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    elif how == "stalled":
        os.set_blocking(writing, False)
        while True:
            try:
                os.write(writing, b"x")
            except BlockingIOError:
                break
        os.set_blocking(writing, True)
    elif how == "closed":
        words = ["sh", "-c", 'exec "$@" 2>&-', "sh", *words]
    process = subprocess.Popen(words, cwd=ROOT, stderr=writing)
    try:
        if how == "gone":
            os.close(reading)
        _until_ready(port, process)
        assert status(port, "fixed", GOOD) == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        for descriptor in (reading, writing):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            client.request("GET", "/v2/health/ready")
            if client.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            client.close()
    raise AssertionError("the server did not become ready")

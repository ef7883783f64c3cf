"""gRPC's own health service, which probes and balancers ask."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tools.checks.serving.processes import ROOT, jr_onnx, running

SERVING, NOT_SERVING, SERVICE_UNKNOWN = "0801", "0802", "0803"


def test_the_server_and_its_service_are_serving(extensions: dict[str, Any]) -> None:
    health = extensions["health"]
    assert health["server"] == health["service"] == health["watch"] == ["OK", SERVING]


def test_an_unknown_service_is_unknown(extensions: dict[str, Any]) -> None:
    assert extensions["health"]["unknown"][0] == "NOT_FOUND"
    assert extensions["health"]["watch unknown"] == ["OK", SERVICE_UNKNOWN]


def test_watchers_are_told_that_the_server_stops_and_hold_it_up_no_longer(models: dict[str, Path]) -> None:
    pytest.importorskip("tritonclient", reason="tritonclient is not installed")
    with running(jr_onnx(models["fixed"], "--drain-delay", "2", "--drain", "25")) as server:
        command = [sys.executable, "-m", "tests.serve.extension_cases", server.grpc, "watch"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as watcher:
            assert watcher.stdout is not None
            assert watcher.stdout.readline() == "watching\n"
            started = time.monotonic()
            assert server.terminate() == 0
            assert time.monotonic() - started < 15  # neither the watcher nor an idle stream takes the 25 s
            assert json.loads(watcher.stdout.read()) == [SERVING, NOT_SERVING]

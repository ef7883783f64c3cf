from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.builders import retrofits
from tests.serve.support import Rest
from tools.checks.serving.processes import ROOT, ServerProcess, jr_onnx, running


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return retrofits(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def server(models: dict[str, Path]) -> Iterator[ServerProcess]:
    """One server for all tests that leave it as it is."""
    limits = ["--max-body-mib", "4", "--max-json-mib", "1", "--max-total-mib", "64", "--max-rows", "64"]
    with running(jr_onnx(*models.values(), *limits, "--reject-non-finite")) as process:
        yield process


@pytest.fixture
def rest(server: ServerProcess) -> Iterator[Rest]:
    client = Rest(server.http_port)
    yield client
    client.close()


@pytest.fixture(scope="session")
def extensions(server: ServerProcess) -> dict[str, Any]:
    """What tritonclient was answered over gRPC for everything beside plain inference."""
    pytest.importorskip("tritonclient", reason="tritonclient is not installed")
    command = [sys.executable, "-m", "tests.serve.extension_cases", server.grpc]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr + server.log
    report: dict[str, Any] = json.loads(done.stdout)
    return report

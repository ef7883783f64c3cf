from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.builders import retrofits
from tests.serve.support import Rest
from tools.serving.processes import ServerProcess, jr_onnx, running


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

"""Start the servers that others offer, in this environment or in one of their own."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.checks.serving.processes import ROOT, ServerProcess, running
from tools.ports import free_ports

_READY = "/v2/models/model/ready"
_READY_S = 60.0
_POLL_S = 0.1
_PROBE = "import mlserver, onnxruntime; print('mlserver', mlserver.__version__, 'onnxruntime', onnxruntime.__version__)"


class PeerError(RuntimeError):
    """A peer cannot be started."""


def mlserver_versions(python: str) -> str:
    """Return the versions of MLServer and ONNX Runtime that an interpreter finds.

    Raises:
        PeerError: There is no such interpreter, or one of the two is not installed there.
    """
    try:
        done = subprocess.run(
            [python, "-W", "ignore", "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PeerError(f"--mlserver-python: cannot run {python}: {reason}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise PeerError(
            f"--mlserver-python: {python} cannot import mlserver and onnxruntime ({lines[-1]}); "
            f"install both there, or name the Python of an environment that has them"
        )
    return done.stdout.strip()


@contextmanager
def stock_kserve(model: Path) -> Iterator[ServerProcess]:
    """Serve a model the way kserve documents it."""
    with running([_script("stock_kserve"), str(model), *map(str, free_ports(2))]) as server:
        _wait(server)
        yield server


@contextmanager
def stock_mlserver(model: Path, python: str) -> Iterator[ServerProcess]:
    """Serve a model the way MLServer documents it, with the interpreter of another environment."""
    with running([_script("stock_mlserver"), str(model), *map(str, free_ports(3))], python=python) as server:
        _wait(server)
        yield server


def _script(name: str) -> str:
    return str(ROOT / "tools" / "checks" / "serving" / f"{name}.py")


def _wait(server: ServerProcess) -> None:
    """Wait until the model is ready over HTTP and something listens for gRPC: these peers promise it too early."""
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        if server.process.poll() is not None:
            raise PeerError(f"the server exited with code {server.process.returncode}: {server.log[-1000:]}")
        if _is_ready(server) and _listens(server.grpc_port):
            return
        time.sleep(_POLL_S)
    raise PeerError(f"the server was not ready within {_READY_S:g} s: {server.log[-1000:]}")


def _is_ready(server: ServerProcess) -> bool:
    connection = http.client.HTTPConnection(server.http, timeout=5)
    try:
        connection.request("GET", _READY)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

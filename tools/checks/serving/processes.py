"""Start a server in a process of its own, wait until it is ready, and be sure that it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

ROOT = Path(__file__).resolve().parents[3]
_READY = re.compile(r"ready: https?://[^ ]+:(\d+)(?: and grpcs?://[^ ]+:(\d+))?")
_POLL_S = 0.02


@dataclass
class ServerProcess:
    """A running server.

    Attributes:
        process: The process.
        http_port: Its port for REST.
        grpc_port: Its port for gRPC, 0 without.
        started_s: How long it took to become ready.
    """

    process: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    started_s: float
    _log: IO[bytes] = field(repr=False)

    @property
    def http(self) -> str:
        """Host and port of REST."""
        return f"127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        """Host and port of gRPC."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def log(self) -> str:
        """What the server has said so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def memory_bytes(self) -> int:
        """Return how much memory the process holds."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def peak_bytes(self) -> int:
        """Return the most memory that the process has held."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))

    def terminate(self, timeout_s: float = 40.0) -> int:
        """Ask the server to stop, wait, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextmanager
def running(
    command: Sequence[str], *, timeout_s: float = 60.0, python: str = sys.executable
) -> Iterator[ServerProcess]:
    """Run a command that prints `ready: http://HOST:PORT[ and grpc://HOST:PORT]`, and kill it at the end.

    Args:
        command: What follows the interpreter.
        timeout_s: How long it may take to become ready.
        python: The interpreter; by default the one that runs this.

    Raises:
        RuntimeError: It ended, or was not ready in time; with what it said.
    """
    with TemporaryFile() as log:
        started = time.monotonic()
        process = subprocess.Popen(
            [python, *command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield _wait(process, log, started, timeout_s)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def jr_onnx(*arguments: str | Path) -> list[str]:
    """Return the command that serves on free ports of this machine, unless the arguments say other ports."""
    return ["-m", "jr_onnx", "serve", "--http-port", "0", "--grpc-port", "0", *map(str, arguments)]


def _wait(process: subprocess.Popen[bytes], log: IO[bytes], started: float, timeout_s: float) -> ServerProcess:
    server = ServerProcess(process, 0, 0, 0.0, log)
    while time.monotonic() - started < timeout_s:
        match = _READY.search(server.log)
        if match:
            server.http_port, server.grpc_port = int(match[1]), int(match[2] or 0)
            server.started_s = time.monotonic() - started
            return server
        if process.poll() is not None:
            raise RuntimeError(f"the server exited with code {process.returncode}: {server.log}")
        time.sleep(_POLL_S)
    raise RuntimeError(f"the server was not ready within {timeout_s} s: {server.log}")

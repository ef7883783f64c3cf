"""Send two servers the request that they are measured with, and make sure that both give the same answer."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jr_onnx.verifier.compare import largest_difference
from tools.checks.serving.processes import ROOT, ServerProcess
from tools.checks.serving.workload import PATH, Request

_TIMEOUT_S = 60.0


class DisagreementError(RuntimeError):
    """Two servers that are to be compared do not compute the same."""


def ask(server: ServerProcess, request: Request) -> NDArray[np.float32]:
    """Send a request once and return the first output.

    Raises:
        DisagreementError: The server refuses it.
    """
    found = _ask_http(server, request) if request.transport == "http" else _ask_grpc(server, request)
    return np.array(found["data"], np.float32).reshape(found["shape"])


def check_alike(first: ServerProcess, first_request: Request, second: ServerProcess, second_request: Request) -> None:
    """Compare one answer of each server.

    Raises:
        DisagreementError: They differ by more than rounding.
    """
    one, other = ask(first, first_request), ask(second, second_request)
    if one.shape != other.shape:
        raise DisagreementError(f"the answers have the shapes {one.shape} and {other.shape}; nothing was measured")
    distance = largest_difference(one, other)
    if not distance <= first_request.bound:
        raise DisagreementError(
            f"the answers differ by {distance:.3g}, expected {first_request.bound:.3g} at most; nothing was measured"
        )


def _ask_http(server: ServerProcess, request: Request) -> dict[str, Any]:
    headers = {"Content-Type": request.content_type}
    if request.header_length:
        headers["Inference-Header-Content-Length"] = str(request.header_length)
    connection = http.client.HTTPConnection(server.http, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", PATH, request.file.read_bytes(), headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise DisagreementError(f"{server.http} answers {response.status}: {body[:300]!r}")
    length = int(response.headers.get("Inference-Header-Content-Length", len(body)))
    output: dict[str, Any] = json.loads(body[:length])["outputs"][0]
    if "data" not in output:
        output["data"] = np.frombuffer(body[length:], np.float32)
    return output


def _ask_grpc(server: ServerProcess, request: Request) -> dict[str, Any]:
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tools.checks.serving.message",
        "ask",
        server.grpc,
        str(request.file),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DisagreementError(f"{server.grpc} gives no answer: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found

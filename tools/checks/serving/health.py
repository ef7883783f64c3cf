"""Ask a server whether it is alive, over both transports and each time over a new connection.

    python -m tools.checks.serving.health HTTP_PORT GRPC_PORT SECONDS

A process of its own, so that nothing but the server makes an answer slow. Prints a JSON object.
"""

from __future__ import annotations

import http.client
import json
import sys
import time

import grpc

_LIVE = "/inference.GRPCInferenceService/ServerLive"
_PAUSE_S = 0.05
_TIMEOUT_S = 10


def over_rest(port: str) -> None:
    """Ask once over REST."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/v2/health/live")
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise RuntimeError(f"status {answer.status}")


def over_grpc(port: str) -> None:
    """Ask once over gRPC."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        channel.unary_unary(_LIVE)(b"", timeout=_TIMEOUT_S)


def main(http_port: str, grpc_port: str, seconds: str) -> None:
    """Ask for so many seconds."""
    worst_s, checks, missing = 0.0, 0, []
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        for ask, port in ((over_rest, http_port), (over_grpc, grpc_port)):
            started = time.monotonic()
            try:
                ask(port)
            except Exception as error:  # noqa: BLE001 - whatever it is, health was not answered
                missing.append(f"health {ask.__name__}: {error!r:.200}")
            else:
                checks += 1
            worst_s = max(worst_s, time.monotonic() - started)
        time.sleep(_PAUSE_S)
    print(json.dumps({"worst_s": worst_s, "checks": checks, "missing": missing}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The HTTP server: kserve's, which renews certificates, on a socket that is already bound."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from jr_onnx.errors import InputError, require
from jr_onnx.serve.http_protocol import BoundedHttpProtocol
from jr_onnx.serve.kserve_import import kserve_module
from jr_onnx.serve.options import Address, Limits
from jr_onnx.serve.rest import RestApp

_uvicorn: Any = require("uvicorn", "serve")
_rest: Any = kserve_module("kserve.protocol.rest.server")
_BACKLOG = 1024
_KEEP_ALIVE_S = 65


class _UvicornServer(_rest._RefreshingServer):  # type: ignore[misc] # kserve has no type information
    """kserve's uvicorn server, which leaves signals to us: both transports are drained together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class RestServer(_rest.RESTServer):  # type: ignore[misc] # kserve has no type information
    """kserve's REST server with our application in the place of its FastAPI routes.

    Args:
        app: The application.
        dataplane: Models and answers.
        extension: Loading and unloading.
        address: Where to listen.
        limits: How long to drain.

    Raises:
        InputError: The port cannot be had.
    """

    def __init__(self, app: RestApp, dataplane: Any, extension: Any, address: Address, limits: Limits) -> None:
        super().__init__("", dataplane, extension, address.http_port, grace_period=int(limits.drain_s))
        self.socket = _bind(address)
        self.config = _uvicorn.Config(
            app,
            http=BoundedHttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(limits.drain_s) or 1,
            ssl_certfile=address.tls_cert and str(address.tls_cert),
            ssl_keyfile=address.tls_key and str(address.tls_key),
        )
        self._server = _UvicornServer(self.config)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.socket.getsockname()[1])

    @property
    def started(self) -> bool:
        """Whether it answers."""
        return bool(self._server.started)

    async def start(self) -> None:
        """Answer requests until `stop`."""
        await self._server.serve(sockets=[self.socket])

    def stop(self) -> None:
        """Close the door, finish what was accepted, and let `start` return."""
        self._server.should_exit = True


def _bind(address: Address) -> socket.socket:
    try:
        found = socket.getaddrinfo(address.host, address.http_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot listen on {address.host}:{address.http_port} for HTTP: {reason}") from None
    return listener

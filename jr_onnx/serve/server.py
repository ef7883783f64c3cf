"""The server: loads the models, opens both transports, and drains them on SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable

from jr_onnx.serve.allocator import return_free_pages, return_large_blocks
from jr_onnx.serve.catalogue import Catalogue
from jr_onnx.serve.connections import ConnectionTable, Listener
from jr_onnx.serve.dataplane import DataPlane
from jr_onnx.serve.gate import ByteBudget, Gate
from jr_onnx.serve.grpc_methods import InferenceService
from jr_onnx.serve.grpc_server import GrpcServer
from jr_onnx.serve.http1 import Http1Connection
from jr_onnx.serve.model import ServedModel
from jr_onnx.serve.options import Address, ServeOptions
from jr_onnx.serve.repository import Registry, RepositoryExtension
from jr_onnx.serve.rest import RestApp

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SIGNAL_EXIT = 128  # added to the signal's number, as shells do
_SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another wants it; Python's 5 ms would be added to a run's time."""


class Server:
    """The server: models, both transports, and graceful shutdown.

    Args:
        options: What to serve, where and how.
        catalogue: The models that can be loaded.
        gate: Checks the token.
        say: Takes messages to the operator.
    """

    def __init__(self, options: ServeOptions, catalogue: Catalogue, gate: Gate, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._registry = Registry(catalogue, options.running, options.limits)
        self._dataplane = DataPlane(self._registry)
        extension = RepositoryExtension(self._registry, allowed=options.lets_clients_load)
        self._budget = ByteBudget(options.limits.total_bytes)
        self._app = RestApp(
            self._dataplane, extension, gate, options.limits, self._budget, is_loopback=options.address.is_loopback
        )
        self._table = ConnectionTable()
        self._grpc: GrpcServer | None = None
        if options.address.grpc_port is not None:
            service = InferenceService(self._dataplane, extension, options.limits, self._budget)
            self._grpc = GrpcServer(options.address, service.methods(), gate, options.limits, self._budget, self._table)
        self._stopping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Load the models and serve until a signal comes.

        Raises:
            JrError: A model cannot be opened, or a port cannot be bound.
        """
        for model in self._registry.open_all():
            self._say(_describe(model))
        sys.setswitchinterval(_SWITCH_SECONDS)
        return_large_blocks()
        gc.collect()
        gc.freeze()  # these objects live as long as the server; the collector need not scan them again
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        address = self._options.address
        self._rest = Listener(address, address.http_port, "HTTP", "http/1.1", self._connection, self._table)
        periodic = [asyncio.create_task(self._table.sweep()), asyncio.create_task(return_free_pages())]
        grpc_port = await self._grpc.open() if self._grpc is not None else None
        self._rest.open()
        self._stopped = asyncio.Event()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.stop, number)
        self._say(_ready_line(address, self._rest.port, grpc_port))
        await self._stopped.wait()
        for task in periodic:
            task.cancel()
        for model in self._registry.all():
            model.stop()
        self._say(f"stopped: {self._accepted()} requests accepted, {self._answered()} answered")

    def stop(self, sig: int) -> None:
        """Begin to drain; a second signal stops at once."""
        if self._stopping is not None:
            self._say(f"{signal.Signals(sig).name} again: {self._accepted() - self._answered()} requests are given up")
            sys.stderr.flush()
            os._exit(_SIGNAL_EXIT + sig)  # a run cannot be interrupted, and Python would wait for its thread
        self._stopping = asyncio.create_task(self._drain())
        self._say(
            f"{signal.Signals(sig).name}: finishing what was accepted, at most {self._options.limits.drain_s:g} s"
        )

    async def _drain(self) -> None:
        """Report "not ready" first, so that balancers stop sending requests; then stop accepting, and finish."""
        self._dataplane.draining = True
        await asyncio.sleep(self._options.limits.drain_delay_s)
        self._rest.close()
        if self._grpc is not None:
            await self._grpc.close()
        await self._table.drain(self._options.limits.drain_s)
        self._stopped.set()

    def _connection(self) -> Http1Connection:
        return Http1Connection(self._app, self._table, self._budget)

    def _accepted(self) -> int:
        return self._app.accepted + (self._grpc.accepted if self._grpc is not None else 0)

    def _answered(self) -> int:
        return self._app.answered + (self._grpc.answered if self._grpc is not None else 0)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _describe(model: ServedModel) -> str:
    notes = "".join(f"; {note}" for note in model.notes)
    return f"loaded {model.name}/{model.version} from {model.path}{notes}"


def _ready_line(address: Address, http_port: int, grpc_port: int | None) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    scheme, secure = ("https", "s") if address.tls_cert is not None else ("http", "")
    line = f"ready: {scheme}://{host}:{http_port}"
    return line if grpc_port is None else f"{line} and grpc{secure}://{host}:{grpc_port}"

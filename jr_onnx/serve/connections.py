"""The connections of both transports: how many there may be, which one is evicted, and their timeouts.

At the limit, a new connection evicts one that no accepted request depends on: first those that never had an accepted
request, then those that have been quiet for longest. So health checks get in whatever others hold open.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Final, Protocol

from jr_onnx.errors import InputError, ModelError
from jr_onnx.opened import OpenedFile
from jr_onnx.serve.options import Address

CONNECTIONS: Final = 1024
"""How many connections may be open at a time over both transports; fewer where the system allows fewer files."""

SWEEP_S: Final = 0.25
"""How often the timeouts of all connections are checked."""

HEAD_SECONDS: Final = 20.0
"""How long the head of a request, or a TLS or HTTP/2 handshake, may take."""

IDLE_SECONDS: Final = 300.0
"""How long a connection may stay open without a request."""

AGE_SECONDS: Final = 3600.0
"""How old a connection may become; then it ends after the answers to its requests."""

TURN_S: Final = 0.004
"""How long received data is processed before the event loop looks for new events."""

_SPARE_FILES: Final = 128
_BACKLOG: Final = 1024
_HANDSHAKE_S: Final = 10.0
_SLOW_HANDSHAKE_S: Final = 1.0  # then it is evicted before connections that have had a request
_BACK: Final = 2.0  # seconds further back in the queue for every second used of the event loop
_LAST_S: Final = 0.2  # within which a client that has just connected or had an answer sends its request
_POLL_S: Final = 0.01
_ACCEPTED: Final = 16  # connections at a time
_CANDIDATES: Final = 32  # of the oldest connections, of which the quietest is evicted


class Connection(Protocol):
    """What the table needs of a connection."""

    quiet_since: float

    def is_expendable(self) -> bool:
        """Whether no accepted request depends on it."""

    def sweep(self, now: float) -> None:
        """Check the timeouts."""

    def drain(self) -> None:
        """Accept nothing more, and close after the last answer."""

    def abort(self) -> None:
        """Close at once."""


class LoopTime:
    """What a connection has used of the event loop's time recently."""

    __slots__ = ("_at", "_spent_s")

    def __init__(self) -> None:
        self._spent_s = 0.0
        self._at = 0.0

    def recent(self, now: float) -> float:
        """Return the seconds used, halved for every second that has passed since."""
        return float(self._spent_s * 0.5 ** (now - self._at))

    def charge(self, now: float, seconds: float) -> None:
        """Add the duration of a turn."""
        self._spent_s = self.recent(now) + seconds
        self._at = now


class Turns:
    """Processes what connections have received, a little at a time, so that none keeps others waiting.

    The next turn goes to the connection that has used the least recently: one that was just opened, for instance.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, LoopTime, Callable[[], None]]] = []
        self._count = 0
        self._is_running = False

    @property
    def are_waiting(self) -> bool:
        """Whether connections wait for their turns."""
        return self._is_running

    def add(self, loop_time: LoopTime, turn: Callable[[], None]) -> None:
        """Queue a turn."""
        self._count += 1
        now = time.monotonic()
        # A place in the queue, further back for time used: later ones cannot overtake for ever.
        heapq.heappush(self._waiting, (now + _BACK * loop_time.recent(now), self._count, loop_time, turn))
        if not self._is_running:
            self._is_running = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        now = time.monotonic()
        end = now + TURN_S
        while self._waiting and now < end:
            _, _, loop_time, turn = heapq.heappop(self._waiting)
            turn()
            then, now = now, time.monotonic()
            loop_time.charge(now, now - then)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        else:
            self._is_running = False


class ConnectionTable:
    """All open connections.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most or _most_connections()
        self._open: dict[Connection, None] = {}  # the oldest first
        self._used: dict[Connection, None] = {}  # those that had an accepted request
        self.turns = Turns()
        self._in_handshake: dict[asyncio.Task[None], float] = {}  # still in the TLS handshake, and since when
        self._is_draining = False

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open) + len(self._used)

    def make_room(self) -> bool:
        """Close a connection if there are too many, and return whether there is room for one."""
        if len(self) + len(self._in_handshake) < self._most:
            return True
        unused = _quietest(self._open)
        handshake, since = next(iter(self._in_handshake.items()), (None, 0.0))
        is_slow = handshake is not None and handshake.get_loop().time() - since > _SLOW_HANDSHAKE_S
        quiet = unused or _quietest(self._used)
        # A connection that was just opened is not a stalled handshake: without TLS it has none at all.
        if handshake is not None and (quiet is None or (is_slow and (unused is None or since <= unused.quiet_since))):
            del self._in_handshake[handshake]
            handshake.cancel()
            return True
        if quiet is None:
            return False
        self.remove(quiet)
        quiet.abort()
        return True

    def mark_used(self, connection: Connection) -> None:
        """Note that a request of a connection was accepted: it is evicted after those that had none."""
        if self._open.pop(connection, connection) is None:
            self._used[connection] = None

    def add(self, connection: Connection) -> None:
        """Add an open connection."""
        self._open[connection] = None
        if self._is_draining:  # it was accepted just before the listener closed
            _drain(connection)

    def remove(self, connection: Connection) -> None:
        """Remove a connection that is closed."""
        self._open.pop(connection, None)
        self._used.pop(connection, None)

    def set_up(self, task: asyncio.Task[None]) -> None:
        """Count a connection that a task is setting up; the task is cancelled if the connection is evicted."""
        self._in_handshake[task] = task.get_loop().time()
        task.add_done_callback(lambda done: self._in_handshake.pop(done, None))

    async def sweep(self) -> None:
        """Check all timeouts periodically, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            now = loop.time()
            for connection in self._all():
                connection.sweep(now)

    async def drain(self, seconds: float) -> None:
        """Ask all to close after their answers; close the rest after so many seconds."""
        self._is_draining = True
        for connection in self._all():
            _drain(connection)
        end = time.monotonic() + seconds
        while (len(self) or self._in_handshake) and time.monotonic() < end:
            await asyncio.sleep(_POLL_S)
        for connection in self._all():
            connection.abort()

    def _all(self) -> list[Connection]:
        return [*self._open, *self._used]


class Listener:
    """A listening socket.

    Args:
        address: Host and TLS.
        port: Port; 0 takes a free one.
        what: Name of the transport, for errors.
        protocol: The application protocol that is agreed on in TLS.
        factory: Makes the protocol of a connection.
        table: Where connections are counted.

    Raises:
        InputError: The port cannot be bound, or certificate and key do not match.
    """

    def __init__(
        self,
        address: Address,
        port: int,
        what: str,
        protocol: str,
        factory: Callable[[], asyncio.Protocol],
        table: ConnectionTable,
    ) -> None:
        self._tls = _tls(address, protocol)
        self._address = address
        self._stamp = _stamp(address)
        self._socket = _bind(address.host, port, what)
        self._factory = factory
        self._table = table

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._socket.getsockname()[1])

    def open(self) -> None:
        """Start to accept connections."""
        self._socket.listen(_BACKLOG)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Accept what is waiting, which the system would reset with the requests already sent on it, then no more."""
        asyncio.get_running_loop().remove_reader(self._socket)
        for _ in range(_BACKLOG // _ACCEPTED):
            if not self._accept():
                break
        self._socket.close()

    def _accept(self) -> bool:
        """Accept what is waiting, at most `_ACCEPTED` connections, and return whether there may be more.

        A queue that is full makes clients wait for a second.
        """
        for _ in range(_ACCEPTED):
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return False
            except OSError:  # out of files, or the client has gone already
                self._table.make_room()
                return False
            connection.setblocking(False)
            if not self._table.make_room():
                connection.close()
                continue
            task = asyncio.get_running_loop().create_task(self._set_up(connection))
            task.add_done_callback(partial(_close_if_cancelled, connection))
            self._table.set_up(task)
        return True

    async def _set_up(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            if self._tls is None:
                await loop.connect_accepted_socket(self._factory, connection)
            else:
                self._renew()
                await loop.connect_accepted_socket(
                    self._factory, connection, ssl=self._tls, ssl_handshake_timeout=_HANDSHAKE_S
                )
        except (OSError, ssl.SSLError):
            connection.close()

    def _renew(self) -> None:
        """Reload a renewed certificate; one that does not match its key is tried again later."""
        stamp = _stamp(self._address)
        if stamp == self._stamp or self._tls is None:
            return
        with contextlib.suppress(OSError, ssl.SSLError, ModelError):
            expect_regular(self._address)
            _load(self._tls, self._address)
            self._stamp = stamp


def _close_if_cancelled(connection: socket.socket, done: asyncio.Task[None]) -> None:
    """Close the socket of a connection that was evicted while it was set up."""
    if done.cancelled():
        connection.close()


def _drain(connection: Connection) -> None:
    """Drain a connection, after a moment where a request may be under way: it is new or was used just now."""
    loop = asyncio.get_running_loop()
    if loop.time() - connection.quiet_since > _LAST_S:
        connection.drain()
    else:
        loop.call_later(_LAST_S, connection.drain)


def _quietest(connections: Iterable[Connection]) -> Connection | None:
    """Return the connection to evict, None if an accepted request depends on each."""
    candidates = islice((one for one in connections if one.is_expendable()), _CANDIDATES)
    return min(candidates, key=lambda one: one.quiet_since, default=None)


def _most_connections() -> int:
    """Return how many connections there may be, having raised the limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return max(1, min(CONNECTIONS, soft - _SPARE_FILES))
    return CONNECTIONS


def _tls(address: Address, protocol: str) -> ssl.SSLContext | None:
    if address.tls_cert is None or address.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([protocol])
    _load(context, address)
    return context


def expect_regular(address: Address) -> None:
    """Refuse a certificate or key that is not a regular file: OpenSSL would block on a pipe for ever.

    Raises:
        ModelError: One of them is not.
    """
    for path in (address.tls_cert, address.tls_key):
        if path is not None:
            OpenedFile(path, "a PEM")


def _load(context: ssl.SSLContext, address: Address) -> None:
    if address.tls_cert is not None:
        context.load_cert_chain(address.tls_cert, address.tls_key)


def _stamp(address: Address) -> tuple[float, ...]:
    try:
        return tuple(path.stat().st_mtime for path in (address.tls_cert, address.tls_key) if path is not None)
    except OSError:
        return ()


def _bind(host: str, port: int, what: str) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
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
        raise InputError(f"cannot listen on {host}:{port} for {what}: {reason}") from None
    return listener

"""Which requests are accepted, and how many bytes of requests may be in flight."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from jr_onnx.errors import InputError
from jr_onnx.opened import OpenedFile
from jr_onnx.serve.faults import EncodingError, ForbiddenError, OverloadedError, UnauthorizedError, quoted

_SCHEME = b"bearer "
_HOST = re.compile(r"(?:\[([^\[\]]*)\]|([^:@\[\]]*))(?::[0-9]*)?")  # an address in brackets or a name, and a port
_UNCOMMON = (b"application/json", b"application/octet-stream")  # what browsers let no page post to another site
_SHORTEST_TOKEN = 8
_LONGEST_FILE_BYTES = 64 << 10
_STALLED_S = 2.0  # without a byte; a connection that is merely slow has one more often
_LARGE_BYTES = 64 * 1024  # a request of which less has come is no stalled one, and never makes room for a large one
_SPARED_BYTES = 4096  # of a request that arrives or an answer: so much, a health check for instance, needs no room


class Gate:
    """Checks the bearer token of requests; without a token every client may send them.

    Args:
        token: The token, None for none.
    """

    def __init__(self, token: str | None) -> None:
        self._digest = None if token is None else _digest(token.encode())

    @classmethod
    def from_file(cls, path: Path | None) -> Gate:
        """Read the token from a file; it must not stand on a command line, where every user can read it.

        Raises:
            InputError: The file cannot be read or holds no usable token.
        """
        if path is None:
            return cls(None)
        try:
            file = OpenedFile(path, "a token")
            token = file.read(0, min(file.size, _LONGEST_FILE_BYTES)).decode("ascii").strip()
        except UnicodeDecodeError as error:
            raise InputError(f"cannot read the token file {path}: {error}") from None
        if len(token) < _SHORTEST_TOKEN or len(token.split()) != 1:
            raise InputError(f"{path} holds no token, expected one word of at least {_SHORTEST_TOKEN} characters")
        return cls(token)

    @property
    def is_open(self) -> bool:
        """Whether requests need no token."""
        return self._digest is None

    def check(self, authorization: bytes | None) -> None:
        """Check the value of an `Authorization` header.

        Raises:
            UnauthorizedError: It does not carry the token.
        """
        if self._digest is None:
            return
        if authorization is None or not authorization.lower().startswith(_SCHEME):
            raise UnauthorizedError("this server wants a token", hint="Send the header Authorization: Bearer TOKEN")
        # Digests have one length, so the comparison's time tells nothing, not even how long the token is.
        if not hmac.compare_digest(_digest(authorization[len(_SCHEME) :].strip()), self._digest):
            raise UnauthorizedError("the token is not the one of this server")


def expect_same_origin(headers: Mapping[bytes, bytes], *, is_loopback: bool) -> None:
    """Refuse a request that changes something if a page of another site may have sent it.

    A browser lets any page post text and forms anywhere, but it says where they come from, and lets none post JSON or
    plain bytes (what tritonclient calls its JSON with asyncio) without asking the server first.
    A name that points to this machine for a moment does not make a page one of this machine's.

    Args:
        headers: The request's headers by name in lower case.
        is_loopback: Only this machine can reach the server, under its own names.

    Raises:
        EncodingError: The content is something else than JSON.
        ForbiddenError: The request comes from another site, or was sent to another name.
    """
    kind = headers.get(b"content-type", b"application/json").split(b";")[0].strip().lower()
    if kind not in _UNCOMMON:
        raise EncodingError(f"the content-type is {quoted(kind.decode('latin-1'))}, expected application/json")
    host = headers.get(b"host", b"").strip().lower()
    if is_loopback and not _is_own_name(host):
        raise ForbiddenError(f"the request was sent to {quoted(host.decode('latin-1'))}, expected a name of loopback")
    origin = headers.get(b"origin")
    site = headers.get(b"sec-fetch-site", b"none").strip().lower()
    if site not in (b"none", b"same-origin") or (origin is not None and origin.lower().partition(b"://")[2] != host):
        raise ForbiddenError("the request comes from a page of another site")


def _is_own_name(host: bytes) -> bool:
    match = _HOST.fullmatch(host.decode("latin-1"))
    if match is None:
        return False
    name = match[1] or match[2]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


class ByteBudget:
    """Bytes of requests and answers that may be in memory at a time, over both transports.

    What holds bytes has a `Holding`, which grows as they arrive. When the budget is full, the request that still
    arrives and has the largest eviction key is refused: first one that has stalled, then the largest; the one that
    is to grow is refused itself where it would become the largest, or where the others do not hold enough. So
    announcements cost others nothing, and a small request is neither kept out by large ones that never end nor
    refused for the sake of a large one that is complete. The first 4 KiB of a request, and an answer of that length,
    are always admitted, though counted: health checks are answered whatever others hold.

    Args:
        total: How many bytes.
        clock: Seconds.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._used = 0
        self._clock = clock
        self._arriving: set[Holding] = set()

    @property
    def used(self) -> int:
        """How many bytes are held now."""
        return self._used

    def arriving(self, give_up: Callable[[], None]) -> Holding:
        """Return an empty holding for a request that arrives.

        Args:
            give_up: Refuses the request; it must release the holding before it returns.
        """
        holding = Holding(self, give_up, _SPARED_BYTES)
        self._arriving.add(holding)
        return holding

    def settled(self) -> Holding:
        """Return an empty holding that is never evicted."""
        return Holding(self, None)

    def leaving(self) -> Holding:
        """Return an empty holding for an answer: never evicted, and admitted beyond the budget if short."""
        return Holding(self, None, _SPARED_BYTES)

    def _take(self, holding: Holding, size: int) -> None:
        now = self._clock()
        if self._used + size > self._total and holding.size + size > holding.spared:
            self._make_room(holding, size, now)
        self._used += size
        holding.size += size
        holding.since = now

    def _make_room(self, holding: Holding, size: int, now: float) -> None:
        """Refuse requests that still arrive, but none unless those that may be refused hold enough together.

        Raises:
            OverloadedError: They do not.
        """
        grown = holding.size + size
        is_arriving = holding in self._arriving
        least = max(holding.eviction_key(now), (False, grown)) if is_arriving else (False, min(grown, _LARGE_BYTES) - 1)
        victims = [
            one
            for one in self._arriving
            if one.size > one.spared and one is not holding and one.eviction_key(now) > least
        ]
        if self._used + size - sum(one.size for one in victims) <= self._total:
            for victim in sorted(victims, key=lambda one: one.eviction_key(now), reverse=True):
                victim.give_up()
                if is_arriving and holding not in self._arriving:
                    break  # of the same connection, which is now closed
                if self._used + size <= self._total:
                    return
        raise OverloadedError("too many bytes are being received or answered already", hint="Ask again later")

    def _settle(self, holding: Holding) -> None:
        self._arriving.discard(holding)

    def _give_back(self, holding: Holding, size: int) -> None:
        size = min(size, holding.size)
        self._used -= size
        holding.size -= size

    def _release(self, holding: Holding) -> None:
        self._arriving.discard(holding)
        self._give_back(holding, holding.size)


class Holding:
    """Bytes of one request or answer; see `ByteBudget`."""

    __slots__ = ("_budget", "_give_up", "since", "size", "spared")

    def __init__(self, budget: ByteBudget, give_up: Callable[[], None] | None, spared: int = 0) -> None:
        self._budget = budget
        self._give_up = give_up
        self.spared = spared
        self.size = 0
        self.since = 0.0

    def grow(self, size: int) -> None:
        """Hold more bytes, before or when they arrive.

        Raises:
            OverloadedError: The budget is exhausted.
        """
        self._budget._take(self, size)

    def shrink(self, size: int) -> None:
        """Give some bytes back."""
        self._budget._give_back(self, size)

    def settle(self) -> None:
        """Note that the request is complete: it is no longer evicted."""
        self._give_up = None
        self._budget._settle(self)

    def release(self) -> None:
        """Give all bytes back; more than once does nothing."""
        self._give_up = None
        self._budget._release(self)

    def give_up(self) -> None:
        """End the request, because another needs its bytes."""
        give_up, self._give_up = self._give_up, None
        if give_up is not None:
            give_up()
        self.release()

    def eviction_key(self, now: float) -> tuple[bool, int]:
        """Return the key by which requests are evicted, the largest first: stalled ones, then by size."""
        return self.size >= _LARGE_BYTES and now - self.since > _STALLED_S, self.size


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()

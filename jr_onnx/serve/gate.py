"""Who may ask, and how much may be in the house at a time."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from jr_onnx.errors import InputError
from jr_onnx.serve.faults import OverloadedError, UnauthorizedError

_SCHEME = b"bearer "
_SHORTEST_TOKEN = 8


class Gate:
    """Checks the bearer token of requests; without a token everybody may ask.

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
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the token file {path}: {error}") from None
        if len(token) < _SHORTEST_TOKEN or len(token.split()) != 1:
            raise InputError(f"{path} holds no token, expected one word of at least {_SHORTEST_TOKEN} characters")
        return cls(token)

    @property
    def is_open(self) -> bool:
        """Whether everybody may ask."""
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


class Budget:
    """Bytes of request bodies that may be in memory at a time.

    Args:
        total: How many.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0

    def take(self, size: int) -> None:
        """Reserve bytes.

        Raises:
            OverloadedError: There are not so many left.
        """
        if self._used + size > self._total:
            raise OverloadedError("too many bytes are being received already", hint="Ask again later")
        self._used += size

    def give_back(self, size: int) -> None:
        """Give reserved bytes back."""
        self._used -= size


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()

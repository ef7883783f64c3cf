"""What a client can make an HTTP/2 connection remember or do: settings, header blocks, frames without progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from jr_onnx.errors import require

if TYPE_CHECKING:
    from h2.connection import H2Connection

_connection: Any = require("h2.connection", "serve")
_config: Any = require("h2.config", "serve")
_settings: Any = require("h2.settings", "serve")

STREAMS: Final = 128
"""How many requests one connection may have open at a time."""

HEADER_BYTES: Final = 16 * 1024
"""How long the headers of a request may be, compressed and decompressed."""

_WINDOW: Final = 1 << 20  # of a stream; what arrives is counted when it arrives, so this only sets the pace
_CONNECTION_WINDOW: Final = 8 << 20
_INITIAL_WINDOW: Final = 65535  # of a connection, fixed by RFC 9113, section 6.9.2
_FRAME_BYTES: Final = 64 * 1024
_TURN_FRAMES: Final = 8
_TURN_BYTES: Final = 256 * 1024
_IDLE_FRAMES: Final = 2000  # frames without progress: so many in a burst,
_IDLE_FRAMES_PER_SECOND: Final = 1000.0  # and so many a second in the long run
_DATA, _HEADERS, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 8, 9
_END_STREAM = 0x1
_PREFACE_BYTES: Final = 24
_FRAME_HEAD_BYTES: Final = 9


class FloodError(Exception):
    """The client sends more of something than any client needs to."""


class _Bounded(_connection.H2Connection):  # type: ignore[misc] # what `require` imports has no types
    MAX_CLOSED_STREAMS = 512


_CONFIG: Final = _config.H2Configuration(
    client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
)
_LOCAL_SETTINGS: Final = {
    _settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
    _settings.SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
    _settings.SettingCodes.MAX_FRAME_SIZE: _FRAME_BYTES,
    _settings.SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_BYTES,
}


def bounded_connection() -> H2Connection:
    """Return the server's side of a connection in `h2`, with this server's settings ready to be sent."""
    result = _Bounded(_CONFIG)
    result.local_settings = _settings.Settings(client=False, initial_values=_LOCAL_SETTINGS)
    result.max_inbound_frame_size = _FRAME_BYTES
    result.decoder.max_header_list_size = HEADER_BYTES
    result.initiate_connection()
    result.increment_flow_control_window(_CONNECTION_WINDOW - _INITIAL_WINDOW)
    return result


class FrameLimits:
    """Cuts what arrives on a connection into turns, and looks at the head of every frame before it is parsed.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._skip = _PREFACE_BYTES  # bytes up to the head of the next frame
        self._head = b""  # of a frame, as far as it has come
        self._block_bytes = 0
        self._credit = float(_IDLE_FRAMES)
        self._credit_at = clock()

    def turn(self, data: memoryview) -> int:
        """Return how many bytes of the data make a turn.

        Raises:
            FloodError: A header block does not end, or too many frames make no progress.
        """
        position = min(self._skip, len(data))
        self._skip -= position
        frames = 0
        while position < len(data) and frames < _TURN_FRAMES and position < _TURN_BYTES:
            piece = data[position : position + _FRAME_HEAD_BYTES - len(self._head)]
            self._head += piece
            position += len(piece)
            if len(self._head) < _FRAME_HEAD_BYTES:
                break
            length = int.from_bytes(self._head[:3], "big")
            self._inspect(self._head[3], self._head[4], length)
            self._head = b""
            size = min(length, len(data) - position)
            self._skip = length - size
            position += size
            frames += 1
        return position

    def _inspect(self, kind: int, flags: int, length: int) -> None:
        if kind in (_HEADERS, _CONTINUATION):
            self._block_bytes = length if kind == _HEADERS else self._block_bytes + length
            if self._block_bytes > HEADER_BYTES:
                raise FloodError("the headers are too long")
        if kind in (_HEADERS, _WINDOW_UPDATE) or (kind == _DATA and (length or flags & _END_STREAM)):
            return
        now = self._clock()
        self._credit = min(_IDLE_FRAMES, self._credit + (now - self._credit_at) * _IDLE_FRAMES_PER_SECOND) - 1
        self._credit_at = now
        if self._credit < 0:
            raise FloodError("too many frames make no progress")

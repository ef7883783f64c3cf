"""Compressed bodies: what they were, and never more than they may become."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from jr_onnx.serve.extensions.compression import compressed, expanded, known_encoding, wanted_encoding
from jr_onnx.serve.faults import BadRequestError, EncodingError, OverloadedError, TimedOutError, TooLargeError
from tests.serve.support import GOOD, ROWS, Rest, request
from tools.checks.serving.processes import ServerProcess

ENCODERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
MIB = 1 << 20
NOISE = np.random.default_rng(0).bytes(3 * MIB)


def expand(data: bytes, largest: int = 8 * MIB, grow: Callable[[int], None] = lambda _: None) -> bytes:
    return bytes(asyncio.run(expanded(data, largest, grow, 60.0)))


def bomb(size: int) -> bytes:
    """Zeros, compressed, without ever holding them."""
    stream, block = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16), bytes(16 * MIB)
    return b"".join(stream.compress(block) for _ in range(size // len(block))) + stream.flush()


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("data", [b"", b"x", bytes(40_000), bytes(3 * MIB), NOISE], ids=len)
def test_what_was_compressed_comes_back(encoding: str, data: bytes) -> None:
    counted: list[int] = []
    assert expand(ENCODERS[encoding](data), grow=counted.append) == data
    assert sum(counted) == len(data)
    assert expand(compressed(data, encoding)) == data


@pytest.mark.parametrize("encoding", ENCODERS)
def test_what_is_damaged_cut_off_or_followed_by_more_is_refused(encoding: str) -> None:
    for content in (b"some text" * 9, NOISE[:100_000]):
        whole = ENCODERS[encoding](content)
        for size in (0, 1, 5, len(whole) // 2, len(whole) - 1):
            with pytest.raises(BadRequestError, match="cut off"):
                expand(whole[:size])
        for tail in (b"x", bytes(40_000), whole):
            with pytest.raises(BadRequestError, match="follow the compressed content"):
                expand(whole + tail)
        broken = bytearray(whole)
        broken[-1] ^= 1  # of the check sum, or of the length
        for data in (broken, b"{" + whole, b"plain text" * 9):
            with pytest.raises(BadRequestError, match="damaged"):
                expand(bytes(data))


def test_the_largest_size_is_allowed_and_one_more_is_not() -> None:
    for size in (100, 40_000, 2 * MIB):
        data = gzip.compress(bytes(size))
        assert len(expand(data, size)) == size
        with pytest.raises(TooLargeError, match=f"more than {size - 1} bytes"):
            expand(data, size - 1)


def test_a_bomb_costs_no_more_than_the_largest_body() -> None:
    data = bomb(1 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            expand(data, 4 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


def test_what_the_budget_does_not_have_is_not_expanded() -> None:
    held = 0

    def grow(size: int) -> None:
        nonlocal held
        held += size
        if held > MIB:
            raise OverloadedError("full")

    with pytest.raises(OverloadedError):
        expand(gzip.compress(bytes(8 * MIB)), grow=grow)
    assert held <= 3 * MIB


def test_an_expansion_ends_with_the_time_of_its_request() -> None:
    body = gzip.compress(bytes(1 << 20))
    with pytest.raises(TimedOutError):
        asyncio.run(expanded(body + bytes(64 << 10), 1 << 21, lambda _: None, 0.0))


def test_encodings_are_named_or_refused() -> None:
    assert [known_encoding(name) for name in ("", "identity", " GZIP", "deflate")] == ["", "", "gzip", "deflate"]
    for name in ("br", "gzip, gzip", "x"):
        with pytest.raises(EncodingError, match="expected gzip, deflate or plain"):
            known_encoding(name)
    accepted = {
        "": "",
        "*": "",
        "br": "",
        "gzip": "gzip",
        "br, deflate;q=0.5": "deflate",
        "gzip;q=0, deflate": "deflate",
    }
    assert {header: wanted_encoding(header) for header in accepted} == accepted


@pytest.mark.parametrize("encoding", ENCODERS)
def test_a_server_takes_compressed_bodies_and_gives_compressed_answers(rest: Rest, encoding: str) -> None:
    expected = rest.infer("fixed", GOOD).output()
    body = ENCODERS[encoding](json.dumps(GOOD).encode())
    np.testing.assert_array_equal(rest.infer("fixed", body, {"Content-Encoding": encoding}).output(), expected)
    many = request(np.tile(ROWS, (30, 1)))
    answer = rest.infer("fixed", many, {"Accept-Encoding": encoding})
    assert answer.headers["content-encoding"] == encoding
    assert json.loads(expand(answer.body)) == rest.infer("fixed", many).json
    assert "content-encoding" not in rest.infer("fixed", GOOD, {"Accept-Encoding": encoding}).headers  # too short


def test_a_server_refuses_bombs_and_damage(server: ServerProcess) -> None:
    rest = Rest(server.http_port)
    before = server.peak_bytes()
    data = bomb(3 << 30)  # 3 MiB of gzip, less than --max-body-mib
    assert 2 * MIB < len(data) < 4 * MIB
    for path in ("/v2/models/fixed/infer", "/v2/repository/index"):
        answer = rest.ask("POST", path, data, {"Content-Encoding": "gzip"})
        assert answer.status == 413
    assert server.peak_bytes() - before < 40 * MIB
    body = gzip.compress(json.dumps(GOOD).encode())
    for wrong in (body[:-3], body + b"x", b"\0" + body):
        answer = rest.infer("fixed", wrong, {"Content-Encoding": "gzip"})
        assert (answer.status, "compressed content" in answer.error) == (400, True)
    assert rest.infer("fixed", GOOD).status == 200
    rest.close()

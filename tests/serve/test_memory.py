"""The budget counts the memory that is really used, and closed connections release theirs at once."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

pytest.importorskip("httptools", reason="the server's packages are not installed")
from jr_onnx.serve.codec_rest import parsing_bytes
from jr_onnx.serve.connections import ConnectionTable
from jr_onnx.serve.gate import ByteBudget
from jr_onnx.serve.http1 import Http1Connection
from jr_onnx.serve.http2 import Http2Connection
from jr_onnx.serve.inference import _LONG_NUMBER, _SHORT_NUMBER
from tests.serve.support import Rest
from tools.checks.serving.processes import jr_onnx, running

# A value of JSON, and how often it comes. The text of `names` is an object whose members have distinct names.
VALUES = {
    "short numbers": (b"0.5", 400_000), "long numbers": (b"0.1234567891", 200_000), "small integers": (b"7", 400_000),
    "integers beyond 63 bits": (b"18446744073709551615", 200_000), "null": (b"null", 400_000),
    "empty": (b'""', 400_000),
    "characters": (b'"ab"', 300_000), "Latin characters": ('"éé"'.encode(), 300_000),
    "wide characters": ('"\U0001f600aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"'.encode(), 60_000),
    "lists of nothing": (b"[]", 120_000), "lists of one": (b"[7]", 120_000), "lists of lists": (b"[[7]]", 60_000),
    "objects of nothing": (b"{}", 120_000), "objects of one": (b'{"a":1}', 120_000),
    "objects of six": (b'{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}', 120_000), "names": (b"", 200_000),
}  # fmt: skip

# Parses the text on stdin, and prints how much the peak of resident memory grows. `clear_refs` resets the peak.
PEAK = """
import sys, orjson
def kib(name): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
text = bytearray(sys.stdin.buffer.read())
orjson.loads(b"[1]")
open("/proc/self/clear_refs", "w").write("5")
before = kib("VmRSS")
orjson.loads(memoryview(text))
print((kib("VmHWM") - before) << 10)
"""
SLACK_BYTES = 1 << 20  # pages of the allocators that are begun


def text_of(name: str) -> bytearray:
    value, count = VALUES[name]
    if name == "names":
        return bytearray(orjson.dumps({f"k{number}": 1 for number in range(count)}))
    return bytearray(b"[" + b",".join([value] * count) + b"]")


@pytest.mark.parametrize("name", VALUES)
def test_parsing_takes_no_more_than_is_counted(name: str) -> None:
    text = text_of(name)
    done = subprocess.run([sys.executable, "-c", PEAK], input=text, capture_output=True, check=True)
    peak, counted = int(done.stdout), parsing_bytes(text, len(text))
    assert peak <= counted + SLACK_BYTES
    assert counted < 8 * peak, "far more than is taken would turn requests away"


def test_binary_tensors_behind_the_text_do_not_count() -> None:
    text = b'{"inputs":[]}'
    assert parsing_bytes(bytearray(text + b"\xff,,,[[[" * 100), len(text)) == parsing_bytes(bytearray(text), len(text))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "u1", "i2", "i4", "i8", "u8", "?"])
def test_no_number_is_longer_in_an_answer_than_is_counted(kind: str) -> None:
    numbers = np.random.default_rng(2).integers(0, 256, 80_000, dtype=np.uint8)
    values = (numbers % 2).astype(bool) if kind == "?" else numbers.view(kind)
    if values.dtype.kind == "f":
        edges = [np.finfo(kind).max, -np.finfo(kind).tiny, -np.finfo(kind).smallest_subnormal, -1 / 3]
        values = np.concatenate([values, np.array(edges, dtype=kind)])
    longest = max(
        len(item) for item in orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY).strip(b"[]").split(b",")
    )
    assert longest + 1 <= (_LONG_NUMBER if values.itemsize > 4 else _SHORT_NUMBER)


class Answering:
    """An application that answers nothing: the connections are closed before."""

    timeout_s = 5.0
    is_draining = False

    def admit(self, request: Any) -> int:
        del request
        return 1 << 20


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_connection_that_is_closed_needs_no_garbage_collector(sent: bytes, version: int) -> None:
    """Thousands are closed in a second when connections are refused, and their memory is not in the budget."""
    if version == 2:
        sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5) if sent else b""

    async def scenario() -> bool:
        budget, table = ByteBudget(1 << 20), ConnectionTable(most=8)
        made: list[weakref.ref[Any]] = []

        def protocol() -> asyncio.Protocol:
            app: Any = Answering()
            one = (
                Http1Connection(app, table, budget)
                if version == 1
                else Http2Connection(lambda *_: None, table, budget, 5.0)
            )
            made.append(weakref.ref(one))
            return one

        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(sent)
        await writer.drain()
        while not made:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        one = made[0]()
        if isinstance(one, Http2Connection) and sent:
            made.append(weakref.ref(one._h2))
        del one
        writer.close()
        await writer.wait_closed()
        for _ in range(100):
            if all(part() is None for part in made):
                break
            await asyncio.sleep(0.01)
        server.close()
        assert budget.used == 0
        return all(part() is None for part in made)

    gc.disable()
    try:
        assert asyncio.run(scenario())
    finally:
        gc.enable()


def test_requests_that_wait_to_be_parsed_do_not_take_what_parsing_takes(models: dict[str, Path]) -> None:
    """Parsing one of them takes half of the budget, and they are parsed one after the other."""
    rows = 8192
    tensor = {"name": "x", "shape": [rows, 16], "datatype": "FP32", "data": [0.5] * (16 * rows)}
    body = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    total = 20 << 20
    assert total / 3 < parsing_bytes(bytearray(body), len(body)) < total / 2

    def ask(port: int) -> int:
        rest = Rest(port)
        status = rest.infer("fixed", body).status
        rest.close()
        return status

    options = ("--max-total-mib", str(total >> 20), "--max-body-mib", "2", "--max-rows", str(rows))
    with running(jr_onnx(models["fixed"], *options)) as process, ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, [process.http_port] * 8)) == {200}

"""Which connection gives way in a full house."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("httptools", reason="the server's packages are not installed")
from jr_onnx.serve.connections import ConnectionTable


class _Open:
    def __init__(self, quiet_since: float, *, expendable: bool = True) -> None:
        self.quiet_since = quiet_since
        self.expendable = expendable
        self.aborted = False

    def is_expendable(self) -> bool:
        return self.expendable

    def sweep(self, now: float) -> None:
        raise NotImplementedError

    def drain(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        self.aborted = True


async def _shake_hands(table: ConnectionTable) -> asyncio.Task[None]:
    async def wait() -> None:
        task = asyncio.current_task()
        assert task is not None
        with table.greeting(task):
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


def test_a_tls_handshake_that_does_not_go_on_gives_way() -> None:
    async def scenario() -> None:
        table = ConnectionTable(most=2)
        first, second = await _shake_hands(table), await _shake_hands(table)
        assert table.make_room()
        await asyncio.wait([first, second], timeout=0.2)
        assert first.cancelled(), "the oldest one"
        assert not second.done()
        third = await _shake_hands(table)
        assert table.make_room()
        await asyncio.wait([second], timeout=0.2)
        assert second.cancelled()
        third.cancel()

    asyncio.run(scenario())


def test_the_quietest_visitor_goes_before_those_that_had_a_request() -> None:
    async def scenario() -> None:
        table = ConnectionTable(most=3)
        proved, quiet, busy = _Open(0.0), _Open(1.0), _Open(0.5, expendable=False)
        for connection in (proved, quiet, busy):
            table.add(connection)
        table.prove(proved)
        assert table.make_room()
        assert (quiet.aborted, proved.aborted, busy.aborted) == (True, False, False)
        table.add(_Open(0.1, expendable=False))
        assert table.make_room()
        assert proved.aborted
        table.add(_Open(0.2, expendable=False))
        assert not table.make_room(), "on each of them an accepted request depends"

    asyncio.run(scenario())

"""Which connection gives way while others are being set up; `test_gate` has those that are."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("httptools", reason="the server's packages are not installed")
from jr_onnx.serve.connections import ConnectionTable
from tests.serve.test_gate import Held


async def _shake_hands(table: ConnectionTable) -> asyncio.Task[None]:
    async def wait() -> None:
        task = asyncio.current_task()
        assert task is not None
        with table.handshake(task):
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


def test_whoever_has_just_come_stays_where_a_quiet_connection_can_go() -> None:
    async def scenario() -> None:
        table = ConnectionTable(most=2)
        quiet = Held(0.0)
        table.add(quiet)
        table.mark_used(quiet)
        newcomer = await _shake_hands(table)
        assert table.make_room()
        await asyncio.sleep(0)
        assert (quiet.aborted, newcomer.cancelled()) == (True, False)
        newcomer.cancel()

    asyncio.run(scenario())

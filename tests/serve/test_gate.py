"""What the budget of bytes counts, which requests and connections are evicted, and which requests may change models."""

from __future__ import annotations

import asyncio
import time

import pytest

from jr_onnx.serve.connections import ConnectionTable, LoopTime, Turns
from jr_onnx.serve.faults import EncodingError, ForbiddenError, OverloadedError
from jr_onnx.serve.gate import ByteBudget, Holding, expect_same_origin

MEBIBYTE = 1 << 20
LOOPBACK = {b"host": b"127.0.0.1:8000"}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Arrival:
    def __init__(self, budget: ByteBudget) -> None:
        self.gave_way = False
        self.holding: Holding = budget.arriving(self.give_way)

    def give_way(self) -> None:
        self.gave_way = True


def test_the_largest_that_still_arrives_gives_way_to_a_smaller_one() -> None:
    budget = ByteBudget(10 * MEBIBYTE, Clock())
    large, small = Arrival(budget), Arrival(budget)
    large.holding.grow(9 * MEBIBYTE)
    small.holding.grow(2 * MEBIBYTE)
    assert (large.gave_way, small.gave_way, budget.used) == (True, False, 2 * MEBIBYTE)


def test_one_that_would_become_the_largest_gives_way_itself() -> None:
    budget = ByteBudget(10 * MEBIBYTE, Clock())
    first, second = Arrival(budget), Arrival(budget)
    first.holding.grow(4 * MEBIBYTE)
    second.holding.grow(5 * MEBIBYTE)
    with pytest.raises(OverloadedError):
        second.holding.grow(2 * MEBIBYTE)
    assert not first.gave_way


def test_one_that_has_stalled_gives_way_even_to_a_larger_one() -> None:
    clock = Clock()
    budget = ByteBudget(10 * MEBIBYTE, clock)
    stalled, going = Arrival(budget), Arrival(budget)
    stalled.holding.grow(4 * MEBIBYTE)
    clock.now += 5
    going.holding.grow(5 * MEBIBYTE)
    going.holding.grow(2 * MEBIBYTE)
    assert (stalled.gave_way, budget.used) == (True, 7 * MEBIBYTE)


def test_a_request_that_is_whole_never_gives_way() -> None:
    budget = ByteBudget(10 * MEBIBYTE, Clock())
    whole, late = Arrival(budget), Arrival(budget)
    whole.holding.grow(10 * MEBIBYTE)
    whole.holding.settle()
    with pytest.raises(OverloadedError):
        late.holding.grow(4097)
    assert not whole.gave_way
    whole.holding.release()
    whole.holding.release()
    late.holding.grow(10 * MEBIBYTE)
    assert budget.used == 10 * MEBIBYTE


def test_no_request_is_dropped_if_that_would_not_free_enough() -> None:
    budget = ByteBudget(10 * MEBIBYTE, Clock())
    whole, large, small = Arrival(budget), Arrival(budget), Arrival(budget)
    whole.holding.grow(4 * MEBIBYTE)
    whole.holding.settle()
    large.holding.grow(5 * MEBIBYTE)
    small.holding.grow(MEBIBYTE // 2)
    for one, size in ((budget.settled(), 7 * MEBIBYTE), (small.holding, 6 * MEBIBYTE)):
        with pytest.raises(OverloadedError):
            one.grow(size)
    assert (large.gave_way, small.gave_way) == (False, False)


def test_a_small_request_never_gives_way_to_a_large_one_that_is_whole() -> None:
    clock = Clock()
    budget = ByteBudget(10 * MEBIBYTE, clock)
    large, small, whole = Arrival(budget), Arrival(budget), budget.settled()
    whole.grow(MEBIBYTE)
    small.holding.grow(20_000)
    large.holding.grow(5 * MEBIBYTE)
    clock.now += 5
    with pytest.raises(OverloadedError):
        whole.grow(9 * MEBIBYTE)
    whole.grow(8 * MEBIBYTE)
    assert (large.gave_way, small.gave_way) == (True, False)
    whole.grow(MEBIBYTE - 20_000)
    budget.settled().grow(10_000)
    assert small.gave_way, "to one that is smaller still"


def test_a_request_whose_own_connection_is_evicted_for_it_takes_nothing() -> None:
    budget = ByteBudget(10 * MEBIBYTE, Clock())
    arriving = budget.arriving(lambda: None)
    behind = budget.arriving(arriving.release)
    behind.grow(9 * MEBIBYTE)
    with pytest.raises(OverloadedError):
        arriving.grow(2 * MEBIBYTE)
    assert budget.used == 0


def test_a_full_budget_still_admits_what_is_as_short_as_a_health_check() -> None:
    budget = ByteBudget(10 * MEBIBYTE, Clock())
    whole, check = Arrival(budget), Arrival(budget)
    whole.holding.grow(10 * MEBIBYTE)
    whole.holding.settle()
    check.holding.grow(100)
    budget.leaving().grow(100)
    for holding in (check.holding, budget.leaving()):
        with pytest.raises(OverloadedError):
            holding.grow(4097)
    with pytest.raises(OverloadedError):
        budget.settled().grow(1)
    assert not check.gave_way


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"content-type": b"application/json; charset=utf-8"},
        {b"origin": b"http://127.0.0.1:8000", b"sec-fetch-site": b"same-origin"},
        {b"host": b"[::1]:8000"},
        {b"host": b"localhost"},
    ],
)
def test_requests_of_this_machine_may_change_something(headers: dict[bytes, bytes]) -> None:
    expect_same_origin({**LOOPBACK, **headers}, is_loopback=True)


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({b"content-type": b"text/plain"}, EncodingError),
        ({b"content-type": b"application/x-www-form-urlencoded"}, EncodingError),
        ({b"origin": b"https://evil.example"}, ForbiddenError),
        ({b"origin": b"null"}, ForbiddenError),
        ({b"sec-fetch-site": b"cross-site"}, ForbiddenError),
        ({b"host": b"evil.example:8000", b"origin": b"http://evil.example:8000"}, ForbiddenError),
        ({b"host": b""}, ForbiddenError),
        ({b"host": b"127.0.0.1.evil.example"}, ForbiddenError),
        ({b"host": b"[::1].evil.example"}, ForbiddenError),
        ({b"host": b"localhost:80@evil.example"}, ForbiddenError),
        ({b"host": b"localhost."}, ForbiddenError),
    ],
)
def test_requests_of_other_sites_may_not(headers: dict[bytes, bytes], error: type[Exception]) -> None:
    with pytest.raises(error):
        expect_same_origin({**LOOPBACK, **headers}, is_loopback=True)


def test_a_server_for_others_knows_its_names_from_the_request_alone() -> None:
    expect_same_origin({b"host": b"models.internal"}, is_loopback=False)
    with pytest.raises(ForbiddenError):
        expect_same_origin({b"host": b"models.internal", b"origin": b"https://evil.example"}, is_loopback=False)


class Held:
    def __init__(self, quiet_since: float, expendable: bool = True) -> None:
        self.quiet_since = quiet_since
        self.expendable = expendable
        self.aborted = False

    def is_expendable(self) -> bool:
        return self.expendable

    def sweep(self, now: float) -> None:
        del now

    def drain(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


def test_a_full_table_evicts_unused_connections_first_then_the_quietest() -> None:
    table = ConnectionTable(3)
    good, busy, idle = Held(1.0), Held(0.0, expendable=False), Held(5.0)
    for one in (good, busy, idle):
        assert table.make_room()
        table.add(one)
    table.mark_used(good)
    assert table.make_room()
    assert (good.aborted, busy.aborted, idle.aborted) == (False, False, True)
    table.add(Held(6.0, expendable=False))
    assert table.make_room()
    assert good.aborted, "of those who have asked, an idle one"
    table.add(Held(7.0, expendable=False))
    assert not table.make_room(), "all of them wait for answers"


def test_the_time_that_a_connection_used_is_halved_every_second() -> None:
    loop_time = LoopTime()
    loop_time.charge(10.0, 1.0)
    loop_time.charge(11.0, 0.25)
    assert loop_time.recent(11.0) == 0.75
    assert loop_time.recent(13.0) == 0.1875


def test_a_busy_connection_gets_its_turn_however_many_new_ones_come() -> None:
    ran: list[str] = []

    async def work() -> None:
        turns = Turns()
        busy = LoopTime()
        busy.charge(time.monotonic(), 0.01)
        end = time.monotonic() + 5.0

        def newcomer() -> None:
            time.sleep(0.001)
            if "busy" not in ran and time.monotonic() < end:
                turns.add(LoopTime(), newcomer)

        turns.add(LoopTime(), newcomer)
        turns.add(busy, lambda: ran.append("busy"))
        while turns.are_waiting:
            await asyncio.sleep(0)

    asyncio.run(work())
    assert ran == ["busy"]

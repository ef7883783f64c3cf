"""The time left goes by what attacks cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from jr_onnx.attack.apgd import APGD, TargetedAPGD
from jr_onnx.attack.deepfool import DeepFool
from jr_onnx.attack.square import Square
from jr_onnx.attack.suite.pace import Cost, Pace, expected_passes
from jr_onnx.attack.suite.run import Progress, run
from jr_onnx.attack.suite.setup import prepare
from jr_onnx.evaluation.store import Store
from tests.attack.suite import small


def test_passes_are_counted_from_the_attacks_numbers() -> None:
    one = expected_passes(APGD(steps=100))
    assert one == 300
    assert expected_passes(APGD(steps=100, restarts=3)) == 3 * one
    assert expected_passes(APGD(steps=100, eot=20)) == 20 * one
    assert expected_passes(TargetedAPGD(steps=100, targets=9)) == 9 * one
    assert expected_passes(DeepFool(steps=10, classes=9)) == 10 * (1 + 2 * 9)
    assert expected_passes(Square(queries=1000)) == 1000


def test_an_attack_not_seen_yet_costs_its_passes_at_the_rate_of_those_seen() -> None:
    cheap, dear = Cost("a", 10, 3.0), Cost("b", 10, 300.0)
    pace = Pace([cheap, dear])
    assert pace.left_s is None
    pace.finished(cheap, 2.0)
    assert pace.left_s == pytest.approx(200.0)
    pace.finished(dear, 50.0)
    assert pace.left_s == pytest.approx(0.0)


def test_an_attack_that_was_seen_costs_its_own_time_for_each_sample() -> None:
    first, second, last = Cost("a", 100, 3.0), Cost("a", 100, 3.0), Cost("a", 20, 3.0)
    pace = Pace([first, second, last])
    pace.finished(first, 30.0)
    assert pace.left_s == pytest.approx(36.0)


def test_what_is_shared_costs_nothing() -> None:
    pace = Pace([Cost("a", 10, 3.0), Cost("twin of a", 10, 0.0)])
    pace.finished(Cost("a", 10, 3.0), 5.0)
    assert pace.left_s == pytest.approx(0.0)


def test_a_resumed_run_starts_from_what_is_left(tmp_path: Path) -> None:
    with small.patched(small.handful):
        wanted = small.request(tmp_path)
        prepared = prepare(wanted)
        store = Store(wanted.out)
        store.open(prepared.record)
        seen: list[Progress] = []

        def stop(state: Progress) -> None:
            seen.append(state)
            if state.done == 7:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(prepared.work, store, stop)
        again: list[Progress] = []
        run(prepared.work, store, again.append)
    total = seen[0].total
    assert seen[0] == Progress(0, total, 0, "")
    assert again[0] == Progress(7, total, 7, "")
    assert [state.done for state in again] == list(range(7, total + 1))
    assert again[0].left_s is None
    assert all(state.left_s is not None for state in again[1:])
    assert again[-1].left_s == pytest.approx(0.0, abs=1e-6)

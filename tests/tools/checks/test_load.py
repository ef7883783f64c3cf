"""The load test, shortly, and that it notices what it is there for; `python -m tools.checks.load` runs for minutes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tools.checks import load as load_test
from tools.checks.serving.clients import COMPARED, DRAWN, REFUSED
from tools.checks.serving.known import Known, Tally, fault_of_drawn, ramp
from tools.checks.serving.processes import ROOT

MIB = 1 << 20


@pytest.mark.slow
def test_load_with_every_answer_compared() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.checks.load", "--seconds", "15", "--clients", "6"],
        cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    # How soon a killed server is back is a bar for an idle machine; this one may have other tests to run.
    others = [line for line in done.stdout.splitlines() if "WRONG" in line and "a killed server answered" not in line]
    assert not others, done.stdout + done.stderr
    assert "answers again" in done.stdout, done.stderr


def test_a_wrong_answer_is_noticed() -> None:
    known = Known([np.zeros((1, 64), np.float32)], [np.ones((1, 64), np.float32)], bound=1e-6)
    assert known.fault(np.ones((1, 64), np.float32), 0) is None
    assert "off by" in str(known.fault(np.full((1, 64), 1.1, np.float32), 0))
    assert "off by" in str(known.fault(np.full((1, 64), np.nan, np.float32), 0))
    assert "has the shape (64, 1)" in str(known.fault(np.ones((64, 1), np.float32), 0))


def test_an_answer_of_two_kappas_is_noticed() -> None:
    values = ramp()
    for kappa in (0.0, 0.13, 1.0):
        assert fault_of_drawn(np.where(values > kappa, values, 0)) is None
    two = np.where(values > 0.13, values, 0)
    two[0, -1] = 0
    for answer in (two, values * 1.01, values[:, :5]):
        assert "no kappa explains" in str(fault_of_drawn(answer))


def tally(**changes: int) -> Tally:
    counts = {f"{transport}: {kind}": 50 for transport in ("REST", "gRPC") for kind in (COMPARED, DRAWN, REFUSED)}
    found = Tally()
    found.counts.update({**counts, "REST: status 200": 60, "gRPC: status OK": 40})
    found.counts.update(changes)
    return found


def wrong(found: Tally, *, log: str = "stopped: 100 requests accepted, 100 answered", last_mib: int = 100) -> list[str]:
    load_test.judge(log, [100 * MIB] * 9 + [last_mib * MIB], found)
    return found.wrong


def test_a_good_run_passes() -> None:
    assert wrong(tally(**{"gRPC: too large, refused by gRPC itself": 7})) == []


@pytest.mark.parametrize(
    ("changes", "log", "last_mib", "message"),
    [
        ({}, "stopped: 100 requests accepted, 99 answered", 100, "the clients have 100 answers"),
        ({}, "stopped: 101 requests accepted, 101 answered", 100, "the clients have 100 answers"),
        ({}, "", 100, "the clients have 100 answers"),
        ({}, "stopped: 100 requests accepted, 100 answered", 200, "memory grew from 100 to 200 MiB"),
        (
            {"REST: status 500": 0, "gRPC: status INTERNAL": 1},
            "101 of both",
            100,
            "1 requests got gRPC: status INTERNAL",
        ),
        ({"REST: status 503": 2}, "102 of both", 100, "2 requests got REST: status 5"),
        ({f"gRPC: {COMPARED}": -45}, "100 of both", 100, "only 5 times over gRPC: answers compared"),
    ],
)
def test_what_is_wrong_is_noticed(changes: dict[str, int], log: str, last_mib: int, message: str) -> None:
    if log.endswith("of both"):
        count = log.split(maxsplit=1)[0]
        log = f"stopped: {count} requests accepted, {count} answered"
    found = wrong(tally(**changes), log=log, last_mib=last_mib)
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize("words", [["--clients", "1"], ["--seconds", "0"]])
def test_a_test_of_too_little_is_refused(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["load_test", *words])
    with pytest.raises(SystemExit) as stopped:
        load_test.main()
    assert stopped.value.code == 2
    assert "expected two clients at least and some seconds" in capsys.readouterr().err

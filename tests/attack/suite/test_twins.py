"""What an evaluation computes once, because it must come out the same, does come out the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jr_onnx.attack.base import Attack
from jr_onnx.attack.suite import run as run_module
from jr_onnx.attack.suite.setup import prepare
from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.store import merged
from jr_onnx.kappa import KappaPlan
from tests.attack.suite import small


@pytest.fixture(autouse=True)
def _short() -> Iterator[None]:
    with small.patched(small.short):
        yield


def everything(folder: Path, **changes: object) -> dict[str, dict[str, Outcome]]:
    wanted = small.request(folder, suite="full", block=8, data=small.images(8), transfer_from=(0.5,), **changes)
    small.evaluated(wanted)
    return merged([wanted.out])[1]


@pytest.mark.parametrize("kappa", [0.0, 0.3])
def test_twins_are_equal_to_really_computing_them(
    tmp_path: Path, kappa: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Attack] = []
    honest = run_module.Runner._run

    def counting(self, entry, target, source):
        ran.append(entry.attack)
        return honest(self, entry, target, source)

    monkeypatch.setattr(run_module.Runner, "_run", counting)
    shared = everything(tmp_path / "shared", plan=KappaPlan(kappa))
    few = len(ran)
    monkeypatch.setattr(run_module, "_twin", lambda *_: None)
    computed = everything(tmp_path / "computed", plan=KappaPlan(kappa))
    assert shared == computed
    assert few < len(ran) - few, "something was shared"


def test_only_what_must_be_equal_is_shared(tmp_path: Path) -> None:
    work = prepare(small.request(tmp_path, suite="full", transfer_from=(0.5,))).work
    original, retrofit = work.contenders
    named = {entry.name: entry for entry in work.entries}

    def twin(contender, name: str) -> str | None:
        return run_module._twin(contender, named[name])

    exact = twin(original, "apgd-ce/linf")
    assert exact is not None
    assert exact == twin(original, "apgd-ce/linf/smooth:5") == twin(original, "apgd-ce/linf/from kappa*0")
    assert exact != twin(original, "apgd-ce/linf/wide")
    # With half the jump, or a jump of 0.5, the source is another network.
    assert twin(original, "apgd-ce/linf/from kappa*0.5") is None
    assert twin(original, "apgd-ce/linf/from kappa=0.5") is None
    assert twin(original, "square/linf") is None
    assert {twin(retrofit, name) for name in named if not name.startswith("paper/gray/")} == {None}
    # The paper's gray box crafts on the ReLU network alone: the same examples for both models.
    assert twin(retrofit, "paper/gray/pgd") == twin(original, "paper/gray/pgd") == twin(original, "paper/pgd")


def test_gray_box_examples_stop_at_the_sources_boundary(tmp_path: Path) -> None:
    found = everything(tmp_path)
    gray, white = found["retrofit"]["paper/gray/deepfool-l2"], found["original"]["paper/deepfool-l2"]
    both = [a and b for a, b in zip(gray.correct, white.correct, strict=True)]
    assert any(both)
    same = [one == two for one, two, kept in zip(gray.distance, white.distance, both, strict=True) if kept]
    assert all(same), "crafted on the original, and shown to the retrofit as they are"
    assert gray.success != white.success

"""A model that draws random numbers by itself is recognised, attacked with averaging and judged by repetition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from jr_onnx.attack.classifier.opener import ClassifierOpener
from jr_onnx.attack.classifier.served import differs
from jr_onnx.attack.judging import DECISION_DRAWS
from jr_onnx.attack.suite import plan
from jr_onnx.attack.suite.plan import EOT_DRAWS, SuiteOptions
from jr_onnx.cli.evaluation import replay
from jr_onnx.detect import DetectRequest, detect
from jr_onnx.evaluation.store import Store
from jr_onnx.tune import Objective, TuneRequest, tune_kappa
from tests.attack.suite import small

NOISE = (
    helper.make_node("RandomNormalLike", ["x"], ["e"], name="noise", scale=0.15),
    helper.make_node("Add", ["x", "e"], ["image"]),
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "noise.onnx"
    onnx.save(small.network(before=NOISE), path)
    return path


def few(name: str, options: SuiteOptions, *, gradients: bool = True) -> list[plan.Entry]:
    """The suite's own entries of one attack with few steps, averaged as the suite averages."""
    found = small.short(name, options, gradients=gradients)
    kept = [entry for entry in found if entry.name.startswith(("apgd-ce", "square")) and "wide" not in entry.name]
    return list({entry.name: entry for entry in (*kept[:1], *kept[-2:])}.values())


def test_it_is_averaged_and_repeated_on_both_models(tmp_path: Path, model: Path) -> None:
    with small.patched(few):
        prepared, found = small.evaluated(
            small.request(tmp_path, model=model, data=small.images(10), force=True)
        )  # its noise may err
    assert any("is random (noise: RandomNormalLike)" in note for note in prepared.notes)
    assert found.run.notes == prepared.notes
    outcomes = Store(tmp_path / "out").outcomes()
    assert {item.decided_by for item in outcomes} == {DECISION_DRAWS}
    draws = {item.entry: item.draws for item in outcomes}
    assert draws["apgd-ce/linf"] == EOT_DRAWS
    assert draws["apgd-ce/linf/one draw"] == 1
    assert all("each by the majority of 32 runs" in replay(figures) for figures in found.models)


def test_without_torch_it_is_recognised_by_its_runs_and_the_figure_is_marked(tmp_path: Path, model: Path) -> None:
    with small.patched(few):
        wanted = small.request(tmp_path, model=model, plan=None, data=small.images(10), black_box=True, force=True)
        prepared, found = small.evaluated(wanted)
    assert any("is random (two runs of one image differ)" in note for note in prepared.notes)
    assert any("upper bounds: do not quote them" in note for note in prepared.notes)
    assert replay(found.models[0]).startswith("ONNX Runtime alone judged all")
    assert found.models[0].verdict.not_judged.startswith("no attack had gradients")
    assert prepared.work.entries[0].attack.draws > 1


def test_a_fixed_model_is_not_called_random(tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    onnx.save(small.network(), path)
    opening = ClassifierOpener(data=small.images(12))
    served, _ = opening.open(path)
    assert not served.random
    assert not differs(served, opening.data)


def test_averaging_finds_what_one_draw_does_not() -> None:
    """The point of it all: a strong noise hides the gradient from one draw, not from twenty."""
    from jr_onnx.attack import APGD, TorchTarget
    from jr_onnx.torchnet import load

    noise = (
        helper.make_node("RandomNormalLike", ["x"], ["e"], scale=0.6),
        helper.make_node("Add", ["x", "e"], ["image"]),
    )
    data = small.images(24)
    target = TorchTarget(load(small.network(before=noise)))
    assert target.is_random
    many = APGD(eps=0.1, steps=15, eot=EOT_DRAWS).run(target, data.images, data.labels)
    one = APGD(eps=0.1, steps=15).run(target, data.images, data.labels)
    again = APGD(eps=0.1, steps=15, eot=EOT_DRAWS).run(target, data.images, data.labels)
    assert many.robust.sum() < one.robust.sum()
    assert (many.fooling_rate == again.fooling_rate).all()


def test_tune_and_detect_take_it(tmp_path: Path, model: Path) -> None:
    # Forced: on so few images the noise alone may bring the clean accuracy near that of guessing.
    request = TuneRequest(
        model=model,
        data=small.images(30),
        objective=Objective(eps=0.1, steps=3),
        attacked=6,
        grid=(0.2,),
        device="cpu",
        force=True,
    )
    result = tune_kappa(request)
    assert any("is random" in note for note in result.notes)
    assert len(result.points) == 2
    wanted: dict[str, Any] = {"eps": 0.4, "steps": 3, "reference": 30, "neighbours": 5, "device": "cpu", "force": True}
    found = detect(DetectRequest(model=model, data=small.images(300), **wanted))
    assert any("is random" in note for note in found.notes)
    assert np.isfinite(found.models[0].auc)

"""The one-cycle schedule, the time limit, and what a training step may not do: wait for the device."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jr_onnx.data import PRESETS, ImageData, load
from jr_onnx.errors import InputError
from jr_onnx.records import load_file
from models import build, load_weights
from tools.training import Recipe, TrainingRecord, TrainingRun, accuracy, loop, recipe, weights_digest
from tools.training import train as command
from tools.training.batches import Batches, logits
from tools.training.train import train

CPU = torch.device("cpu")
ONE_CYCLE = replace(
    recipe("digits_cnn"), optimizer="sgd", schedule="one-cycle", rate=0.1, warmup=0.25, batch=40, epochs=4
)
# Each of these waits for the device, or draws on the CPU what then has to be moved there.
_WAITING = ("_local_scalar_dense", "nonzero", "lift_fresh", "randperm", "randint", "rand", "equal")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load("digits", split="train", limit=200)


class _Clock:
    """A clock that every look moves on."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it without types
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def _run(plan: Recipe, data: ImageData, folder: Path) -> TrainingRun:
    run = TrainingRun(plan, data, None, folder / "run.state", CPU)
    run.run(lambda _row, _left: None)
    return run


@pytest.mark.parametrize("epochs", [1, 4, 30])
def test_the_rate_rises_once_and_falls_to_zero_however_many_epochs(epochs: int) -> None:
    plan = replace(ONE_CYCLE, epochs=epochs)
    points = [epochs * part / 100 for part in range(101)]
    rates = [plan.rate_at(point) for point in points]
    assert rates.index(max(rates)) == 25
    assert max(rates) == pytest.approx(0.1)
    assert rates[0] == pytest.approx(0.005)
    assert rates[-1] == 0.0
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert plan.rate_at(epochs + 1) == 0.0


def test_one_cycle_is_a_choice_and_its_absence_is_said() -> None:
    assert recipe("lenet_like").schedule == "paper"
    short = recipe("lenet_like", schedule="one-cycle")
    assert (short.schedule, short.batch, short.nesterov, short.decay_all) == ("one-cycle", 512, True, False)
    assert recipe("alex_like", robust=True).adversarial_fraction == 0.6
    with pytest.raises(InputError, match=r"digits_cnn has no one-cycle schedule, expected one of lenet_like"):
        recipe("digits_cnn", schedule="one-cycle")
    with pytest.raises(InputError, match="which cannot be shortened"):
        replace(recipe("lenet_like"), time_limit_s=10.0)


def test_biases_and_normalisation_are_left_out_of_the_decay() -> None:
    model = build("digits_cnn")
    decayed, free = loop._optimizer(replace(ONE_CYCLE, decay_all=False), model).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (ONE_CYCLE.weight_decay, 0.0)
    assert {item.ndim for item in free["params"]} == {1}
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("robust", [False, True])
def test_no_step_waits_for_the_device(tmp_path: Path, digits: ImageData, robust: bool) -> None:
    def counted(batch: int, precision: Any) -> Counter[str]:
        plan = replace(ONE_CYCLE, batch=batch, epochs=1, precision=precision, augmentation="none")
        if robust:
            plan = replace(plan, adversarial_fraction=0.5, adversarial_eps=0.1)
        run = TrainingRun(plan, digits, None, tmp_path / f"{batch}.state", CPU)
        count = _Count()
        with count:
            row = run._one_epoch(0, 0.0)
        assert row.steps == 200 // batch
        return count.seen

    for precision in ("float32", "bfloat16"):
        few, many = counted(100, precision), counted(10, precision)
        assert many["convolution"] > 5 * few["convolution"], "otherwise nothing was counted"
        assert few["_local_scalar_dense"] == 1, "the loss of the epoch"
        assert {name: many[name] for name in _WAITING} == {name: few[name] for name in _WAITING}


def test_draws_of_an_epoch_are_moved_to_the_device_once(digits: ImageData) -> None:
    plan = replace(ONE_CYCLE, batch=20, augmentation="crop_flip")
    batches: Iterator[Any] = Batches(digits, PRESETS["none"], CPU, channels_last=True).epoch(plan, 0)
    next(batches)
    with _Count() as count:
        for images, _ in batches:
            assert images.is_contiguous(memory_format=torch.channels_last)
    assert not count.seen.keys() & set(_WAITING)


def test_bfloat16_is_used_and_the_weights_stay_float32(tmp_path: Path, digits: ImageData) -> None:
    model = build("digits_cnn").eval()
    images = torch.from_numpy(digits.images[:20])
    with torch.no_grad():
        exact, rounded = (logits(model, images, kind) for kind in ("float32", "bfloat16"))
    assert torch.equal(exact, model(images))
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float()), "the last layer answered in bfloat16"
    run = _run(replace(ONE_CYCLE, precision="bfloat16"), digits, tmp_path)
    assert {value.dtype for value in run.model.parameters()} == {torch.float32}
    assert run.rows[-1].loss < run.rows[0].loss


def test_a_time_limit_shortens_the_schedule_to_its_end(
    tmp_path: Path, digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "time", _Clock(1.0))
    rates: list[float] = []
    step = TrainingRun._step

    def spied(self: TrainingRun, images: Any, labels: Any, rate: float) -> Any:
        rates.append(rate)
        return step(self, images, labels, rate)

    monkeypatch.setattr(TrainingRun, "_step", spied)
    # Five looks at the clock for the five steps of an epoch, and three more about it: 38 s end in the fifth epoch.
    plan = replace(ONE_CYCLE, epochs=100, time_limit_s=38.0)
    run = _run(plan, digits, tmp_path)
    assert run.shortened
    assert len(run.rows) == 5
    assert len(rates) == sum(row.steps for row in run.rows) < 25
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(rates) > 0.09, "the peak was reached"
    # One step of the clock is 1/38 of the schedule, and the last step was not later than three before its end.
    assert rates[-1] <= 0.1 * (4 / 38) / 0.75
    made = len(rates)
    _run(plan, digits, tmp_path)
    assert len(rates) == made, "a run that its time limit ended is over"


def test_a_time_limit_that_is_never_near_changes_nothing(
    tmp_path: Path, digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "time", _Clock(0.0))
    plain = _run(ONE_CYCLE, digits, tmp_path)
    (tmp_path / "run.state").unlink()
    limited = _run(replace(ONE_CYCLE, time_limit_s=10.0), digits, tmp_path)
    assert not limited.shortened
    assert weights_digest(limited.model.state_dict()) == weights_digest(plain.model.state_dict())


def test_the_time_of_an_earlier_part_counts(tmp_path: Path, digits: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "time", _Clock(1.0))
    plan = replace(ONE_CYCLE, epochs=100, time_limit_s=38.0)

    def stop(_row: object, left: int) -> None:
        if left == 97:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TrainingRun(plan, digits, None, tmp_path / "run.state", CPU).run(stop)
    run = _run(plan, digits, tmp_path)
    assert 3 < len(run.rows) <= 7
    assert run.shortened


def test_half_weights_are_tested_as_they_are_stored(tmp_path: Path) -> None:
    record = train(replace(ONE_CYCLE, epochs=6), "digits", tmp_path / "cnn.pt", half_weights=True)
    assert record.stored == "float16"
    assert load_file(TrainingRecord, tmp_path / "cnn.json") == record
    state = torch.load(tmp_path / "cnn.pt", weights_only=True)
    assert {value.dtype for value in state.values() if value.ndim > 1} == {torch.float16}
    assert {value.dtype for value in state.values() if value.ndim == 1} == {torch.float32}
    model = build("digits_cnn")
    load_weights(model, tmp_path / "cnn.pt")
    assert weights_digest(model.state_dict()) == record.weights_digest
    assert accuracy(model, Batches(load("digits"), PRESETS["none"], CPU)) == record.test_accuracy > 0.5


def test_weights_and_record_are_written_though_the_test_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> float:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(command, "accuracy", fail)
        with pytest.raises(InputError, match=r"cnn.pt, but the test images could not be evaluated: CUDA out of memory"):
            train(ONE_CYCLE, "digits", tmp_path / "cnn.pt", limit=200)
    assert math.isnan(load_file(TrainingRecord, tmp_path / "cnn.json").test_accuracy)
    before = torch.load(tmp_path / "cnn.pt", weights_only=True)
    record = train(ONE_CYCLE, "digits", tmp_path / "cnn.pt", limit=200)
    assert np.isfinite(record.test_accuracy), "the same command evaluates again"
    assert record.weights_digest == weights_digest(before)

"""Attacks on a device that works on its own: as few waits as promised, and the same results as on the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from jr_onnx.attack import (
    APGD,
    DDN,
    FGSM,
    FMN,
    PGD,
    DeepFool,
    IteratedFGSM,
    RescaledDeepFool,
    TargetedAPGD,
    TorchTarget,
    TrustRegion,
    accelerator,
)
from jr_onnx.attack.base import Attack
from tests.attack.planted import SHAPE, several

_WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}
_COPYING = {"cpu", "numpy", "tolist"}


class _Waits(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch has no types here
    """Counts operators for which the host waits on CUDA."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch has no types here
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if name in _WAITING:
            self.found[name] += 1
        elif name in ("index", "index_put", "index_put_") and any(
            isinstance(item, Tensor) and item.dtype in (torch.bool, torch.uint8) for item in args[1]
        ):
            self.found[f"{name} by a mask"] += 1
        return func(*args, **(kwargs or {}))


class _Copies(TorchFunctionMode):
    """Counts copies to the host, which are nothing on the CPU and so never dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _COPYING:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def _waits(attack: Attack, count: int = 12) -> int:
    model, images, labels = several(count)
    with _Waits() as waits, _Copies() as copies:
        attack.run(TorchTarget(model), images, labels)
    return int(waits.found.total() + copies.found.total())


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the CPU as a device that works on its own."""
    monkeypatch.setattr(accelerator, "runs_apart", lambda _: True)


# Attack with a number of steps -> waits that a further step may cost. No sample is fooled, so that none leaves early.
_PER_STEP: list[tuple[Callable[[int], Attack], float]] = [
    (lambda steps: IteratedFGSM(eps=1e-6, steps=steps), 0.5),  # samples leave every second step: one wait
    (lambda steps: PGD(eps=1e-5, steps=steps), 0.5),
    (lambda steps: PGD(eps=1e-5, steps=steps, momentum=0.5, loss="dlr"), 0.5),
    (lambda steps: APGD(eps=1e-5, steps=steps), 0.5),
    (lambda steps: TrustRegion(steps=steps, trust_radius=1e-6), 0.5),
    (lambda steps: DDN(steps=steps, bisections=0), 1),  # `minimal.cosine` reads a number that lies on the host
    (lambda steps: FMN(steps=steps, bisections=0), 2),
]


@pytest.mark.parametrize(("attack", "most"), _PER_STEP, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_step_waits_no_more_than_promised(apart: None, attack: Callable[[int], Attack], most: float) -> None:
    assert _waits(attack(44)) - _waits(attack(24)) <= most * 20


def test_a_step_on_the_cpu_does_wait() -> None:
    """The counting finds what it is to find: on the CPU samples leave at once."""
    assert _waits(IteratedFGSM(eps=1e-6, steps=44)) - _waits(IteratedFGSM(eps=1e-6, steps=24)) >= 20


def test_the_waits_of_deepfool_do_not_grow_with_classes(apart: None) -> None:
    assert _waits(DeepFool(steps=3, classes=4)) == _waits(DeepFool(steps=3, classes=2))


_SAME = [
    FGSM(eps=0.03),
    FGSM(eps=0.03, clip="batch"),
    IteratedFGSM(eps=0.002, steps=21),
    IteratedFGSM(eps=0.002, steps=21, clip="batch"),
    PGD(eps=0.03, steps=9, restarts=2, momentum=0.5),
    PGD(eps=0.1, norm="l2", steps=8, loss="dlr"),
    APGD(eps=0.03, steps=13, restarts=2),
    APGD(eps=0.1, norm="l2", steps=12, loss="dlr"),
    TargetedAPGD(eps=0.03, steps=6),
    DeepFool(steps=5),
    DeepFool(norm="l2", steps=5),
    TrustRegion(steps=11, trust_radius=0.02),
    DDN(steps=12),
    FMN(steps=12),
    RescaledDeepFool(steps=5),
]


@pytest.mark.parametrize("attack", _SAME, ids=lambda attack: f"{attack.name}-{attack.norm}")
@pytest.mark.parametrize("goals", [False, True])
def test_samples_that_idle_change_nothing(monkeypatch: pytest.MonkeyPatch, attack: Attack, goals: bool) -> None:
    """`several` computes each sample by itself, so that results are equal to the bit."""
    model, images, labels = several(40)
    labels[3] = (labels[3] + 1) % 5  # one that is misclassified from the start
    wanted = (labels + 1) % 5 if goals else None
    expected = attack.run(TorchTarget(model), images, labels, goals=wanted)
    monkeypatch.setattr(accelerator, "runs_apart", lambda _: True)
    found = attack.run(TorchTarget(model), images, labels, goals=wanted)
    assert int(expected.success.sum()) > 0
    for name in ("adversarials", "correct", "success", "iterations", "forward", "backward", "nonfinite"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_a_sample_that_becomes_infinite_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepFool on a flat model steps by 0 times infinity; such a sample fails, is counted, and stays out."""
    model, images, labels = several(12)
    model.weight.data.zero_()
    model.bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 0]))
    labels = torch.zeros_like(labels)
    expected = DeepFool(steps=4).run(TorchTarget(model), images, labels)
    monkeypatch.setattr(accelerator, "runs_apart", lambda _: True)
    found = DeepFool(steps=4).run(TorchTarget(model), images, labels)
    assert not found.success.any()
    assert (found.nonfinite > 0).all()
    assert torch.equal(found.nonfinite, expected.nonfinite)
    assert torch.equal(found.iterations, expected.iterations)


def test_slices_are_even_and_cover_the_batch() -> None:
    pieces = accelerator.slices(5000, 3 * 32 * 32)
    assert [piece.start for piece in pieces[1:]] == [piece.stop for piece in pieces[:-1]]
    assert (pieces[0].start, pieces[-1].stop) == (0, 5000)
    sizes = [piece.stop - piece.start for piece in pieces]
    assert max(sizes) <= 2048
    assert max(sizes) - min(sizes) <= len(sizes)
    assert len(accelerator.slices(100, 3 * 224 * 224)) == 3  # 41 images of that size hold as much
    assert len(accelerator.slices(2, 10**9)) == 2  # at least one at a time


def test_few_batch_sizes_reach_the_network(apart: None) -> None:
    """However many samples there are, and leave: eighths of a slice, and powers of two below."""
    sizes = set()

    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = several()[0]

        def forward(self, x: Tensor) -> Tensor:
            sizes.add(len(x))
            logits: Tensor = self.inner(x)
            return logits

    for count in range(1, 60):
        _, images, labels = several(count)
        IteratedFGSM(eps=0.002, steps=9).run(TorchTarget(Counting()), images, labels)
    assert sizes <= {1, 2, 4, 8, 16, 32, 64}
    values = 3 * 32 * 32
    padded = {accelerator.padded_count(count, values) for count in range(1, 2049)}
    assert padded == {1, 2, 4, 8, 16, 32, 64, 128, *range(256, 2049, 256)}
    assert all(accelerator.padded_count(count, values) >= count for count in range(1, 2049))
    assert accelerator.padded_count(3, 10**9) == 3


def test_channels_last_changes_no_answer() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(16, 5))
    images = torch.rand(6, *SHAPE)
    found = TorchTarget(model, channels_last=True).logits(images)
    # The order of sums alone differs: 16 products of numbers below 1 round to within 16 * 2^-24.
    torch.testing.assert_close(found, TorchTarget(model).logits(images), rtol=0, atol=16 * 2**-24)


def test_attacks_end_their_last_step_where_the_cpu_does(apart: None) -> None:
    """With one step more than samples leave after, nobody is lost or moved twice."""
    model, images, labels = several(8)
    for steps in range(1, 6):
        found = replace(IteratedFGSM(eps=1e-4), steps=steps).run(TorchTarget(model), images, labels)
        moved = ~found.success
        assert torch.equal(found.iterations[moved], torch.full_like(found.iterations[moved], steps))

"""Classes that a model masks with minus infinity: they change no decision, no loss and no gradient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from jr_onnx.attack import APGD, DDN, FMN, PGD, DeepFool, Square, TargetedAPGD, TorchTarget, TrustRegion
from jr_onnx.attack.base import Attack
from jr_onnx.attack.objectives import OBJECTIVES, aim_of, decided
from jr_onnx.evaluation.scores import NO_ANSWER, predictions
from tests.attack.planted import Linear, several
from tests.attack.suite import small

EPS = 0.05
ATTACKS: tuple[Attack, ...] = (
    PGD(eps=EPS, steps=8),
    APGD(eps=EPS, steps=12),
    APGD(eps=EPS, steps=12, loss="dlr"),
    APGD(eps=EPS, steps=12, loss="margin"),
    TargetedAPGD(eps=EPS, steps=6, targets=6),
    DDN(steps=20),
    FMN(steps=20),
    DeepFool(steps=10),
    TrustRegion(steps=30, trust_radius=0.05),
    Square(eps=EPS, queries=40),
)


class Extended(nn.Module):
    """A model with two more classes, which are masked."""

    def __init__(self, inner: Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        mask = logits.new_tensor([0.0] * logits.shape[1] + [float("-inf")] * 2)
        return torch.cat([logits, logits[:, :2] * 0 + 1], dim=1) + mask


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.name}-{getattr(attack, 'loss', '')}")
def test_masked_classes_change_nothing(attack: Attack) -> None:
    model, images, labels = several()
    plain = attack.run(TorchTarget(model), images, labels)
    masked = attack.run(TorchTarget(Extended(model)), images, labels)
    assert masked.correct.all()
    assert not masked.nonfinite.any()
    assert masked.zero_gradient.tolist() == plain.zero_gradient.tolist()
    # Rounding aside the same points; who stands on a boundary may fall on either side of it.
    assert abs(int(masked.success.sum()) - int(plain.success.sum())) <= 1
    assert plain.success.any()


@pytest.mark.parametrize("loss", OBJECTIVES)
@pytest.mark.parametrize("open_classes", [2, 3, 5])
def test_losses_and_gradients_stay_finite(loss: str, open_classes: int) -> None:
    logits = torch.randn(6, 7, generator=torch.Generator().manual_seed(1))
    logits[:, open_classes:] = float("-inf")
    first, second = logits.topk(2, dim=1).indices.unbind(1)
    logits.requires_grad_()
    values = OBJECTIVES[loss](logits, aim_of(first, second if loss == "dlr-targeted" else None))
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert torch.isfinite(values).all()
    assert torch.isfinite(gradient).all()
    assert (gradient[:, :open_classes].abs().amax(1) > 0).all()


def test_what_an_answer_is_in_torch_and_in_numpy() -> None:
    inf, nan = float("inf"), float("nan")
    rows = [[0.0, 1.0, -inf], [-inf, -inf, -inf], [0.0, inf, 1.0], [0.0, nan, 1.0], [nan, -inf, 5.0], [3.0, -inf, -1.0]]
    expected = [1, NO_ANSWER, NO_ANSWER, NO_ANSWER, NO_ANSWER, 0]
    assert predictions(np.array(rows, dtype=np.float32)).tolist() == expected
    assert decided(torch.tensor(rows)).tolist() == [answer != NO_ANSWER for answer in expected]


def with_mask(values: list[float]) -> onnx.ModelProto:
    """The small network, its logits plus a constant per class."""
    model = small.network(after=(helper.make_node("Add", ["z", "mask"], ["y"]),))
    model.graph.initializer.append(numpy_helper.from_array(np.array(values, dtype=np.float32), "mask"))
    return model


def test_a_masked_class_leaves_the_others_their_accuracy(tmp_path: Path) -> None:
    images = small.images(80)
    kept = np.flatnonzero(images.labels != 1)  # this class is masked, and nobody's label
    path = tmp_path / "masked.onnx"
    onnx.save(with_mask([0.0, -np.inf, 0.0]), path)
    with small.patched(small.handful):
        _, found = small.evaluated(small.request(tmp_path, model=path, data=images.take(kept)))
    for figures in found.models:
        assert figures.clean.value > 0.6  # a quarter of the labels is wrong
        assert all(item.nonfinite == 0 for item in figures.entries)

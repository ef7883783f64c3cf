"""The weights that the authors of JumpReLU published, on the whole test sets; the cards give the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jr_onnx.data import ImageData, load
from models import build, entry, jump_relu, load_weights
from tests.data.builders import unpack_cifar10
from tests.development import DataFolder

# An image whose two largest logits agree to the last bits may fall to either side on another processor.
NEAR_TIES = 2


def _hits(name: str, weights: Path, data: ImageData, kappa: float) -> int:
    model = build(name, activation=jump_relu(kappa))
    load_weights(model, weights)
    hits = 0
    with torch.inference_mode():
        for pixels, labels in data.batches(500):
            logits = model(torch.from_numpy(entry(name).preprocessing.apply(pixels)))
            hits += int((logits.argmax(1).numpy() == labels).sum())
    return hits


@pytest.mark.parametrize(("kind", "plain", "jumping"), [("baseline", 9955, 9953), ("robust", 9950, 9947)])
def test_lenet_like_reaches_the_papers_accuracy(data_dir: DataFolder, kind: str, plain: int, jumping: int) -> None:
    data = load(f"mnist:{data_dir / 'mnist'}")
    weights = data_dir / f"checkpoints/LeNetLike_{kind}.pkl"
    assert abs(_hits("lenet_like", weights, data, 0.0) - plain) <= NEAR_TIES
    assert abs(_hits("lenet_like", weights, data, 1.0) - jumping) <= NEAR_TIES


@pytest.fixture(scope="module")
def cifar10(data_dir: DataFolder, tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    return load(unpack_cifar10(data_dir, tmp_path_factory.mktemp("cifar10")))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "plain"), [("baseline", 9149), ("robust", 8977)])
def test_resnet20_reaches_its_accuracy(data_dir: DataFolder, cifar10: ImageData, kind: str, plain: int) -> None:
    weights = data_dir / f"checkpoints/ResNet_{kind}.pkl"
    assert abs(_hits("resnet20", weights, cifar10, 0.0) - plain) <= NEAR_TIES


@pytest.mark.parametrize("kind", ["baseline", "robust"])
def test_resnet20_loads_and_classifies(data_dir: DataFolder, cifar10: ImageData, kind: str) -> None:
    weights = data_dir / f"checkpoints/ResNet_{kind}.pkl"
    front = cifar10.take(range(200))
    # Both are right on 89 % or more of all images; 84 % is more than two standard deviations (2.2 points) below.
    assert _hits("resnet20", weights, front, 0.0) >= 168

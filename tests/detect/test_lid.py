"""LID against its definition, and a detector that is neither fooled by leaks nor finds what is not there."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from jr_onnx.detect import DetectRequest, DetectResult, LidFeatures, detect, lid
from jr_onnx.detect.evaluate import area, fitted_scores, noise_like
from jr_onnx.errors import InputError
from jr_onnx.kappa import KappaPlan
from jr_onnx.records import dumps, loads
from jr_onnx.torchnet import load
from tests.attack.suite import small


def test_lid_is_its_definition() -> None:
    reference = torch.tensor([[1.0, 0.0], [0.0, 2.0], [4.0, 0.0], [0.0, 9.0]])
    expected = -3 / (math.log(1 / 4) + math.log(2 / 4) + math.log(1))
    assert float(lid(torch.zeros(1, 2), reference, 3)) == pytest.approx(expected)


@pytest.mark.parametrize("dimension", [2, 8])
def test_lid_estimates_the_dimension_of_a_cube(dimension: int) -> None:
    generator = torch.Generator().manual_seed(0)
    # 5000 points on a flat piece of a space of 20 dimensions.
    basis = torch.linalg.qr(torch.randn(20, dimension, generator=generator)).Q
    points = torch.rand(5000, dimension, generator=generator) @ basis.T
    middle = torch.full((200, dimension), 0.5) + 0.1 * torch.rand(200, dimension, generator=generator)
    found = float(lid(middle @ basis.T, points, 50).mean())
    # The standard error of one estimate is d / sqrt(50); the mean of 200 correlated ones is well within 15 %.
    assert found == pytest.approx(dimension, rel=0.15)


def test_equal_distances_are_finite_and_too_few_points_refused() -> None:
    assert torch.isfinite(lid(torch.zeros(1, 2), torch.ones(5, 2), 3)).all()
    with pytest.raises(InputError, match="20 neighbours were asked for among 5"):
        lid(torch.zeros(1, 2), torch.ones(5, 2), 20)


def test_area_is_the_share_of_pairs_in_order() -> None:
    scores = np.array([[0.0, 1.0, 2.0], [3.0, 1.0, 1.0]])  # adversarial: 2 and 1; others: 0, 1, 3, 1
    # 2 beats 0, 1, 1; 1 beats 0 and ties with 1 and 1: (3 + 2) of 8.
    assert area(scores, 0)[0] == pytest.approx(5 / 8)


def test_no_signal_gives_no_auc() -> None:
    """Fitting on noise must not look good on the other side: what leaks would show here."""
    generator = np.random.default_rng(5)
    rows = generator.standard_normal((400, 3, 30))
    auc, low, high = area(fitted_scores(rows, np.arange(400) < 200), 0)
    assert low <= 0.5 <= high
    assert abs(auc - 0.5) < 0.08


def test_noise_is_as_long_as_the_perturbation() -> None:
    clean = np.full((4, 1, 4, 4), 0.5, dtype=np.float32)
    adversarial = clean + np.float32(0.05)
    noisy = noise_like(clean, adversarial, 0)
    lengths = np.sqrt(((noisy - clean) ** 2).sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(lengths, 0.2, rtol=1e-4)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(small.network(), path)
    return path


def test_a_feature_per_layer_with_the_kappa_of_the_file(model: Path) -> None:
    from jr_onnx.attack import TorchTarget

    net = load(model)
    target = TorchTarget(net)
    images = small.images(40).images
    features = LidFeatures(target, images[:25], neighbours=5, batch=7)
    assert features.names[0] == "input"
    assert features.names[-1] == "logits"
    assert len(features.names) == 3
    found = features(images[25:])
    assert found.shape == (15, 3)
    jumped = LidFeatures(target.with_kappa(0.5), images[:25], neighbours=5, batch=7)(images[25:])
    np.testing.assert_array_equal(found[:, 0], jumped[:, 0])
    assert (found[:, 1] != jumped[:, 1]).any()


def test_both_models_are_measured_and_kept(model: Path) -> None:
    request = DetectRequest(
        model=model,
        plan=KappaPlan(0.3),
        data=small.images(300),
        eps=0.3,
        steps=5,
        neighbours=5,
        reference=30,
        device="cpu",
    )
    result = detect(request)
    assert [item.model for item in result.models] == ["original", "retrofit"]
    for item in result.models:
        assert item.low <= item.auc <= item.high
        assert item.train_images >= 20
        assert item.test_images >= 20
    assert loads(DetectResult, dumps(result)) == result
    assert detect(request) == result


def test_too_few_images_are_refused(model: Path) -> None:
    with pytest.raises(InputError, match="found 50 images, expected at least 30 for reference"):
        detect(DetectRequest(model=model, plan=KappaPlan(0.3), data=small.images(50), reference=30))
    with pytest.raises(InputError, match="the attack fooled the original model on"):
        detect(
            DetectRequest(
                model=model, plan=KappaPlan(0.3), data=small.images(90), eps=1e-4, steps=2, reference=30, neighbours=5
            )
        )

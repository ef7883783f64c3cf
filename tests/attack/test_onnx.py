"""Attacks on a retrofitted ONNX file through `jr_onnx.torchnet`, judged again by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from jr_onnx.attack import APGD, PGD, ArrayTarget, Square, TorchTarget, kappa_sources
from jr_onnx.data import ImageData, load
from jr_onnx.kappa import RandomKappa
from jr_onnx.rewriter import rewrite
from jr_onnx.torchnet import SiteBackward
from jr_onnx.torchnet import load as load_module

MODEL = Path(__file__).resolve().parents[2] / "models" / "exported" / "digits_cnn.onnx"
KAPPA = 0.5
EPS = 0.1


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load("digits", limit=40)


@pytest.fixture(scope="module")
def retrofitted():
    model, _ = rewrite(onnx.load(MODEL), kappa=KAPPA)
    return model


@pytest.fixture(scope="module")
def target(retrofitted) -> TorchTarget:
    return TorchTarget(load_module(retrofitted))


def test_what_fools_the_module_fools_onnx_runtime(target: TorchTarget, retrofitted, digits: ImageData) -> None:
    result = APGD(eps=EPS, steps=20, backward="smooth:5").run(target, digits.images, digits.labels)
    session = onnxruntime.InferenceSession(retrofitted.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    logits = np.concatenate([session.run(None, {name: image.numpy()})[0] for image in result.adversarials.split(1)])
    served = logits.argmax(1) != digits.labels
    # Rounding can push a unit across the jump: of forty images at most one may differ.
    assert (served != result.success.numpy()).sum() <= 1
    assert result.success.any()


def test_kappa_and_backward_views_reach_every_site(target: TorchTarget, digits: ImageData) -> None:
    module = target.model
    x = torch.from_numpy(digits.images[:4])
    sources = kappa_sources(target)
    own = target.logits(x)
    half = sources["kappa*0.5"].logits(x)
    assert set(sources["kappa*0.5"].kappas().values()) == {KAPPA / 2}
    relu = sources["kappa*0"].logits(x)
    assert set(sources["kappa*0"].kappas().values()) == {0.0}
    assert set(module.kappas.values()) == {KAPPA}, "a view changes no module"
    plain = TorchTarget(load_module(MODEL)).logits(x)
    assert torch.allclose(relu, plain, atol=1e-5)
    assert not torch.equal(half, own)
    assert torch.equal(target.logits(x), own)
    slopes = []
    for view in (target, target.with_backward("smooth:2")):
        leaf = x.clone().requires_grad_()
        slopes.append(torch.autograd.grad(view.logits(leaf)[:, 0].sum(), leaf)[0])
    assert not torch.equal(*slopes)
    module.set_backward(SiteBackward.smooth(2.0))
    leaf = x.clone().requires_grad_()
    # A target differentiates the first convolution by a sum of its own: slopes below 2, rounded some ten times.
    expected = torch.autograd.grad(module(leaf)[:, 0].sum(), leaf)[0]
    assert torch.allclose(slopes[1], expected, rtol=0, atol=1e-5)
    assert not torch.allclose(slopes[0], expected, rtol=0, atol=1e-2)
    module.set_backward(SiteBackward.exact())


def test_transfer_keeps_what_fools_the_target(target: TorchTarget, digits: ImageData) -> None:
    source = kappa_sources(target)["kappa*0.5"]
    result = PGD(eps=EPS, steps=15).run(target, digits.images, digits.labels, source=source)
    again = target.logits(result.adversarials).argmax(1) != torch.from_numpy(digits.labels)
    assert torch.equal(result.success, again)
    assert result.success.any()


def test_random_kappa_is_attacked_with_expectation_over_draws(target: TorchTarget, digits: ImageData) -> None:
    for per in ("network", "site"):
        random = target.with_random_kappa(RandomKappa(0.3, 0.6, per=per))
        attack = PGD(eps=EPS, steps=2, eot=20, backward="smooth:5")
        first = attack.run(random, digits.images[:5], digits.labels[:5])
        again = attack.run(random, digits.images[:5], digits.labels[:5])
        assert torch.equal(first.fooling_rate, again.fooling_rate)
        assert ((first.fooling_rate >= 0) & (first.fooling_rate <= 1)).all()


def test_a_modules_own_randomness_is_taken_over(retrofitted, digits: ImageData) -> None:
    module = load_module(retrofitted)
    module.set_random(0.3, 0.6)
    target = TorchTarget(module)
    assert target.is_random
    assert module.random == RandomKappa(0.3, 0.6)
    x = torch.from_numpy(digits.images[:2])
    assert torch.equal(target.draw(5).logits(x), target.draw(5).logits(x))


def test_square_runs_on_onnx_runtime_alone(retrofitted, digits: ImageData) -> None:
    session = onnxruntime.InferenceSession(retrofitted.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def function(array: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {name: array})[0])

    result = Square(eps=0.2, queries=60).run(ArrayTarget(function), digits.images[:12], digits.labels[:12])
    assert result.success.any()
    assert not result.backward.any()

"""A target attacks the module as it is given, and changes nothing of the caller's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jr_onnx.attack import APGD, DDN, TorchTarget
from jr_onnx.kappa import RandomKappa
from jr_onnx.rewriter import rewrite
from jr_onnx.torchnet import load
from jr_onnx.torchnet.jump import SiteBackward
from jr_onnx.torchnet.module import OnnxModule
from tests.attack.planted import JumpNet, grey
from tests.attack.suite import small

KAPPA = 0.3


@pytest.fixture
def net() -> OnnxModule:
    model, _ = rewrite(small.network(), KAPPA)
    return load(model)


def attacked(target: TorchTarget, **changes: Any) -> Any:
    data = small.images(12)
    return APGD(eps=0.1, steps=5, **changes).run(target, data.images, data.labels)


def test_the_kappa_that_was_set_is_attacked_not_the_file_s(net: OnnxModule) -> None:
    x = torch.from_numpy(small.images(8).images)
    net.set_kappa(0.7)
    expected = net(x)
    target = TorchTarget(net)
    assert torch.equal(target.logits(x), expected)
    assert torch.equal(target.with_kappa(0.1).with_kappa(None).logits(x), expected)
    halved = TorchTarget(net).with_scaled_kappa(0.5).logits(x)
    net.set_kappa(0.35)
    assert torch.equal(halved, net(x))


def test_the_caller_s_kappas_derivatives_and_range_stay(net: OnnxModule) -> None:
    net.set_kappa(0.7)
    net.set_backward(SiteBackward.smooth(5.0))
    net.set_random(0.2, 0.4)
    target = TorchTarget(net)
    attacked(target, backward="straight-through", eot=2)
    attacked(target.with_random_kappa(RandomKappa(0.1, 0.9)))
    attacked(target.with_scaled_kappa(0.0))
    assert list(net.kappas.values()) == pytest.approx([0.7])
    assert set(net.backwards.values()) == {SiteBackward.smooth(5.0)}
    assert net.random == RandomKappa(0.2, 0.4)


def test_the_caller_s_derivative_is_used_unless_another_is_asked_for(net: OnnxModule) -> None:
    surrogate = SiteBackward.smooth(5.0)
    plain = TorchTarget(net)
    net.set_backward(surrogate)
    x = torch.from_numpy(small.images(8).images)

    def slope(target: TorchTarget) -> Tensor:
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(target.logits(leaf)[:, 0].sum(), leaf)
        return gradient

    assert torch.equal(slope(TorchTarget(net)), slope(plain.with_backward(surrogate)))
    assert torch.equal(slope(TorchTarget(net).with_backward("exact")), slope(plain))
    assert not torch.equal(slope(TorchTarget(net)), slope(plain))


def test_later_changes_of_the_caller_do_not_reach_a_target(net: OnnxModule) -> None:
    x = torch.from_numpy(small.images(8).images)
    target = TorchTarget(net)
    before = target.logits(x)
    net.set_kappa(5.0)
    assert torch.equal(target.logits(x), before)


def conv_net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 3)
    )


def test_training_mode_gradients_and_weights_stay() -> None:
    model = conv_net()
    model[1].eval()  # a frozen layer in a network in training mode
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = small.images(12)
    for attack in (APGD(eps=0.1, steps=4), DDN(steps=4)):
        attack.run(TorchTarget(model), data.images, data.labels)
    assert [part.training for part in model] == [True, False, True, True, True, True]
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all((parameter.grad == 2.0).all() for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_in_training_mode_is_attacked_in_eval_mode_with_its_weights_of_then() -> None:
    model, x = conv_net(), grey(4)
    target = TorchTarget(model)
    first = target.logits(x)
    assert torch.equal(first, target.logits(x)), "dropout is off"
    expected = conv_net().eval()(x)
    assert torch.allclose(first, expected, atol=1e-6)
    with torch.no_grad():
        model[5].bias += 1.0
    assert torch.allclose(target.logits(x), first + 1.0), "weights are shared, not copied"


def test_a_module_whose_jump_comes_with_each_call_is_not_copied() -> None:
    model = JumpNet(lambda site: nn.Sequential(nn.Flatten(), nn.Linear(16, 8), site(), nn.Linear(8, 3)), 0.5)
    target = TorchTarget(model)
    attacked(target.with_kappa(0.1), backward="smooth:5")
    assert model.own == {"site 0": 0.5}
    assert model.last.kappas == 0.1
    assert target.model is model

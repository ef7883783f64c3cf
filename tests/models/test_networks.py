from __future__ import annotations

import pytest
import torch
from torch import nn

from jr_onnx.errors import InputError
from jr_onnx.reproduce.networks import NETWORKS
from models import NAMES, JumpReLU, build, entry, jump_relu
from models.wide_resnet import WideResNet

# Summed by hand from the layers' shapes; a card gives the same number.
PARAMETERS = {
    "digits_cnn": 23_050,
    "digits_mlp": 11_386,
    "lenet_like": 55_600,
    "alex_like": 1_147_978,
    "wide_resnet": 7_404_074,
    "mobilenet_v2": 2_296_922,
    "resnet20": 272_474,
}


def _images(name: str, count: int = 2) -> torch.Tensor:
    return torch.randn((count, *entry(name).input_shape), generator=torch.Generator().manual_seed(0))


def _count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_the_registry_tells_the_truth(name: str) -> None:
    model, known = build(name), entry(name)
    assert not model.training
    assert model(_images(name)).shape == (2, 10)
    assert _count(model, nn.ReLU) == known.sites
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    known.preprocessing.affine(known.input_shape[0])


@pytest.mark.parametrize("name", NAMES)
def test_every_activation_can_be_replaced(name: str) -> None:
    plain, jumping = build(name), build(name, activation=jump_relu(0.05))
    assert _count(jumping, nn.ReLU) == 0
    assert _count(jumping, JumpReLU) == entry(name).sites
    jumping.load_state_dict(plain.state_dict())
    assert not torch.equal(jumping(_images(name)), plain(_images(name))), "the jump does nothing"
    still = build(name, activation=jump_relu(0.0))
    still.load_state_dict(plain.state_dict())
    assert torch.equal(still(_images(name)), plain(_images(name)))


@pytest.mark.parametrize("name", NAMES)
def test_every_site_is_used_once(name: str) -> None:
    model = build(name)
    calls: dict[int, int] = {}
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda m, _i, _o: calls.update({id(m): calls.get(id(m), 0) + 1}))
    model(_images(name))
    assert list(calls.values()) == [1] * entry(name).sites


@pytest.mark.parametrize("name", NAMES)
def test_images_of_a_batch_do_not_see_each_other(name: str) -> None:
    model, images = build(name), _images(name, 3)
    with torch.inference_mode():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    # Two orders of summation over at most a few thousand terms of a network with logits of order 1.
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_alone() -> None:
    for name in ("lenet_like", "alex_like"):
        model, images = build(name), _images(name)
        assert torch.equal(model(images), model(images))
        model.train()
        assert not torch.equal(model(images), model(images))


@pytest.mark.parametrize("depth", [30, 4, 33])
def test_a_depth_that_cannot_be_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"found the depth {depth}, expected 6 n \+ 4"):
        WideResNet(depth=depth)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="there is no network 'vgg', expected one of digits_cnn, digits_mlp"):
        build("vgg")


def test_the_papers_kappas_are_those_that_its_tables_are_reproduced_with() -> None:
    found = {
        name: (known.paper_kappa, known.paper_random_kappa) for name in NAMES if (known := entry(name)).paper_kappa
    }
    expected = {
        network.stem: (network.kappa, (pytest.approx(0.6 * network.random_kappa), network.random_kappa))
        for network in NETWORKS
        if network.stem in found
    }
    assert len(found) == 4
    assert found == expected


def test_the_papers_random_kappas_span_from_six_tenths() -> None:
    for name in NAMES:
        known = entry(name)
        if known.paper_random_kappa is not None:
            low, high = known.paper_random_kappa
            assert low == pytest.approx(0.6 * high)
            assert known.paper_kappa is not None
            assert low <= known.paper_kappa <= high

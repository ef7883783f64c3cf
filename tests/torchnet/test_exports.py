"""Exports of torch networks, by both exporters: logits and input gradients of the file are those of the network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from jr_onnx.torchnet import OnnxModule, check_parity, load
from models import jump_relu
from models.alex_like import AlexLike
from models.lenet_like import LeNetLike
from models.mobilenet_v2 import MobileNetV2
from models.resnet import ResNet20
from models.wide_resnet import WideResNet
from tools.training.export import export

_Factory = Callable[..., nn.Module]
_NETWORKS: dict[str, tuple[_Factory, Callable[[], nn.Module], tuple[int, int, int]]] = {
    "lenet_like": (LeNetLike, nn.ReLU, (1, 28, 28)),
    "alex_like": (AlexLike, nn.ReLU, (3, 32, 32)),
    "resnet20": (ResNet20, nn.ReLU, (3, 32, 32)),
    "wide_resnet_10_1": (lambda activation: WideResNet(activation, depth=10, width=1), nn.ReLU, (3, 32, 32)),
    "mobilenet_v2_relu6": (MobileNetV2, nn.ReLU6, (3, 32, 32)),
}
_FAST = [
    ("lenet_like", "old", 13),
    ("resnet20", "old", 17),
    ("wide_resnet_10_1", "old", 18),
    ("lenet_like", "dynamo", 20),
]
_SLOW = [
    ("alex_like", "old", 18),
    ("alex_like", "dynamo", 18),
    ("resnet20", "dynamo", 21),
    ("wide_resnet_10_1", "dynamo", 20),
    ("mobilenet_v2_relu6", "old", 12),
    ("mobilenet_v2_relu6", "dynamo", 18),
]
# Exporters fold batch normalisation into the convolutions. A float32 network of depth d evaluated in another order
# differs by about sqrt(d * fan-in) * 2**-24 of the largest value: below 1e-5 at depth 53 and fan-in 1000.
_RELATIVE = 1e-5
# A gradient jumps at a kink: where a pre-activation is within rounding of one, the two may take different sides.
_AT_A_KINK = 2e-7


def _network(name: str, activation: Callable[[], nn.Module] | None = None) -> tuple[nn.Module, tuple[int, int, int]]:
    """A network with random weights and random statistics, so that every channel matters."""
    factory, default, shape = _NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = factory(activation or default).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
    return model, shape


def _check(name: str, exporter: str, opset: int) -> None:
    model, shape = _network(name)
    proto = export(model, shape, exporter=exporter, opset=opset)  # type: ignore[arg-type]
    net = load(proto)
    assert net.static_batch is None
    checked = 0
    for count in (1, 5):
        x = torch.rand(count, *shape, generator=torch.Generator().manual_seed(count)).requires_grad_()
        expected = model(x)
        found, margin = _with_margin(net, x)
        _close(found, expected)
        weights = torch.arange(1.0, found.shape[1] + 1)
        (wanted,) = torch.autograd.grad((expected * weights).sum(), x)
        (got,) = torch.autograd.grad((found * weights).sum(), x)
        smooth = margin > _AT_A_KINK
        checked += int(smooth.sum())
        if smooth.any():
            _close(got[smooth], wanted[smooth])
        assert check_parity(net, proto, x.detach()).passed
    assert checked > 0


def _with_margin(net: OnnxModule, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits, and per sample how near any pre-activation comes to a kink."""
    margins: list[torch.Tensor] = []
    with net.observing(lambda name, z, _: margins.append(_to_kink(z, net.sites[name].cap))):
        logits = net(x)
    return logits, torch.stack(margins).amin(0)


def _to_kink(z: torch.Tensor, cap: float | None) -> torch.Tensor:
    """Per sample: how near a pre-activation comes to a kink of the activation, relative to the largest one."""
    distance = z.abs() if cap is None else torch.minimum(z.abs(), (z - cap).abs())
    return distance.detach().flatten(1).amin(1) / z.detach().abs().max()


def _close(found: torch.Tensor, expected: torch.Tensor) -> None:
    scale = expected.abs().max().item()
    assert (found - expected).abs().max().item() <= _RELATIVE * scale


@pytest.mark.parametrize(("name", "exporter", "opset"), _FAST)
def test_export_has_the_networks_logits_and_gradients(name: str, exporter: str, opset: int) -> None:
    _check(name, exporter, opset)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter", "opset"), _SLOW)
def test_larger_export_has_the_networks_logits_and_gradients(name: str, exporter: str, opset: int) -> None:
    _check(name, exporter, opset)


def test_jump_in_the_network_is_the_jump_at_the_sites() -> None:
    """The paper's own formulation in torch, masked gradient included, against the module's exact derivative."""
    jumping, shape = _network("lenet_like", jump_relu(0.05))
    plain, _ = _network("lenet_like")
    net = load(export(plain, shape, exporter="old"))
    net.set_kappa(0.05)
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    _close(net(x), jumping(x))
    (wanted,) = torch.autograd.grad(jumping(x).square().sum(), x)
    (got,) = torch.autograd.grad(net(x).square().sum(), x)
    _close(got, wanted)


@pytest.mark.parametrize("batch", [1, 3])
def test_export_with_a_fixed_batch_runs_with_any(batch: int) -> None:
    model, shape = _network("lenet_like")
    net = load(export(model, shape, exporter="old", batch=batch))
    assert net.static_batch is None
    x = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    _close(net(x), model(x))

"""Models whose weaknesses are known by construction, for the tests of the attacks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from jr_onnx.attack import TorchTarget
from jr_onnx.data import PRESETS
from jr_onnx.torchnet.jump import SiteBackward, jump
from jr_onnx.torchnet.settings import KappaSetting, PassSettings
from tests.development import DataFolder

SHAPE = (1, 4, 4)
PIXELS = 16


class Linear(nn.Module):
    """Logits `W x + b`, computed sample by sample so that a result does not depend on the batch."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias)

    def forward(self, x: Tensor) -> Tensor:
        # A matrix product may pick another kernel for another batch size; a sum over the last axis does not.
        return (x.flatten(1)[:, None, :] * self.weight).sum(2) + self.bias


def signs(seed: int, *shape: int) -> Tensor:
    """Random entries of +-1."""
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1.0


def grey(count: int, seed: int = 0) -> Tensor:
    """Images around mid grey, far from the box."""
    return 0.4 + 0.2 * torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def binary(count: int = 12, seed: int = 0) -> tuple[Linear, Tensor, Tensor, Tensor]:
    """A two-class model whose weights differ by +-1 in every pixel, images, labels, and their margins.

    With such weights the gradient, its sign and its normalised form all point in one direction, and the distance to
    the boundary is margin / 16 in L-infinity, margin / 4 in L2 and margin in L1.
    """
    weight = torch.stack([torch.zeros(PIXELS), signs(seed, PIXELS)])
    images = grey(count, seed)
    model = Linear(weight, torch.tensor([0.0, -float((images.flatten(1) @ weight[1]).mean()) - 0.01]))
    logits = model(images).detach()
    return model, images, logits.argmax(1), (logits[:, 0] - logits[:, 1]).abs()


def several(count: int = 12, classes: int = 5, seed: int = 0) -> tuple[Linear, Tensor, Tensor]:
    """A model of several classes with Gaussian weights, images, and the classes it gives them."""
    # Steep enough that the softmax at a boundary holds two classes only: then the cross entropy points straight.
    weight = torch.randn(classes, PIXELS, generator=torch.Generator().manual_seed(seed)) * 20
    images = grey(count, seed + 1)
    model = Linear(weight, -(images.flatten(1) @ weight.T).mean(0))
    return model, images, model(images).argmax(1)


def linear_distance(model: Linear, images: Tensor, labels: Tensor, norm: str) -> Tensor:
    """The distance of each image to the nearest boundary of a linear model, without a box."""
    weight, logits = model.weight.detach().double(), model(images).detach().double()
    order = {"linf": 1, "l2": 2, "l1": float("inf")}[norm]
    gaps = logits.gather(1, labels[:, None]) - logits
    slopes = (weight[labels][:, None] - weight[None]).norm(p=order, dim=2)
    ratios = torch.where(slopes > 0, gaps / slopes, float("inf"))
    return ratios.amin(1)


class _Staircase(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor, through: bool) -> Tensor:
        ctx.through = through
        return torch.floor(x * 64) / 64

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return (grad if ctx.through else torch.zeros_like(grad)), None


class Masked(nn.Module):
    """A linear model behind a staircase: its true gradient is zero, a surrogate sees through."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def kappas_with(self, kappas: KappaSetting) -> dict[str, float]:
        del kappas  # it has no jumps
        return {}

    def forward(self, x: Tensor, settings: PassSettings) -> Tensor:
        return self.inner(_Staircase.apply(x, settings.backward not in (None, SiteBackward.exact())))


class Shattered(nn.Module):
    """A linear model whose gradient is drowned in a random one; only the average over draws shows the true one."""

    def __init__(self, inner: Linear, noise: float = 3.0, jitter: float = 0.0) -> None:
        super().__init__()
        self.inner = inner
        # Half of the pixels agree with the weights and half do not: a step along it changes no margin.
        agree = torch.tensor([1.0, -1.0]).repeat(PIXELS // 2)
        self.direction = (inner.weight[1] - inner.weight[0]).detach() * agree
        self.noise, self.jitter = noise, jitter
        self.generator = torch.Generator()

    def reseed(self, key: int) -> None:
        self.generator.manual_seed(key)

    def forward(self, x: Tensor) -> Tensor:
        sign = float(torch.randint(0, 2, (), generator=self.generator)) * 2 - 1
        silent = ((x - x.detach()).flatten(1) * self.direction).sum(1)  # zero, but its gradient is not
        logits = self.inner(x)
        return logits + torch.stack([torch.zeros_like(silent), sign * (self.noise * silent + self.jitter)], dim=1)


class JumpSite(nn.Module):
    """A site whose jump and backward pass are those of the pass that is under way."""

    def __init__(self, passing: dict[str, object], name: str) -> None:
        super().__init__()
        self.passing, self.name = passing, name

    def forward(self, z: Tensor) -> Tensor:
        return jump(z, self.passing["kappas"][self.name], None, self.passing["backward"])


class JumpNet(nn.Module):
    """Any network with a jump that comes with each call, for instance the ones of `models`."""

    def __init__(self, factory, kappa: float) -> None:
        super().__init__()
        self.own: dict[str, float] = {}
        self.passing: dict[str, object] = {}
        self.last: PassSettings | None = None

        def site() -> JumpSite:
            name = f"site {len(self.own)}"
            self.own[name] = kappa
            return JumpSite(self.passing, name)

        self.inner = factory(site)

    def kappas_with(self, kappas: KappaSetting) -> dict[str, float]:
        if isinstance(kappas, Mapping):
            return {**self.own, **kappas}
        return self.own if kappas is None else dict.fromkeys(self.own, kappas)

    def forward(self, x: Tensor, settings: PassSettings | None = None) -> Tensor:
        self.last = settings or PassSettings()
        self.passing["kappas"] = self.kappas_with(self.last.kappas)
        self.passing["backward"] = self.last.backward or SiteBackward.exact()
        return self.inner(x)


def lenet(folder: DataFolder, checkpoint: str, kappa: float) -> TorchTarget:
    """The authors' MNIST network with a jump, attacked in pixels."""
    from models.checkpoints import load_weights
    from models.lenet_like import LeNetLike

    net = JumpNet(LeNetLike, kappa)
    load_weights(net.inner, folder / f"checkpoints/LeNetLike_{checkpoint}.pkl")
    return TorchTarget(net, PRESETS["mnist"])

"""The network that is trained: pixels in, logits out, its weights parameters, its jumps too where they are learned."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from jr_onnx.attack.cpu import FastFirstConvolution
from jr_onnx.attack.pixels import PixelMap
from jr_onnx.attack.torch_target import in_input_shape
from jr_onnx.data import Preprocessing
from jr_onnx.element_types import Array
from jr_onnx.errors import KappaError
from jr_onnx.semantics import SiteKappa, channels_of, round_kappa, validate_site_kappa
from jr_onnx.torchnet.jump import LearnedKappa
from jr_onnx.torchnet.module import OnnxModule

_BANDWIDTH = 0.5
"""Width of the kernel that sees the jump, as a share of the first kappa."""


class TrainedNetwork:
    """A trainable ONNX module behind its preprocessing.

    Args:
        net: The module, of `jr_onnx.torchnet.load(..., trainable=...)`.
        preprocessing: From pixels to its input.
        bfloat16: Whether products are computed in bfloat16, on a GPU; weights stay as they are.
    """

    def __init__(self, net: OnnxModule, preprocessing: Preprocessing, *, bfloat16: bool = False) -> None:
        self.net = net
        self._pixels = PixelMap(preprocessing)
        self._is_fast = net.device.type == "cpu" and net.static_batch is None
        self._bfloat16 = bfloat16 and net.device.type == "cuda"
        self.kappas: dict[str, nn.Parameter] = {}

    def learn_kappas(self, image: Array | None = None) -> None:
        """Make the jump of every site a parameter, from its kappa now on.

        Args:
            image: One image (1, C, H, W), to learn one for each channel of a site (axis 1 of its tensor).

        Raises:
            KappaError: A site has no axis of channels, or several numbers of them.
        """
        channels = {} if image is None else self._channels(torch.from_numpy(image).to(self.net.device))
        for name, kappa in self.net.kappas.items():
            shape = (channels[name],) if name in channels else ()
            first = max(channels_of(kappa))
            start = torch.full(shape, first, dtype=torch.float32, device=self.net.device)
            self.kappas[name] = nn.Parameter(start)
            self.net.learn_kappas({name: LearnedKappa(self.kappas[name], _BANDWIDTH * first)})

    def _channels(self, image: Tensor) -> dict[str, int]:
        """Return site id -> number of channels."""
        found: dict[str, int] = {}

        def note(site: str, z: Tensor, _: Tensor) -> None:
            if z.dim() < 2:
                raise KappaError(
                    f"site {site!r} has a tensor of rank {z.dim()}, which has no axis of channels",
                    hint="Use --learn-kappa per-site",
                )
            if found.setdefault(site, z.shape[1]) != z.shape[1]:
                raise KappaError(
                    f"site {site!r} is in a function that is called with {found[site]} and {z.shape[1]} channels",
                    hint="Use --learn-kappa per-site",
                )

        with torch.no_grad(), self.net.observing(note):
            self(image)
        return {name: count for name, count in found.items() if name in self.net.kappas}

    def keep_kappas_valid(self) -> None:
        """Bring kappas that a step made negative back to 0."""
        with torch.no_grad():
            for value in self.kappas.values():
                value.clamp_(min=0)

    @property
    def learned(self) -> dict[str, SiteKappa]:
        """Site id -> its learned kappa, or one for each channel, rounded to the site's type."""
        return {
            name: round_kappa(validate_site_kappa(value.detach()), self.net.sites[name].dtype)
            for name, value in self.kappas.items()
        }

    def parameters(self) -> list[nn.Parameter]:
        """Return weights, then learned kappas."""
        return [*self.net.parameters(), *self.kappas.values()]

    def groups(self, weight_decay: float, rate: float) -> list[dict[str, object]]:
        """Return the optimiser's groups: matrices and kernels decay, biases, scales and kappas do not."""
        weights = [item for item in self.net.parameters() if item.requires_grad]
        found: list[dict[str, object]] = [
            {"params": [item for item in weights if item.dim() > 1], "weight_decay": weight_decay},
            {"params": [item for item in weights if item.dim() <= 1], "weight_decay": 0.0},
            {"params": list(self.kappas.values()), "weight_decay": 0.0},
        ]
        return [{**group, "lr": rate} for group in found if group["params"]]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Evaluate pixels (N, C, H, W) to logits (N, K), with gradients for weights."""
        with self._precision():
            return self._logits(pixels)

    def attacked(self, pixels: Tensor) -> Tensor:
        """Evaluate as a call does, with gradients for the pixels alone, which is faster on a CPU."""
        convolving = FastFirstConvolution(frozen=True) if self._is_fast else contextlib.nullcontext()
        with convolving, self._precision():
            return self._logits(pixels)

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast("cuda", torch.bfloat16) if self._bfloat16 else contextlib.nullcontext()

    def _logits(self, pixels: Tensor) -> Tensor:
        ready = pixels if self._pixels.is_identity else self._pixels.normalise(pixels)
        result: Tensor = self.net(in_input_shape(self.net, self._pixels.arrange(ready)))
        return result.float()


def copy_into(parameters: Iterable[nn.Parameter], values: Iterable[Tensor]) -> None:
    """Set parameters to values."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


def values_of(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Return copies of what parameters hold."""
    return [parameter.detach().clone() for parameter in parameters]

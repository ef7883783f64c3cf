"""A torch callable under attack: an `nn.Module`, an ONNX module of `jr_onnx.torchnet`, or a plain function."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from jr_onnx.attack import accelerator
from jr_onnx.attack.cpu import FastFirstConvolution
from jr_onnx.attack.noise import Noise
from jr_onnx.attack.pixels import Units
from jr_onnx.attack.surrogate import parse_backward
from jr_onnx.attack.target import Kappa, Target
from jr_onnx.data.preprocessing import Preprocessing
from jr_onnx.errors import InputError, RefusalError
from jr_onnx.kappa import RandomKappa
from jr_onnx.semantics import SiteKappa, map_kappa, validate_kappa, validate_site_kappa
from jr_onnx.torchnet.jump import SiteBackward
from jr_onnx.torchnet.module import OnnxModule
from jr_onnx.torchnet.program import Observer
from jr_onnx.torchnet.settings import KappaSetting, PassSettings


@runtime_checkable
class JumpNetwork(Protocol):
    """A network whose JumpReLU sites take their kappas and derivatives with each call, as `OnnxModule` does."""

    def kappas_with(self, kappas: KappaSetting) -> Mapping[str, SiteKappa]:
        """Return site id -> kappa of a pass with these `PassSettings.kappas`, a number or one for each channel."""

    def __call__(self, x: Tensor, settings: PassSettings) -> Tensor:
        """Evaluate the preprocessed input to logits (N, K)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a view asks of the model in an evaluation.

    Attributes:
        kappa: As sorted pairs (site id, jump), one jump for all sites, or None for the model's own.
        backward: The backward pass at every site, or None for the model's own.
        random: Draw kappa from this range again for every forward pass.
        draw: Fix the model's randomness to this draw.
    """

    kappa: float | tuple[tuple[str, SiteKappa], ...] | None = None
    backward: SiteBackward | None = None
    random: RandomKappa | None = None
    draw: int | None = None


def in_input_shape(net: OnnxModule, x: Tensor) -> Tensor:
    """Return images (N, ...) in the shape of a module's input where that has as many values, for instance (N, 784)."""
    sizes = net.input_shape[1:]
    fixed = [size for size in sizes if size is not None]
    fits = len(fixed) == len(sizes) and x[:1].numel() == len(x[:1]) * int(np.prod(fixed))
    return x.reshape(len(x), *fixed) if fits else x


class TorchTarget(Target):
    """A torch callable.

    The module is attacked as it is given, with the kappas, derivatives and randomness that it has at this moment, in
    eval mode. Nothing of the caller's changes: what a view asks for is passed with each evaluation, and a module in
    training mode is so again after each evaluation.

    Attributes:
        model: What is evaluated.
        net: The same as an ONNX module, None if it is another kind of module.
        settings: What the view asks of it.
    """

    differentiable = True

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        preprocessing: Preprocessing | None = None,
        *,
        units: Units = "pixel",
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        reseed: Callable[[int], None] | None = None,
        threaded: bool = True,
        channels_last: bool | None = None,
    ) -> None:
        """Wrap a model.

        Args:
            model: Maps the preprocessed input to logits. An ONNX module whose input has another shape of as many
                values, for instance (N, 784), gets the images in that shape.
            preprocessing: Pixels to model input; none by default.
            units: Units of attacks on this view.
            device: Where to evaluate; the model's own by default.
            dtype: Floating type of the input.
            reseed: For a model that draws random numbers: fixes them for the next evaluation, given a key. An
                ONNX module takes a seed with each call instead.
            threaded: Whether several threads may evaluate the model at once; not one that keeps notes of a pass.
            channels_last: Lay images out channels-last in memory; by default on CUDA.
        """
        super().__init__(preprocessing, units)
        self.dtype = dtype
        self.model = _snapshot(model, device)
        given: object = self.model
        self.net: OnnxModule | None = given if isinstance(given, OnnxModule) else None
        self._sites: JumpNetwork | None = given if isinstance(given, JumpNetwork) else None
        self._evaluating = _Evaluating(self.model) if isinstance(self.model, nn.Module) else contextlib.nullcontext()
        self._reseed = reseed
        # A random kappa is drawn here, where a draw has a key and can be repeated.
        self.settings = Settings(random=None if self.net is None else self.net.random)
        self.device = _device_of(self.model, device)
        self.channels_last = self.device.type == "cuda" if channels_last is None else channels_last
        # A model that fixes its draw for the next evaluation alone has to be reseeded before every slice.
        self.threaded = threaded and reseed is None

    @property
    def is_random(self) -> bool:
        """Whether kappa or the model itself is drawn again in every evaluation."""
        return (self.settings.random is not None or self._draws) and self.settings.draw is None

    @property
    def draws_apart(self) -> bool:
        """Whether every row of a batch has random numbers of its own; not a kappa, which is drawn for all."""
        return self.settings.random is None and self.net is not None and self.net.draws_apart

    @property
    def _draws(self) -> bool:
        return self._reseed is not None or (self.net is not None and bool(self.net.draws))

    def logits(self, x: Tensor) -> Tensor:
        """Evaluate inputs (N, C, H, W) to logits (N, K), with gradients where `x` asks for them."""
        # A network of a fixed batch is mapped over pieces by vmap, which lacks the derivative of that convolution.
        fast = self.device.type == "cpu" and (self.net is None or self.net.static_batch is None)
        convolving = FastFirstConvolution(frozen=True) if fast else contextlib.nullcontext()
        # Weights may ask for gradients, which no attack wants: only an input that does needs a graph.
        wanted = torch.is_grad_enabled() and x.requires_grad
        with self._evaluating, convolving, torch.set_grad_enabled(wanted):
            result: object = self._evaluated(self._padded(self._shaped(x)))
            if self.runs_apart and isinstance(result, Tensor):
                result = result[: len(x)]
        if not isinstance(result, Tensor) or result.dim() != 2 or result.shape[0] != x.shape[0]:
            found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise InputError(f"the model gives {found} for {x.shape[0]} images, expected logits ({x.shape[0]}, K)")
        return result.to(x.dtype)  # a network of another precision must not make every attack compute in two

    def _evaluated(self, x: Tensor) -> Tensor:
        settings, draw = self.settings, self.settings.draw
        if draw is None and settings.random is not None:
            draw = int.from_bytes(np.random.bytes(7), "little")
        if draw is not None and self._reseed is not None:
            self._reseed(draw)
        if self._sites is None:
            return self.model(x)
        return self._sites(x, PassSettings(self._kappas(draw), settings.backward, draw))

    def _shaped(self, x: Tensor) -> Tensor:
        arranged = self._arranged(x)
        if self.net is not None:
            arranged = in_input_shape(self.net, arranged)
        if self.channels_last and arranged.dim() == 4:
            arranged = arranged.contiguous(memory_format=torch.channels_last)
        return arranged

    def _padded(self, x: Tensor) -> Tensor:
        """Pad a batch with copies of its last sample on a device where new batch sizes are dear."""
        missing = accelerator.padded_count(len(x), x[0].numel()) - len(x) if self.runs_apart and len(x) else 0
        return torch.cat([x, x[-1:].detach().expand(missing, *x.shape[1:])]) if missing else x

    def with_backward(self, backward: str | SiteBackward) -> TorchTarget:
        """Return a view with another backward pass at every JumpReLU site."""
        chosen = parse_backward(backward)
        if self._sites is None and chosen == SiteBackward.exact():
            return self
        self._require_sites(f"the backward pass {chosen}")
        return self._view(settings=dataclasses.replace(self.settings, backward=chosen))

    def with_kappa(self, kappa: Kappa) -> TorchTarget:
        """Return a view with another jump at the sites; None is the model's own. It undoes a random kappa."""
        if kappa is not None:
            self._require_sites("another kappa")
        return self._view(settings=dataclasses.replace(self.settings, kappa=_frozen(kappa), random=None, draw=None))

    def with_scaled_kappa(self, factor: float) -> TorchTarget:
        """Return a view whose every jump is `factor` times this view's: 0 is the ReLU network.

        The jumps that a model brought along without this package's provenance are scaled too.
        """
        validate_kappa(factor, "the factor of kappa")
        if self.settings.random is not None:
            return self.with_kappa(self.settings.random.middle * factor)
        return self.with_kappa(scaled(self.kappas("a multiple of kappa"), factor))

    def with_random_kappa(self, random: RandomKappa) -> TorchTarget:
        """Return a view that draws kappa again for every forward pass (paper, appendix C)."""
        self._require_sites("a random kappa")
        return self._view(settings=dataclasses.replace(self.settings, random=random, kappa=None, draw=None))

    def draw(self, key: int) -> TorchTarget:
        """Return a view with the randomness fixed by `key`."""
        return self._view(settings=dataclasses.replace(self.settings, draw=key)) if self.is_random else self

    def kappas(self, wanted: str = "its kappas") -> Mapping[str, SiteKappa]:
        """Return site id -> kappa of this view, unless kappa is drawn.

        Raises:
            RefusalError: The model has no sites that this package knows; `wanted` names what they are needed for.
        """
        return self._require_sites(wanted).kappas_with(self._kappas(self.settings.draw))

    def observing(self, observer: Observer) -> contextlib.AbstractContextManager[None]:
        """Return a context in which `observer(site id, z, J(z))` is called at every site of an ONNX module.

        Raises:
            RefusalError: The model is not an ONNX module.
        """
        if self.net is None:
            raise RefusalError(
                f"{type(self.model).__name__} is not an ONNX module, so its sites cannot be observed",
                hint="Load the ONNX file through jr_onnx.torchnet",
            )
        return self.net.observing(observer)

    def same_forward(self, other: Target) -> bool:
        """Whether `other` differs from this view in nothing but the backward pass."""
        if not isinstance(other, TorchTarget) or other.model is not self.model:
            return False
        mine = dataclasses.replace(self.settings, backward=other.settings.backward)
        return mine == other.settings and other.units == self.units and other.preprocessing == self.preprocessing

    def _require_sites(self, wanted: str) -> JumpNetwork:
        if self._sites is None:
            raise RefusalError(
                f"{type(self.model).__name__} takes no kappas with a call, so {wanted} cannot be set",
                hint="Attack the ONNX file through jr_onnx.torchnet, whose modules do",
            )
        return self._sites

    def _kappas(self, draw: int | None) -> Kappa:
        """Return the jump or jumps that the view asks for, drawn by a key if they are random."""
        random = self.settings.random
        if random is None or draw is None:
            chosen = self.settings.kappa
            return dict(chosen) if isinstance(chosen, tuple) else chosen
        noise = Noise(draw)
        if random.per == "network":
            return random.low + (random.high - random.low) * noise.scalar("kappa")
        sites = self.net.sites if self.net is not None else self._require_sites("a random kappa").kappas_with(None)
        return {
            name: random.low + (random.high - random.low) * noise.scalar("kappa", step)
            for step, name in enumerate(sites)
        }


class _Evaluating:
    """A context in which a module is in eval mode; its flags are as before after the last of several threads left."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._lock = threading.Lock()
        self._inside = 0
        self._trained: list[nn.Module] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._trained = [part for part in self._module.modules() if part.training]
                if self._trained:
                    self._module.eval()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for part in self._trained:
                    part.training = True


def _snapshot(model: Callable[[Tensor], Tensor], device: torch.device | str | None) -> Callable[[Tensor], Tensor]:
    """Return a model that later changes of the caller's settings do not reach, on a device; it shares the weights."""
    if isinstance(model, OnnxModule):
        twin = model.clone()
        return twin if device is None else twin.to(device)
    if not isinstance(model, nn.Module) or device is None:
        return model
    tensors = [*model.parameters(), *model.buffers()]
    if all(tensor.device == torch.device(device) for tensor in tensors):
        return model
    return copy.deepcopy(model).to(device)


def _device_of(model: Callable[[Tensor], Tensor], wanted: torch.device | str | None) -> torch.device:
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    return tensors[0].device if tensors else torch.device(wanted or "cpu")


def scaled(kappas: Mapping[str, SiteKappa], factor: float) -> dict[str, SiteKappa]:
    """Return the kappas of sites times a factor."""
    return {site: map_kappa(kappa, lambda value: value * factor) for site, kappa in kappas.items()}


def _frozen(kappa: Kappa) -> float | tuple[tuple[str, SiteKappa], ...] | None:
    if kappa is None:
        return None
    if isinstance(kappa, Mapping):
        return tuple(sorted((key, validate_site_kappa(value, f"kappa of {key!r}")) for key, value in kappa.items()))
    return validate_kappa(kappa)

"""The attacked model as attacks see it: images (N, C, H, W) in, logits (N, K) out.

A `Target` is a cheap, immutable view of a model: `with_kappa`, `with_backward`, `with_random_kappa` and `in_units`
return further views of the same model, and a view applies its settings before each evaluation. Two kinds exist:
`TorchTarget` (any torch callable, with gradients) and `ArrayTarget` (any NumPy function, black box only, for
instance an ONNX Runtime session).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from jr_onnx.attack import accelerator
from jr_onnx.attack.cpu import FastFirstConvolution
from jr_onnx.attack.noise import Noise
from jr_onnx.attack.pixels import PixelMap, Units, require_units
from jr_onnx.attack.surrogate import parse_backward
from jr_onnx.data.preprocessing import Preprocessing
from jr_onnx.errors import InputError, RefusalError
from jr_onnx.kappa import RandomKappa
from jr_onnx.semantics import validate_kappa
from jr_onnx.torchnet.jump import SiteBackward

Kappa = float | Mapping[str, float] | None
"""One jump for all sites, a map from site id to jump, or None: the model's own."""


EXACT = SiteBackward.exact()


@dataclass(frozen=True, slots=True)
class Settings:
    """What a view asks of the model before an evaluation.

    Attributes:
        kappa: As sorted pairs (site id, jump), one jump for all sites, or None for the model's own.
        backward: The backward pass at every site, or None for the model's own.
        random: Draw kappa from this range anew for every forward pass.
        draw: Fix the model's randomness to this draw.
    """

    kappa: float | tuple[tuple[str, float], ...] | None = None
    backward: SiteBackward | None = None
    random: RandomKappa | None = None
    draw: int | None = None


class Target(ABC):
    """Base of all attacked models; see the module's docstring."""

    differentiable: bool = False
    threaded: bool = False
    """Whether several threads may evaluate it at once."""

    def __init__(self, preprocessing: Preprocessing | None = None, units: Units = "pixel") -> None:
        """Remember how pixels become the model's input, and in which units attacks work."""
        require_units(units)
        self.pixel_map = PixelMap(preprocessing or Preprocessing())
        self.units: Units = units
        self.device = torch.device("cpu")
        self.dtype = torch.float32

    @property
    def runs_apart(self) -> bool:
        """Whether its device works on its own, so that asking for a value makes the host wait."""
        return accelerator.runs_apart(self.device)

    @property
    def preprocessing(self) -> Preprocessing:
        """What stands between pixels and the network."""
        return self.pixel_map.preprocessing

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and greatest valid value, in the units of the view."""
        return (0.0, 1.0) if self.units == "pixel" else self.pixel_map.value_range

    @property
    def is_random(self) -> bool:
        """Whether two evaluations of one input may differ."""
        return False

    @property
    def draws_apart(self) -> bool:
        """Whether every row of a batch has random numbers of its own, so that copies of a sample are draws of it."""
        return False

    def in_units(self, units: Units) -> Self:
        """Return a view whose inputs are pixels in [0, 1], or the paper's normalised values."""
        require_units(units)
        return self._view(units=units)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Convert pixels to the units of the view."""
        return pixels if self.units == "pixel" else self.pixel_map.normalise(pixels)

    def to_pixels(self, values: Tensor) -> Tensor:
        """Convert values in the units of the view to pixels; paper units may leave [0, 1] by design."""
        return values if self.units == "pixel" else self.pixel_map.denormalise(values)

    def snap(self, values: Tensor) -> Tensor:
        """Move values in the units of the view to ones that pixels give exactly, so that these can be stored."""
        return values if self.units == "pixel" else self.pixel_map.snap(values)

    def logits(self, x: Tensor) -> Tensor:
        """Evaluate inputs (N, C, H, W), in the units of the view, to logits (N, K)."""
        self.prepare()
        return self.evaluate(x)

    def prepare(self) -> None:  # noqa: B027 -- most models have no state to bring about
        """Bring the model into the state that this view asks for."""

    @abstractmethod
    def evaluate(self, x: Tensor) -> Tensor:
        """Evaluate inputs as `logits` does, of a model that is prepared: several threads may do so at once."""

    def draw(self, key: int) -> Target:
        """Return a view with the model's randomness fixed by `key`; a deterministic model is its own view."""
        del key
        return self

    def with_backward(self, backward: str | SiteBackward) -> Target:
        """Return a view with another backward pass at every JumpReLU site (see `parse_backward`)."""
        if parse_backward(backward) == EXACT:
            return self
        raise RefusalError(
            f"a {type(self).__name__} has no gradients, so no backward pass to replace",
            hint="Attack a TorchTarget, or use a black-box attack",
        )

    def with_kappa(self, kappa: Kappa) -> Target:
        """Return a view with another jump at the sites; None is the model's own."""
        if kappa is None:
            return self
        raise RefusalError(
            f"a {type(self).__name__} cannot change kappa", hint="Attack a TorchTarget over an ONNX module"
        )

    def same_forward(self, other: Target) -> bool:
        """Whether logits of `other` are logits of this view, so that one forward pass serves both."""
        return other is self

    def _arranged(self, x: Tensor) -> Tensor:
        ready = self.units == "paper" or self.pixel_map.is_identity
        return self.pixel_map.arrange(x if ready else self.pixel_map.normalise(x))

    def _view(self, **changes: Any) -> Self:
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view.__dict__.update(changes)
        return view


class TorchTarget(Target):
    """A torch callable: an `nn.Module`, an ONNX module of `jr_onnx.torchnet`, or a plain function.

    The module is attacked as it is given, with the kappas, derivatives and randomness that it has at this moment, in
    eval mode, and nothing of the caller's changes: what a view sets, it sets on a copy of the module that shares the
    weights, and a module in training mode is so again after each evaluation.
    """

    differentiable = True
    threaded = True

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
            model: Maps the preprocessed input to logits.
            preprocessing: Pixels to model input; none by default.
            units: Units of attacks on this view.
            device: Where to evaluate; the model's own by default.
            dtype: Floating type of the input.
            reseed: For a model that draws random numbers: fixes them for the next evaluation, given a key. A module of
                `jr_onnx.torchnet` knows that of itself.
            threaded: Whether several threads may evaluate the model at once; not one that keeps notes of a pass.
            channels_last: Lay images out channels-last in memory; by default on CUDA.
        """
        super().__init__(preprocessing, units)
        self.dtype = dtype
        model = _own(model, device, reseed)
        self.model = model
        self._as_given = _memory(model)
        self._evaluating = _Evaluating(model) if isinstance(model, nn.Module) else contextlib.nullcontext()
        self.settings = Settings()
        own: Any = model
        if reseed is None and getattr(own, "draws", False):
            reseed = own.reseed
        self._reseed = reseed
        random = getattr(model, "random", None)
        if isinstance(random, RandomKappa) and hasattr(model, "set_random"):
            # Draw here instead, where a draw has a key and can be repeated.
            self.settings = Settings(random=random)
            model.set_random(None)
        if isinstance(model, nn.Module):
            tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
            self.device = tensors[0].device if tensors else torch.device(device or "cpu")
        else:
            self.device = torch.device(device or "cpu")
        self.channels_last = self.device.type == "cuda" if channels_last is None else channels_last
        # A model that fixes its draw for the next evaluation alone has to be told before every slice.
        self.threaded = threaded and reseed is None

    @property
    def is_random(self) -> bool:
        """Whether kappa or the model itself is drawn anew in every evaluation."""
        return (self.settings.random is not None or self._reseed is not None) and self.settings.draw is None

    @property
    def draws_apart(self) -> bool:
        """Whether every row of a batch has random numbers of its own; not a kappa, which is drawn for all."""
        return self.settings.random is None and bool(getattr(self.model, "draws_apart", False))

    def evaluate(self, x: Tensor) -> Tensor:
        """Evaluate inputs (N, C, H, W) to logits (N, K), with gradients where `x` asks for them."""
        # A network of a fixed batch is mapped over pieces, which a derivative of one's own does not take part in.
        fast = self.device.type == "cpu" and getattr(self.model, "static_batch", None) is None
        convolving = FastFirstConvolution(frozen=True) if fast else contextlib.nullcontext()
        # Weights may ask for gradients, which no attack wants: only an input that does needs a graph.
        wanted = torch.is_grad_enabled() and x.requires_grad
        with self._evaluating, convolving, torch.set_grad_enabled(wanted):
            arranged = self._arranged(x)
            if self.channels_last and arranged.dim() == 4:
                arranged = arranged.contiguous(memory_format=torch.channels_last)
            result: Any = self.model(arranged)
        if not isinstance(result, Tensor) or result.dim() != 2 or result.shape[0] != x.shape[0]:
            found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise InputError(f"the model gives {found} for {x.shape[0]} images, expected logits ({x.shape[0]}, K)")
        return result.to(x.dtype)  # a network of another precision must not make every attack compute in two

    def with_backward(self, backward: str | SiteBackward) -> TorchTarget:
        """Return a view with another backward pass at every JumpReLU site."""
        chosen = parse_backward(backward)
        if chosen == EXACT and not hasattr(self.model, "set_backward"):
            return self
        if chosen != EXACT:
            self._require("set_backward", f"the backward pass {chosen}")
        return self._set(backward=chosen)

    def with_kappa(self, kappa: Kappa) -> TorchTarget:
        """Return a view with another jump at the sites; None is the model's own. It undoes a random kappa."""
        if kappa is not None:
            self._require("set_kappa", "another kappa")
        return self._set(kappa=_frozen(kappa), random=None, draw=None)

    def with_scaled_kappa(self, factor: float) -> TorchTarget:
        """Return a view whose every jump is `factor` times this view's: 0 is the ReLU network.

        The jumps that a model brought along without this package's provenance are scaled too.
        """
        validate_kappa(factor, "the factor of kappa")
        self._require("kappas", "a multiple of kappa")
        self._require("set_kappa", "a multiple of kappa")
        if self.settings.random is not None:
            middle = self.settings.random.middle
            return self.with_kappa(middle * factor)
        self.prepare()
        model: Any = self.model
        own: Mapping[str, float] = getattr(model, "all_kappas", model.kappas)
        return self.with_kappa({name: kappa * factor for name, kappa in own.items()})

    def with_random_kappa(self, random: RandomKappa) -> TorchTarget:
        """Return a view that draws kappa anew for every forward pass (paper, appendix C)."""
        self._require("set_kappa", "a random kappa")
        if random.per == "site":
            self._require("sites", "a random kappa per site")
        return self._set(random=random, kappa=None, draw=None)

    def draw(self, key: int) -> TorchTarget:
        """Return a view with the randomness fixed by `key`."""
        return self._set(draw=key) if self.is_random else self

    def same_forward(self, other: Target) -> bool:
        """Whether `other` differs from this view in nothing but the backward pass."""
        if not isinstance(other, TorchTarget) or other.model is not self.model:
            return False
        mine = dataclasses.replace(self.settings, backward=other.settings.backward)
        return mine == other.settings and other.units == self.units and other.preprocessing == self.preprocessing

    def _set(self, **changes: Any) -> TorchTarget:
        return self._view(settings=dataclasses.replace(self.settings, **changes))

    def _require(self, ability: str, what: str) -> None:
        if not hasattr(self.model, ability):
            raise RefusalError(
                f"{type(self.model).__name__} has no {ability}, so {what} cannot be set",
                hint="Attack the ONNX file through jr_onnx.torchnet, whose modules can",
            )

    def prepare(self) -> None:
        """Bring the model into this view's state; always, since another view may have used it in between."""
        settings = self.settings
        if settings.random is not None and settings.draw is None:
            settings = dataclasses.replace(settings, draw=int.from_bytes(np.random.bytes(7), "little"))
        if settings.draw is not None and self._reseed is not None:
            self._reseed(settings.draw)  # always: the model's own state moves on with each evaluation
        self._as_given()  # a map leaves the sites it does not name as they are
        model: Any = self.model
        kappa = self._kappa(settings)
        if kappa is not None:
            model.set_kappa(kappa)
        if settings.backward is not None:
            model.set_backward(settings.backward)

    def _kappa(self, settings: Settings) -> Kappa:
        """Return the jump or jumps that the settings ask for, drawn if they are random."""
        if settings.random is None:
            return dict(settings.kappa) if isinstance(settings.kappa, tuple) else settings.kappa
        low, high = settings.random.low, settings.random.high
        noise = Noise(settings.draw or 0)
        if settings.random.per == "network":
            return low + (high - low) * noise.scalar("kappa")
        sites: Any = getattr(self.model, "sites", ())
        return {str(site): low + (high - low) * noise.scalar("kappa", step) for step, site in enumerate(sites)}


class ArrayTarget(Target):
    """A NumPy function from preprocessed float32 images to logits: an ONNX Runtime session, a remote server."""

    def __init__(
        self,
        function: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
        preprocessing: Preprocessing | None = None,
        *,
        units: Units = "pixel",
        random: bool = False,
    ) -> None:
        """Wrap a function; `random` says that two calls with one input may differ."""
        super().__init__(preprocessing, units)
        self.function = function
        self._random = random

    @property
    def is_random(self) -> bool:
        """Whether two calls with one input may differ."""
        return self._random

    def evaluate(self, x: Tensor) -> Tensor:
        """Evaluate inputs (N, C, H, W) to logits (N, K), without gradients."""
        values = self._arranged(x.detach()).to(torch.float32).cpu()
        result = np.asarray(self.function(np.ascontiguousarray(values.numpy())))
        if result.ndim != 2 or result.shape[0] != x.shape[0]:
            raise InputError(f"the model gives {result.shape} for {x.shape[0]} images, expected ({x.shape[0]}, K)")
        return torch.from_numpy(np.ascontiguousarray(result, dtype=np.float32))


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


def _own(
    model: Callable[[Tensor], Tensor], device: torch.device | str | None, reseed: Callable[[int], None] | None
) -> Callable[[Tensor], Tensor]:
    """Return a model whose settings may be changed without anybody noticing; it shares the weights where it can."""
    if hasattr(model, "clone") and isinstance(model, nn.Module):
        clone: Any = model.clone
        twin: nn.Module = clone()
        return twin if device is None else twin.to(device)
    if not isinstance(model, nn.Module):
        return model
    tensors = [*model.parameters(), *model.buffers()]
    if device is not None and any(tensor.device != torch.device(device) for tensor in tensors):
        return copy.deepcopy(model).to(device)
    if reseed is None and any(hasattr(model, name) for name in ("set_kappa", "set_backward", "set_random")):
        return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    return model


def _memory(model: Any) -> Callable[[], None]:
    """Return a function that brings a model's kappas and derivatives back to what they are now."""
    if hasattr(model, "remember"):
        found: Callable[[], None] = model.remember()
        return found
    kappas = dict(model.kappas) if hasattr(model, "kappas") else None

    def restore() -> None:
        if hasattr(model, "set_kappa"):
            model.set_kappa(kappas)
        if hasattr(model, "set_backward"):
            model.set_backward(EXACT)

    return restore


def _frozen(kappa: Kappa) -> float | tuple[tuple[str, float], ...] | None:
    if kappa is None:
        return None
    if isinstance(kappa, Mapping):
        return tuple(sorted((key, validate_kappa(value, f"kappa of {key!r}")) for key, value in kappa.items()))
    return validate_kappa(kappa)

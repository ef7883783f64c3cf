"""The attacked model as attacks see it: images (N, C, H, W) in, logits (N, K) out.

A `Target` is a cheap, immutable view of a model: `with_kappa`, `with_backward`, `with_random_kappa` and `in_units`
return further views of the same model. Two kinds exist: `TorchTarget` (any torch callable, with gradients) and
`ArrayTarget` (any NumPy function, black box only, for instance an ONNX Runtime session).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jr_onnx.attack import accelerator
from jr_onnx.attack.pixels import PixelMap, Units, require_units
from jr_onnx.attack.surrogate import parse_backward
from jr_onnx.data.preprocessing import Preprocessing
from jr_onnx.errors import InputError, RefusalError
from jr_onnx.semantics import SiteKappa
from jr_onnx.torchnet.jump import SiteBackward

Kappa = float | Mapping[str, float] | Mapping[str, SiteKappa] | None
"""One jump for all sites, a map from site id to jump, or None: the model's own."""


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

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Evaluate inputs (N, C, H, W), in the units of the view, to logits (N, K)."""

    def draw(self, key: int) -> Target:
        """Return a view with the model's randomness fixed by `key`; a deterministic model is its own view."""
        del key
        return self

    def with_backward(self, backward: str | SiteBackward) -> Target:
        """Return a view with another backward pass at every JumpReLU site (see `parse_backward`)."""
        if parse_backward(backward) == SiteBackward.exact():
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
        """Wrap a function; `random` means that two calls with one input may differ."""
        super().__init__(preprocessing, units)
        self.function = function
        self._random = random

    @property
    def is_random(self) -> bool:
        """Whether two calls with one input may differ."""
        return self._random

    def logits(self, x: Tensor) -> Tensor:
        """Evaluate inputs (N, C, H, W) to logits (N, K), without gradients."""
        values = self._arranged(x.detach()).to(torch.float32).cpu()
        result = np.asarray(self.function(np.ascontiguousarray(values.numpy())))
        if result.ndim != 2 or result.shape[0] != x.shape[0]:
            raise InputError(f"the model gives {result.shape} for {x.shape[0]} images, expected ({x.shape[0]}, K)")
        return torch.from_numpy(np.ascontiguousarray(result, dtype=np.float32))

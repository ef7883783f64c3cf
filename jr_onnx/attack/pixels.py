"""The torch side of `jr_onnx.data.Preprocessing`: from pixels to a network's input inside the attacked model.

    value = ((low + pixel * (high - low)) - mean) / std        per channel, then NCHW or NHWC

Attacks see pixels in [0, 1]. Under paper units they see `value`, still as (N, C, H, W): there the paper's authors
attack and measure, and 0.01 of their MNIST is 0.00308 of the pixel range.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from jr_onnx.data.preprocessing import Preprocessing
from jr_onnx.errors import InputError

Units = Literal["pixel", "paper"]


class PixelMap:
    """Applies and inverts a preprocessing on tensors, with gradients."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        """Remember the preprocessing."""
        self.preprocessing = preprocessing
        self._low, high = preprocessing.range
        self._span = high - self._low
        self._factors: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self._is_unit = (self._low, self._span) == (0.0, 1.0)
        self.is_identity = self._is_unit and set(preprocessing.mean) == {0.0} and set(preprocessing.std) == {1.0}

    def check_channels(self, channels: int) -> None:
        """Refuse images whose number of channels does not fit the preprocessing.

        Raises:
            DataError: It does not fit.
        """
        self.preprocessing.affine(channels)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Map pixels (N, C, H, W) to values of the same shape."""
        mean, std = self._mean_std(pixels)
        scaled = pixels if self._is_unit else self._low + pixels * self._span
        return (scaled - mean) / std

    def denormalise(self, values: Tensor) -> Tensor:
        """Map values (N, C, H, W) back to pixels, whose `normalise` is the values bit for bit if there are such.

        Corrections undo what rounding has done; without them an image would come back beside what was judged.
        """
        factor = self._mean_std(values)[1].double() / self._span
        pixels = self._inverted(values)
        for share in (1.0, 1.0, 0.5, 0.5, 0.5):  # whole steps may oscillate
            found = self.normalise(pixels)
            if torch.equal(found, values):
                break
            missing = values.double() - found.double()
            pixels = (pixels.double() + share * missing * factor).to(values.dtype)
        return pixels

    def snap(self, values: Tensor) -> Tensor:
        """Move values (N, C, H, W) to the nearest ones that belong to pixels: by a rounding or two."""
        return self.normalise(self._inverted(values))

    def _inverted(self, values: Tensor) -> Tensor:
        mean, std = self._mean_std(values)
        scaled = (values * std).add_(mean)
        return scaled if self._is_unit else scaled.sub_(self._low).div_(self._span)

    def arrange(self, values: Tensor) -> Tensor:
        """Lay values (N, C, H, W) out as the network wants them."""
        if self.preprocessing.order == "BGR":
            values = values.flip(1)
        return values if self.preprocessing.layout == "NCHW" else values.permute(0, 2, 3, 1)

    @property
    def value_range(self) -> tuple[float, float]:
        """The least and greatest value of any valid pixel of any channel.

        The authors clip to the least and greatest value of the batch, one range for all channels; on any batch of
        natural images that is this range.
        """
        channels = max(len(self.preprocessing.mean), len(self.preprocessing.std))
        pixels = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, channels, 1, 1)
        least, most = self.normalise(pixels).aminmax()  # as float32 gives them, so that a clipped value is a pixel's
        return float(least), float(most)

    def _mean_std(self, like: Tensor) -> tuple[Tensor, Tensor]:
        key = (like.device, like.dtype)
        if key not in self._factors:
            mean = torch.tensor(self.preprocessing.mean, dtype=like.dtype, device=like.device)
            std = torch.tensor(self.preprocessing.std, dtype=like.dtype, device=like.device)
            self._factors[key] = (mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1))
        return self._factors[key]


def require_units(units: str) -> None:
    """Refuse units that are neither pixels nor the paper's."""
    if units not in ("pixel", "paper"):
        raise InputError(f"the units are {units!r}, expected pixel or paper")

"""Training images in batches: an order, shifts and noise that depend on seed, epoch and step alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jr_onnx.data import ImageData
from jr_onnx.harden.augmentation import draw_moves, move
from jr_onnx.harden.recipe import Augmentation, Recipe

_COLOURS = 3
_MARGIN_SHARE = 8


class Batches:
    """The images of a split on a device, in the file's own type until a batch is asked for.

    Args:
        data: Labelled images.
        recipe: How they are used.
        device: Where batches are wanted.
    """

    def __init__(self, data: ImageData, recipe: Recipe, device: torch.device) -> None:
        # Kept as (N, H, W, C), from which whole pixels are gathered.
        self._pixels = torch.from_numpy(np.ascontiguousarray(data.pixels)).to(device).permute(0, 2, 3, 1).contiguous()
        self._labels = torch.from_numpy(data.labels).to(device)
        self._scale, self._recipe, self._device = data.scale, recipe, device
        self._margin = _margin(recipe.augmentation, data.shape)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def steps(self) -> int:
        """Steps of an epoch; images that fill no batch wait for the next epoch."""
        return max(1, len(self) // self._recipe.batch)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[int, Tensor, Tensor, torch.Generator]]:
        """Yield (step, pixels (N, C, H, W) in [0, 1], labels (N,), generator of the step) from step `first` on.

        The generator is on the CPU, where its numbers are the same whatever the device.
        """
        seed = self._recipe.seed
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(_key(seed, epoch, -1)))
        for step in range(first, self.steps):
            generator = torch.Generator().manual_seed(_key(seed, epoch, step))
            chosen = order[step * self._recipe.batch : (step + 1) * self._recipe.batch].to(self._device)
            pixels = self._pixels[chosen]
            if self._margin:
                moves = draw_moves(len(chosen), self._margin, generator, mirror=True)
                pixels = move(pixels, moves.to(self._device), self._margin)
            images = pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32) / self._scale
            yield step, images, self._labels[chosen], generator


def _key(seed: int, epoch: int, step: int) -> int:
    # Wide apart, so that no two steps of any run share a stream.
    return (seed * 1_000_003 + epoch) * 10_000_019 + step + 1 & (1 << 63) - 1


def _margin(augmentation: Augmentation, shape: tuple[int, int, int]) -> int:
    """Return by how many pixels images (C, H, W) are moved at most, 0 where they are not augmented."""
    channels, height, _ = shape
    if augmentation == "none" or (augmentation == "auto" and channels != _COLOURS):
        return 0
    return max(1, height // _MARGIN_SHARE)


def first_images(data: ImageData, count: int) -> tuple[Tensor, Tensor]:
    """Return the first images of a split as tensors (N, C, H, W) and (N,)."""
    part = data.take(np.arange(min(count, len(data))))
    labels: npt.NDArray[np.int64] = part.labels
    return torch.from_numpy(part.images), torch.from_numpy(labels)

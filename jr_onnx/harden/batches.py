"""Training images in batches: an order, shifts and noise that depend on seed, epoch and step alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from jr_onnx.data import ImageData
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
        self._pixels = torch.from_numpy(np.ascontiguousarray(data.pixels)).to(device)
        self._labels = torch.from_numpy(data.labels).to(device)
        self._scale, self._recipe, self._device = data.scale, recipe, device
        self._augmentation = augmentation_of(recipe.augmentation, data.shape[0])

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
            pixels = self._pixels[chosen].to(torch.float32) / self._scale
            yield step, augment(pixels, self._augmentation, generator), self._labels[chosen], generator


def _key(seed: int, epoch: int, step: int) -> int:
    # Wide apart, so that no two steps of any run share a stream.
    return (seed * 1_000_003 + epoch) * 10_000_019 + step + 1 & (1 << 63) - 1


def augmentation_of(augmentation: Augmentation, channels: int) -> Augmentation:
    """Return the augmentation for images of so many channels."""
    if augmentation != "auto":
        return augmentation
    return "crop_flip" if channels == _COLOURS else "none"


def augment(pixels: Tensor, kind: Augmentation, generator: torch.Generator) -> Tensor:
    """Move each image by its own random offset over a black border, and mirror half of them.

    Args:
        pixels: (N, C, H, W) in [0, 1].
        kind: none or crop_flip.
        generator: Source of the offsets, on the CPU.
    """
    if kind == "none":
        return pixels
    count, _, height, width = pixels.shape
    margin = max(1, height // _MARGIN_SHARE)
    offsets = torch.randint(0, 2 * margin + 1, (2, count), generator=generator).to(pixels.device)
    mirrored = (torch.rand(count, generator=generator) < 0.5).to(pixels.device)
    rows = offsets[0][:, None] + torch.arange(height, device=pixels.device)
    columns = offsets[1][:, None] + torch.arange(width, device=pixels.device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = functional.pad(pixels, (margin, margin, margin, margin))
    images = torch.arange(count, device=pixels.device)[:, None, None]
    # Index arrays (N, H, W) on axes 0, 2 and 3 give (N, H, W, C).
    return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def first_images(data: ImageData, count: int) -> tuple[Tensor, Tensor]:
    """Return the first images of a split as tensors (N, C, H, W) and (N,)."""
    part = data.take(np.arange(min(count, len(data))))
    labels: npt.NDArray[np.int64] = part.labels
    return torch.from_numpy(part.images), torch.from_numpy(labels)

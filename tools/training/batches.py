"""From stored bytes to a training batch: order, augmentation, normalisation, adversarial images.

Everything random comes from a generator seeded by (seed, epoch): a resumed run equals one that never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from jr_onnx.data import ImageData, Preprocessing
from tools.training.recipe import Augmentation, Recipe

_MARGIN = {"none": 0, "shift": 1, "crop_flip": 4}


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Return the generator of an epoch."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


class Batches:
    """The training images on one device, kept in their stored type and turned into floats a batch at a time."""

    def __init__(self, data: ImageData, preprocessing: Preprocessing, device: torch.device) -> None:
        self._pixels = torch.from_numpy(data.pixels.copy()).to(device)
        self._labels = torch.from_numpy(data.labels.copy()).to(device)
        self._scale = data.scale
        scale, offset = preprocessing.affine(data.shape[0])
        self._gain = torch.tensor(scale, dtype=torch.float32, device=device)[:, None, None]
        self._offset = torch.tensor(offset, dtype=torch.float32, device=device)[:, None, None]

    def epoch(self, recipe: Recipe, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images and labels in this epoch's order; an incomplete last batch is dropped."""
        generator = epoch_generator(recipe.seed, epoch)
        order = torch.randperm(len(self._labels), generator=generator)
        # Fewer images than one batch are one batch: dropping it would train nothing.
        size = min(recipe.batch, len(order))
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size].to(self._labels.device)
            pixels = self._pixels[chosen].to(torch.float32) / self._scale
            pixels = augment(pixels, recipe.augmentation, generator)
            yield pixels * self._gain + self._offset, self._labels[chosen]

    def in_order(self, size: int = 512) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all normalised images and labels, in the order of the data."""
        for start in range(0, len(self._labels), size):
            pixels = self._pixels[start : start + size].to(torch.float32) / self._scale
            yield pixels * self._gain + self._offset, self._labels[start : start + size]


def augment(pixels: Tensor, kind: Augmentation, generator: torch.Generator) -> Tensor:
    """Move each image by its own random offset over a black border, and mirror some.

    Args:
        pixels: (N, C, H, W) in [0, 1].
        kind: See `Recipe.augmentation`.
        generator: Source of the offsets, on the CPU.
    """
    margin = _MARGIN[kind]
    if margin == 0:
        return pixels
    count, _, height, width = pixels.shape
    offsets = torch.randint(0, 2 * margin + 1, (2, count), generator=generator).to(pixels.device)
    rows = offsets[0][:, None] + torch.arange(height, device=pixels.device)
    columns = offsets[1][:, None] + torch.arange(width, device=pixels.device)
    if kind == "crop_flip":
        mirrored = (torch.rand(count, generator=generator) < 0.5).to(pixels.device)
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = functional.pad(pixels, (margin, margin, margin, margin))
    images = torch.arange(count, device=pixels.device)[:, None, None]
    # Indexing with (N, H, W) index arrays on axes 0, 2, 3 gives (N, H, W, C).
    return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def mix_adversarial(model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """Replace the first part of a batch by its FGSM images (paper, section 4.1), in units of the normalised input.

    The gradient is that of the evaluation mode; the result is clipped to the range of the batch. The model is in
    training mode afterwards.
    """
    count = int(len(images) * recipe.adversarial_fraction)
    if count == 0:
        return images
    model.eval()
    start = images[:count].detach().clone().requires_grad_(True)
    loss = functional.cross_entropy(model(start), labels[:count])
    (gradient,) = torch.autograd.grad(loss, start)
    model.train()
    moved = start.detach() + recipe.adversarial_eps * gradient.sign()
    moved = moved.clamp(float(images.min()), float(images.max()))
    return torch.cat([moved, images[count:]])

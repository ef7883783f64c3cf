"""From stored bytes to a training batch: order, augmentation, normalisation, adversarial images.

Everything random is drawn on the CPU by a generator seeded by (seed, epoch): a resumed run equals one that never
stopped. It is drawn for a whole epoch and moved to the device once, so that no batch waits for the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from jr_onnx.data import ImageData, Preprocessing
from jr_onnx.harden.augmentation import draw_moves, move
from tools.training.recipe import Precision, Recipe

MARGINS = {"none": 0, "shift": 1, "crop_flip": 4}


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Return the generator of an epoch."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


class Batches:
    """The training images on one device, kept in their stored type and turned into floats a batch at a time.

    Args:
        data: The images.
        preprocessing: From pixel scale to the network's input.
        device: Where they are kept, and where the batches are made.
        channels_last: Yield images (N, C, H, W) whose channels lie side by side in memory.
    """

    def __init__(
        self, data: ImageData, preprocessing: Preprocessing, device: torch.device, *, channels_last: bool = False
    ) -> None:
        # Kept as (N, H, W, C), from which whole pixels are gathered.
        self._pixels = torch.from_numpy(data.pixels.copy()).to(device).permute(0, 2, 3, 1).contiguous()
        self._labels = torch.from_numpy(data.labels.copy()).to(device)
        self._scale = data.scale
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        scale, offset = preprocessing.affine(data.shape[0])
        self._gain = torch.tensor(scale, dtype=torch.float32, device=device)[:, None, None]
        self._offset = torch.tensor(offset, dtype=torch.float32, device=device)[:, None, None]

    def steps(self, recipe: Recipe) -> int:
        """Return the number of batches in an epoch."""
        return len(self._labels) // self._size(recipe)

    def epoch(self, recipe: Recipe, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images and labels in this epoch's order; an incomplete last batch is dropped."""
        generator = epoch_generator(recipe.seed, epoch)
        device = self._labels.device
        size, steps = self._size(recipe), self.steps(recipe)
        order = torch.randperm(len(self._labels), generator=generator)[: size * steps].to(device)
        pixels, margin = self._pixels[order], MARGINS[recipe.augmentation]
        if margin:
            mirror = recipe.augmentation == "crop_flip"
            moves = [draw_moves(size, margin, generator, mirror=mirror) for _ in range(steps)]
            pixels = move(pixels, torch.cat(moves, 1).to(device), margin)
        labels = self._labels[order]
        for start in range(0, size * steps, size):
            yield self._normalised(pixels[start : start + size]), labels[start : start + size]

    def in_order(self, size: int = 1000) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all normalised images and labels, in the order of the data."""
        for start in range(0, len(self._labels), size):
            yield self._normalised(self._pixels[start : start + size]), self._labels[start : start + size]

    def _size(self, recipe: Recipe) -> int:
        # Fewer images than one batch are one batch: dropping it would train nothing.
        return min(recipe.batch, len(self._labels))

    def _normalised(self, pixels: Tensor) -> Tensor:
        images = pixels.permute(0, 3, 1, 2).contiguous(memory_format=self._format)
        return images.to(torch.float32) / self._scale * self._gain + self._offset


def logits(model: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """Return the model's logits (N, classes) in float32, computed in this precision."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        result: Tensor = model(images)
    return result.float()


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
    loss = functional.cross_entropy(logits(model, start, recipe.precision), labels[:count])
    (gradient,) = torch.autograd.grad(loss, start)
    model.train()
    moved = start.detach() + recipe.adversarial_eps * gradient.sign()
    # The bounds stay tensors: reading them would wait for the device at every step.
    moved = moved.clamp(images.amin(), images.amax())
    return torch.cat([moved, images[count:]])

"""Check what a caller hands to an attack, once, and turn it into tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jr_onnx.attack.target import Target
from jr_onnx.element_types import Array
from jr_onnx.errors import InputError


@dataclass(frozen=True, slots=True)
class Samples:
    """Checked samples on the target's device.

    Attributes:
        pixels: Images (N, C, H, W) in [0, 1].
        labels: Classes (N,), int64.
        goals: Wanted classes (N,), or None.
        indices: Global indices (N,).
    """

    pixels: Tensor
    labels: Tensor
    goals: Tensor | None
    indices: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.indices)

    def part(self, start: int, stop: int) -> Samples:
        """Return consecutive samples."""
        goals = None if self.goals is None else self.goals[start:stop]
        return Samples(self.pixels[start:stop], self.labels[start:stop], goals, self.indices[start:stop])


def check(
    images: Tensor | Array,
    labels: Tensor | Array,
    goals: Tensor | Array | None,
    indices: npt.NDArray[np.int64] | None,
    target: Target,
) -> Samples:
    """Validate the arguments of `Attack.run`.

    Raises:
        InputError: A shape, dtype or value is not what `Attack.run` documents.
    """
    pixels = torch.as_tensor(images).detach()
    if pixels.dim() != 4 or 0 in pixels.shape:
        raise InputError(f"the images have the shape {tuple(pixels.shape)}, expected (N, C, H, W), none of them 0")
    if not pixels.is_floating_point():
        raise InputError(
            f"the images are {pixels.dtype}, expected floating-point pixels in [0, 1]",
            hint="Divide bytes by 255",
        )
    pixels = pixels.to(device=target.device, dtype=target.dtype)
    least, most = float(pixels.min()), float(pixels.max())
    if not (least >= 0.0 and most <= 1.0):  # also refuses NaN
        raise InputError(
            f"the images range from {least:g} to {most:g}, expected pixels in [0, 1]",
            hint="Preprocessing (mean, std, range) belongs into the target",
        )
    target.pixel_map.check_channels(pixels.shape[1])
    count = len(pixels)
    classes = _classes(labels, "labels", count).to(target.device)
    wanted = None if goals is None else _classes(goals, "goals", count).to(target.device)
    if wanted is not None and bool((wanted == classes).any()):
        row = int((wanted == classes).nonzero()[0, 0])
        raise InputError(f"the goal of sample {row} is its own label {int(classes[row])}, expected another class")
    keys = np.arange(count) if indices is None else np.asarray(indices)
    if keys.shape != (count,) or not np.issubdtype(keys.dtype, np.integer):
        raise InputError(f"the indices are {keys.dtype} {keys.shape}, expected {count} integers")
    return Samples(pixels, classes, wanted, keys.astype(np.int64))


def require_classes(classes: int) -> None:
    """Refuse a model with fewer than two logits.

    Raises:
        InputError: There are fewer.
    """
    if classes < 2:
        raise InputError(
            f"the model has {classes} logit{'s' if classes != 1 else ''}, expected one for each of two or more classes",
            hint="A single score can be made two: append Concat(-z, z) to the model",
        )


def check_classes(samples: Samples, classes: int) -> None:
    """Refuse a model that is not a classifier, and labels and goals that it has no logit for.

    Raises:
        InputError: There are fewer than two logits, or too few for a label or a goal.
    """
    require_classes(classes)
    for what, values in (("label", samples.labels), ("goal", samples.goals)):
        if values is not None and int(values.max()) >= classes:
            raise InputError(f"the largest {what} is {int(values.max())}, the model has {classes} classes")


def _classes(values: Tensor | Array, what: str, count: int) -> Tensor:
    found = torch.as_tensor(values).detach()
    if found.shape != (count,):
        raise InputError(f"the {what} have the shape {tuple(found.shape)}, expected ({count},), one per image")
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise InputError(f"the {what} are {found.dtype}, expected integers")
    if bool((found < 0).any()):
        raise InputError(f"the smallest {what[:-1]} is {int(found.min())}, expected 0 or more")
    return found.to(torch.int64)

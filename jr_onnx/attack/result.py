"""What an attack found, measured by the base class and not by the attack."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jr_onnx.attack.norms import Norm
from jr_onnx.attack.pixels import Units
from jr_onnx.errors import InputError


@dataclass(frozen=True, slots=True)
class AttackResult:
    """One row per sample, in the order given.

    Attributes:
        indices: Global sample indices (N,), int64.
        adversarials: Images in pixels (N, C, H, W); the clean image where nothing usable was found.
        correct: The clean image is classified correctly, with finite logits (N,).
        success: The adversarial is misclassified (or classified as the goal) with finite logits (N,). True, at
            distance 0, where the clean image already was.
        fooling_rate: Share of repeated evaluations that were fooled (N,); 0 or 1 unless the model is random.
        distances: Per norm, the size of the perturbation in the units of the attack (N,), float64.
        relative: Per norm, that size over the size of the clean image (paper, eq. 12) (N,).
        iterations: Steps taken until success or the end (N,).
        forward: Forward passes (N,).
        backward: Backward passes (N,).
        nonfinite: Events with a NaN or an infinity in logits, gradient or candidate (N,).
        zero_gradient: Steps whose gradient was zero everywhere (N,).
        units: Units of `distances`.
    """

    indices: npt.NDArray[np.int64]
    adversarials: Tensor
    correct: Tensor
    success: Tensor
    fooling_rate: Tensor
    distances: dict[str, Tensor]
    relative: dict[str, Tensor]
    iterations: Tensor
    forward: Tensor
    backward: Tensor
    nonfinite: Tensor
    zero_gradient: Tensor
    units: Units

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.indices)

    @property
    def robust(self) -> Tensor:
        """Samples (N,) that are classified correctly and stay so under this attack."""
        return self.correct & ~self.success

    @property
    def clean_accuracy(self) -> float:
        """Share of samples classified correctly before the attack."""
        return float(self.correct.double().mean())

    @property
    def robust_accuracy(self) -> float:
        """Share of samples classified correctly before and after the attack."""
        return float(self.robust.double().mean())

    def minimal_distances(self, norm: Norm) -> Tensor:
        """Return the distances (N,) with infinity where the attack failed: what a minimal perturbation means."""
        failed = torch.full_like(self.distances[norm], math.inf)
        return torch.where(self.success, self.distances[norm], failed)

    @classmethod
    def join(cls, parts: Sequence[AttackResult]) -> AttackResult:
        """Put the results of consecutive chunks together.

        Raises:
            InputError: There is no part, or the parts use different units.
        """
        if not parts:
            raise InputError("there is no result to join")
        units = {part.units for part in parts}
        if len(units) > 1:
            raise InputError(f"the results are in different units: {', '.join(sorted(units))}")
        merged: dict[str, Any] = {"units": parts[0].units}
        for field in dataclasses.fields(cls):
            values = [getattr(part, field.name) for part in parts]
            if field.name == "indices":
                merged[field.name] = np.concatenate(values)
            elif isinstance(values[0], dict):
                merged[field.name] = {key: torch.cat([value[key] for value in values]) for key in values[0]}
            elif isinstance(values[0], Tensor):
                merged[field.name] = torch.cat(values)
        return cls(**merged)

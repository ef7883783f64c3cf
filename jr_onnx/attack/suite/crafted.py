"""Judge adversarial examples that were made elsewhere: the paper's gray box (paper, section 4.1.1).

There an attack runs on the ReLU network alone, stops where *that* network is fooled, and the result is shown to
another network. `Crafted` takes such results through the base class of all attacks, which measures them as it
measures every other attack's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jr_onnx.attack.base import Attack, Problem
from jr_onnx.attack.norms import Norm
from jr_onnx.attack.result import AttackResult
from jr_onnx.attack.target import Target


@dataclass(frozen=True, kw_only=True)
class Crafted(Attack):
    """Not an attack: points that another one found.

    Attributes:
        points: Images (N, C, H, W), in the units of the target.
        first: Global index of the first; the others follow.
    """

    name: ClassVar[str] = "crafted"
    needs_gradient: ClassVar[bool] = False

    points: Tensor = field(default_factory=lambda: torch.zeros(0, 1, 1, 1))
    first: int = 0

    def _search(self, problem: Problem) -> Tensor:
        rows = torch.from_numpy(np.ascontiguousarray(problem.indices - self.first))
        return self.points.to(problem.images.device)[rows.to(self.points.device)]


def judged(
    found: AttackResult,
    target: Target,
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    *,
    norm: Norm,
    batch_size: int,
) -> AttackResult:
    """Judge on `target` what an attack found on another model.

    Args:
        found: The result of the attack, on consecutive samples.
        target: The model to judge on, in the units of the attack.
        images: The clean pixels (N, C, H, W).
        labels: True classes (N,).
        norm: The attack's norm.
        batch_size: Samples in memory at once.

    Returns:
        Success and distances as the target sees them; passes and counts are those of the attack.
    """
    clean, points = target.from_pixels(torch.from_numpy(images)), target.from_pixels(found.adversarials)
    unchanged = (found.adversarials == torch.from_numpy(images)).flatten(1).all(1)
    points = torch.where(unchanged.view(-1, 1, 1, 1), clean, points)
    crafted = Crafted(norm=norm, points=points, first=int(found.indices[0]) if len(found) else 0)
    result = crafted.run(target, images, labels, indices=found.indices, batch_size=batch_size)
    return replace(
        result,
        iterations=found.iterations,
        forward=found.forward,
        backward=found.backward,
        nonfinite=found.nonfinite + result.nonfinite,
        zero_gradient=found.zero_gradient,
    )

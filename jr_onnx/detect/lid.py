"""Local intrinsic dimensionality: how fast the number of neighbours grows around a point (Ma et al., 2018).

    LID(x) = -k / sum_i log(r_i(x) / r_k(x)),    r_1 <= ... <= r_k: distances to the k nearest reference points

A feature per layer: the images, the output of every site, the logits. The reference points are clean images that are
no query in any form, so that no query ever meets itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jr_onnx.attack.torch_target import TorchTarget
from jr_onnx.errors import InputError

Floats = npt.NDArray[np.float64]

_SMALLEST = 1e-12
LARGEST = 1e4
"""LID where all k neighbours are equally far, which the formula makes infinite."""


def lid(queries: Tensor, reference: Tensor, neighbours: int) -> Tensor:
    """Return the LID (N,) of queries (N, D) with respect to reference points (M, D).

    Raises:
        InputError: There are fewer reference points than neighbours.
    """
    if not 2 <= neighbours <= len(reference):
        raise InputError(
            f"{neighbours} neighbours were asked for among {len(reference)} reference points, expected 2 to that many"
        )
    # Not by matrix product: a distance far below the norms of its ends would drown in rounding.
    distances = torch.cdist(queries, reference, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distances.double().topk(neighbours, largest=False).values.sort(dim=1).values.clamp_min(_SMALLEST)
    total = (nearest / nearest[:, -1:]).log().sum(1)
    return (-neighbours / total).nan_to_num(posinf=LARGEST, nan=LARGEST, neginf=LARGEST).clamp(0, LARGEST)


class LidFeatures:
    """Turns images into LIDs, one per layer, with respect to fixed clean images."""

    def __init__(
        self,
        target: TorchTarget,
        reference: npt.NDArray[np.float32],
        *,
        neighbours: int = 20,
        batch: int = 100,
    ) -> None:
        """Evaluate the reference images.

        Args:
            target: Takes pixels; a view of an `OnnxModule`, whose sites are observed.
            reference: Clean pixels (M, C, H, W).
            neighbours: k.
            batch: Images evaluated at once.
        """
        self.target, self.neighbours, self.batch = target, neighbours, batch
        layers = [self._layers(torch.from_numpy(part)) for part in self._parts(reference)]
        self.names = tuple(layers[0]) if layers else ()
        self._reference = {name: torch.cat([layer[name] for layer in layers]) for name in self.names}

    def __call__(self, pixels: npt.NDArray[np.float32]) -> Floats:
        """Return the features (N, layers) of pixels (N, C, H, W)."""
        rows = []
        for part in self._parts(pixels):
            layers = self._layers(torch.from_numpy(part))
            found = [lid(layers[name], self._reference[name], self.neighbours) for name in self.names]
            rows.append(torch.stack(found, dim=1).cpu().numpy())
        result: Floats = np.concatenate(rows) if rows else np.zeros((0, len(self.names)))
        return result

    def _parts(self, pixels: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        return [pixels[start : start + self.batch] for start in range(0, len(pixels), self.batch)]

    def _layers(self, pixels: Tensor) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {"input": pixels.flatten(1)}

        def note(name: str, _: Tensor, activation: Tensor) -> None:
            seen[name] = activation.detach().flatten(1).float().clone()

        with torch.no_grad(), self.target.observing(note):
            logits = self.target.logits(pixels.to(self.target.device))
        seen["logits"] = logits.float()
        return {name: value.cpu() for name, value in seen.items()}

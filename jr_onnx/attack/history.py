"""The last judged point of every sample of a batch and its logits, so that nothing is judged twice."""

from __future__ import annotations

import torch
from torch import Tensor

from jr_onnx.attack.accelerator import overwrite_rows


class JudgeHistory:
    """The last point of every sample of a batch that was judged, and the logits that the judge gave it.

    Attributes:
        logits: Of the last points (n, K); None before the first question.
        clean_logits: Of the clean images (n, K), if the first question was about all of them; else None.
    """

    def __init__(self, images: Tensor) -> None:
        """Start without any judgement of clean images (n, C, H, W)."""
        self.logits: Tensor | None = None
        self.clean_logits: Tensor | None = None
        self._images = images
        self._last = torch.full_like(images, float("nan"))  # which is equal to nothing

    def record(self, x: Tensor, rows: Tensor, logits: Tensor, final: Tensor | None = None) -> None:
        """Record logits (m, K) of points (m, C, H, W) of the samples `rows` (m,).

        `final` (m,) names those that may end here; the points of the others are not worth a copy.
        """
        if self.logits is None:
            self.logits = logits.new_zeros(len(self._images), logits.shape[1])
            if torch.equal(rows, torch.arange(len(self._images), device=rows.device)) and torch.equal(x, self._images):
                self.clean_logits = logits.detach().clone()
        if final is not None:
            overwrite_rows(self._last, rows, final, x.detach())
            overwrite_rows(self.logits, rows, final, logits)
            return
        self._last[rows] = x.detach()
        self.logits[rows] = logits

    def is_last(self, x: Tensor) -> Tensor:
        """Return which of the points (n, C, H, W) are the last ones that were judged (n,)."""
        return (self._last == x).flatten(1).all(1)

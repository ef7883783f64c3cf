"""Full float32 precision on CUDA: what torch computes there is a claim about the model, not an estimate of it.

PyTorch lets cuDNN convolve float32 in TF32, with 11 bits in every product, unless told otherwise; a decision near a
class boundary, or a pre-activation near kappa, then differs from what the model defines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Switch TF32 off, and use cuDNN's repeatable algorithms without trials, for work on a CUDA device."""
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = False, False, True, False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before

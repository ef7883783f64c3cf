"""How exactly torch computes: in full float32 precision on CUDA, and the same in every run.

What torch computes is a claim about the model, not an estimate of it. PyTorch lets cuDNN convolve float32 in TF32, with
11 bits in every product, unless told otherwise; a decision near a class boundary, or a pre-activation near kappa, then
differs from what the model defines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Switch TF32 off, and use cuDNN's repeatable algorithms without trials, for work on a CUDA device."""
    with _tf32(device, allowed=False):
        yield


@contextlib.contextmanager
def tf32_precision(device: torch.device) -> Iterator[None]:
    """Let convolutions and products of float32 use TF32 on a CUDA device, repeatably."""
    with _tf32(device, allowed=True):
        yield


@contextlib.contextmanager
def _tf32(device: torch.device, *, allowed: bool) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = allowed, allowed, True, False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


@contextlib.contextmanager
def repeatable_operators(wanted: bool, *, warn_only: bool = False) -> Iterator[None]:
    """Refuse operators whose result changes from run to run, or allow them.

    Args:
        wanted: Whether to refuse them.
        warn_only: Warn instead, as is needed on a GPU, where some operators have no repeatable form.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(wanted, warn_only=warn_only)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])

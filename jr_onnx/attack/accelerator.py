"""What makes attacks fast on a device that works on its own, as a GPU does.

The host queues operators on the device without waiting. Whatever needs a value of a tensor on the host (`bool(t)`,
`t.item()`, a boolean mask as an index) waits until the device has done everything before it. So on such a device a
sample that is fooled stays in the batch, idle, and idle samples are taken out together every few steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SLICE_VALUES = 2048 * 3 * 32 * 32
"""Input values in one evaluation: with activations for the backward pass some 20 GB of a WideResNet's."""
BATCH = 10_000
"""Samples in a batch on such a device; they are evaluated in slices."""
BLOCK = 5_000
"""Samples in a unit of work on such a device."""


def runs_apart(device: torch.device) -> bool:
    """Return whether a device works on its own, so that asking for a value makes the host wait."""
    return device.type != "cpu"


def named(device: torch.device) -> str:
    """Return the name of a device for a record of results: "cpu", or the model of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def slices(count: int, values: int) -> list[slice]:
    """Cut `count` samples of `values` entries each into even slices that fit into a GPU's memory."""
    most = max(1, _SLICE_VALUES // values)
    size = max(1, -(-count // max(1, -(-count // most))))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)] or [slice(0, 0)]


def padded_count(count: int, values: int) -> int:
    """Return the size to which a batch of `count` samples of `values` entries each is padded.

    A convolution library prepares every layer again for every batch size that it has not seen, which takes longer than
    the computation. There are some fifteen padded sizes: eighths of a slice, and powers of two below.
    """
    step = max(1, _SLICE_VALUES // values // 8)
    if count >= step:
        return -(-count // step) * step
    return min(step, 1 << max(0, count - 1).bit_length())


def overwrite(target: Tensor, chosen: Tensor, values: Tensor) -> None:
    """Set `target[chosen] = values[chosen]` in place for a mask (n,), without waiting for the device."""
    if runs_apart(target.device):
        target.copy_(torch.where(chosen.view(-1, *([1] * (target.dim() - 1))), values, target))
    else:
        target[chosen] = values[chosen]  # moves the chosen rows alone


def overwrite_rows(target: Tensor, rows: Tensor, chosen: Tensor, values: Tensor) -> None:
    """Set `target[rows[chosen]] = values[chosen]` in place; see `overwrite`."""
    if runs_apart(target.device):
        kept = target[rows]
        target[rows] = torch.where(chosen.view(-1, *([1] * (values.dim() - 1))), values, kept)
    else:
        target[rows[chosen]] = values[chosen]

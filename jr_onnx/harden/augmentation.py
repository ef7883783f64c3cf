"""Augmentation: every image moved over a black border by its own random offset, and half of them mirrored."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def draw_moves(count: int, margin: int, generator: torch.Generator, *, mirror: bool) -> Tensor:
    """Draw how images are moved.

    Args:
        count: Number of images.
        margin: Most pixels by which an image is moved; 0 moves none.
        generator: Source of the offsets, on the CPU.
        mirror: Whether half of the images are mirrored.

    Returns:
        (3, count) int64 on the CPU: first row and column of each image's crop, and 1 where it is mirrored.
    """
    moves = torch.zeros(3, count, dtype=torch.int64)
    if margin:
        moves[:2] = torch.randint(0, 2 * margin + 1, (2, count), generator=generator)
    if mirror:
        moves[2] = torch.rand(count, generator=generator) < 0.5
    return moves


def move(pixels: Tensor, moves: Tensor, margin: int) -> Tensor:
    """Move and mirror images.

    Args:
        pixels: (N, H, W, C), 0 is black.
        moves: (3, N), see `draw_moves`; on the device of `pixels`.
        margin: The one that they were drawn with.

    Returns:
        (N, H, W, C), of the type of `pixels`.
    """
    count, height, width, _ = pixels.shape
    rows = moves[0][:, None] + torch.arange(height, device=pixels.device)
    columns = moves[1][:, None] + torch.arange(width, device=pixels.device)
    columns = torch.where(moves[2][:, None] == 1, columns.flip(1), columns)
    padded = functional.pad(pixels, (0, 0, margin, margin, margin, margin))
    images = torch.arange(count, device=pixels.device)
    return padded[images[:, None, None], rows[:, :, None], columns[:, None, :]]

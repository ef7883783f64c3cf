"""Images are moved and mirrored whole, each on its own."""

from __future__ import annotations

import pytest
import torch

from jr_onnx.harden.augmentation import draw_moves, move


def _moved(images: torch.Tensor, margin: int, *, mirror: bool) -> torch.Tensor:
    """Return images (N, C, H, W), each moved by its own offset."""
    moves = draw_moves(len(images), margin, torch.Generator().manual_seed(0), mirror=mirror)
    return move(images.permute(0, 2, 3, 1), moves, margin).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("margin", "mirror"), [(1, False), (4, True)])
def test_each_image_is_moved_over_a_black_border(margin: int, mirror: bool) -> None:
    dots = torch.zeros(400, 2, 11, 11)
    dots[:, :, 5, 5] = torch.tensor([1.0, 0.5])
    moved = _moved(dots, margin, mirror=mirror)
    assert torch.equal(moved.amax((2, 3)), dots.amax((2, 3))), "channels stay apart and the dot stays inside"
    assert torch.equal(moved.sum((2, 3)), dots.sum((2, 3)))
    places = {tuple(place) for place in moved[:, 0].nonzero()[:, 1:].tolist()}
    wanted = range(5 - margin, 5 + margin + 1)
    assert places <= {(row, column) for row in wanted for column in wanted}
    assert len(places) > 0.9 * (2 * margin + 1) ** 2


def test_half_of_the_images_are_mirrored() -> None:
    pair = torch.zeros(400, 1, 20, 20)
    pair[:, :, 10, 9], pair[:, :, 10, 10] = 1.0, 0.5
    columns = _moved(pair, 4, mirror=True).amax(2)[:, 0]
    mirrored = int((columns.argmax(1) > torch.where(columns == 0.5, 1, 0).argmax(1)).sum())
    assert 150 < mirrored < 250, "five standard deviations of 400 fair coins are 50"
    assert torch.equal(_moved(pair, 0, mirror=False), pair)


def test_bytes_stay_bytes() -> None:
    pixels = torch.arange(2 * 3 * 5 * 1, dtype=torch.uint8).reshape(2, 3, 5, 1)
    moves = torch.tensor([[0, 1], [1, 2], [0, 1]])
    down, left = move(pixels, moves, 1)[..., 0]
    assert down.tolist() == [[0, 0, 0, 0, 0], *pixels[0, :2, :, 0].tolist()]
    assert left.tolist() == [[0, *row[:0:-1]] for row in pixels[1, :, :, 0].tolist()]

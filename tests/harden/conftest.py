"""A small model and small data, so that a training takes a second.

torch is imported by the fixtures alone: without it, the tests beside are not collected, and this file is.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from jr_onnx.data import ImageData, Preprocessing
from jr_onnx.weights import save_weights
from tests.weights.models import numbers, with_initializers

if TYPE_CHECKING:
    from jr_onnx.harden import HardenRequest

MEAN, DEVIATION = 0.4, 0.5


def images(count: int, seed: int) -> ImageData:
    """Noisy images of three classes: a bright row, a bright column, or neither; of both splits the same kind."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    pixels = random.random((count, 1, 8, 8), dtype=np.float32) * 0.5
    for at, label in enumerate(labels):
        place = int(random.integers(0, 8))
        if label == 0:
            pixels[at, 0, place] += 0.5
        elif label == 1:
            pixels[at, 0, :, place] += 0.5
    return ImageData.from_arrays(pixels, labels, name=f"shapes {seed}", class_names=("row", "column", "neither"))


def untrained() -> bytes:
    model = with_initializers(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 1, 8, 8] x) => (float[N, 3] logits) {
            c = Conv <pads = [1, 1, 1, 1]> (x, k, kb)
            n = BatchNormalization (c, scale, shift, mean, variance)
            a = Relu (n)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
            flat = Flatten (p)
            h = Gemm (flat, w1, b1)
            r = Relu (h)
            logits = Gemm (r, w2, b2)
        }""",
        k=numbers(8, 1, 3, 3, seed=1), kb=np.zeros(8, "float32"), scale=np.ones(8, "float32"),
        shift=np.zeros(8, "float32"), mean=np.zeros(8, "float32"), variance=np.ones(8, "float32"),
        w1=numbers(128, 32, seed=2) / 4, b1=np.zeros(32, "float32"), w2=numbers(32, 3, seed=3) / 2,
        b2=np.zeros(3, "float32"),
    )  # fmt: skip
    return bytes(model.SerializeToString(deterministic=True))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the shapes, trained on clean images with a loop of one's own."""
    import torch

    from jr_onnx.torchnet import load

    folder = tmp_path_factory.mktemp("trained")
    (folder / "untrained.onnx").write_bytes(untrained())
    net = load(folder / "untrained.onnx", trainable=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    data = images(600, 0)
    x, y = torch.from_numpy((data.images - MEAN) / np.float32(DEVIATION)), torch.from_numpy(data.labels)
    for epoch in range(6):
        for rows in torch.randperm(600, generator=torch.Generator().manual_seed(epoch)).split(50):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return save_weights(folder / "untrained.onnx", net, folder / "shapes.onnx")


@pytest.fixture
def request_of(trained: Path, tmp_path: Path):
    """Return a request to harden the classifier; arguments change it, those of a recipe in `recipe`."""
    from jr_onnx.harden import HardenRequest, Recipe

    def make(recipe: dict | None = None, **changes: object) -> HardenRequest:
        settings = {
            "eps": 0.1,
            "epochs": 3,
            "steps": 3,
            "rate": 0.05,
            "validation": 100,
            "validation_steps": 10,
            "batch": 50,
        }
        request = HardenRequest(
            model=trained,
            recipe=Recipe(**{**settings, **(recipe or {})}),
            train=images(600, 1),
            data=images(200, 2),
            output=tmp_path / "out.onnx",
            preprocessing=Preprocessing(mean=(MEAN,), std=(DEVIATION,)),
            device="cpu",
        )
        return replace(request, **changes)

    return make

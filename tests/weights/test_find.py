"""Which tensors are weights."""

from __future__ import annotations

import pytest

from jr_onnx import find_weights
from tests.weights import models

WANTED = {
    "plain": {
        "k": ("weight",), "kb": ("bias",), "scale": ("scale",), "shift": ("shift",), "running_mean": ("statistics",),
        "running_var": ("statistics",), "w1": ("weight",), "b1": ("shift",), "w2": ("weight",), "b2": ("bias",),
    },
    "shared": {"w": ("weight",)},
    "function": {"w": ("weight",), "v": ("weight",), "fn:local::dense/bias": ("shift",)},
    "branch": {"If_0.then_branch/w": ("weight",), "If_0.else_branch/w": ("weight",), "last": ("weight",)},
    "halves": {"w1": ("weight",), "b1": ("bias",), "w2": ("weight",)},
    "typed fields": {"w1": ("weight",), "w2": ("weight",)},
}  # fmt: skip


@pytest.mark.parametrize("kind", models.KINDS)
def test_weights_are_found_wherever_they_are(kind: str) -> None:
    assert {item.name: item.roles for item in find_weights(models.KINDS[kind]())} == WANTED[kind]


def test_preprocessing_in_front_of_the_first_layer_is_no_weight() -> None:
    assert not {"mean", "deviation"} & {item.name for item in find_weights(models.plain())}


def test_a_model_without_weights_has_none() -> None:
    model = models.with_initializers(
        '<ir_version: 8, opset_import: ["" : 17]> net (float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }'
    )
    assert find_weights(model) == ()

"""Which tensors are weights."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest

from jr_onnx import find_weights
from jr_onnx.errors import ModelError
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


def test_a_cast_like_a_value_and_axes_of_any_form_hide_no_weight() -> None:
    model = models.with_initializers(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 4] x) => (float[N, 4] y) {
            like = CastLike (w, x)
            z = MatMul (x, like)
            axes = Constant <value_ints = [0]> ()
            row = Unsqueeze (b, axes)
            y = Add (z, row)
        }""",
        w=models.numbers(4, 4, seed=1), b=models.numbers(4, seed=2),
    )  # fmt: skip
    assert {item.name: item.roles for item in find_weights(model)} == {"w": ("weight",), "b": ("shift",)}


def test_functions_that_double_at_every_level_are_refused() -> None:
    calls = [
        f'<domain: "f", opset_import: ["" : 17, "f" : 1]> '
        f"f{level} (x) => (y) {{ a = f.f{level - 1} (x) y = f.f{level - 1} (a) }}"
        for level in range(1, 40)
    ]
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "f" : 1]> net (float[N] x) => (float[N] y) { y = f.f39 (x) } '
        '<domain: "f", opset_import: ["" : 17]> f0 (x) => (y) { y = Relu (x) } ' + " ".join(calls)
    )
    with pytest.raises(ModelError, match="more than can be followed"):
        find_weights(model)


def test_branches_with_many_outputs_inside_each_other_are_walked_once() -> None:
    outputs = [f"o{number}" for number in range(8)]
    names = ", ".join(outputs)
    inner = ", ".join(f"float[N] {name}" for name in outputs)
    body = "{ " + " ".join(f"{name} = Relu (x)" for name in outputs) + " }"
    for level in range(10):
        branch = f"g{level} () => ({inner}) {body}"
        body = f"{{ {names} = If (c) <then_branch = {branch}, else_branch = {branch}> }}"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> net (bool c, float[N] x) => (float[N] o0) {body}'
    )
    assert find_weights(model) == ()

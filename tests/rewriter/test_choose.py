"""Which lowering a site gets: the rules, one by one, over every dtype, opset, IR version, target and wish."""

from __future__ import annotations

import itertools

import onnx
import pytest

from jr_onnx.errors import OpsetError, RefusalError
from jr_onnx.rewriter.lowering import Setting, choose
from jr_onnx.rewriter.lowering.base import allows

DTYPES = ("float16", "bfloat16", "float32", "float64")
TARGETS = ("portable", "cpu", "cuda")
OPSETS = (7, 8, 9, 10, 11, 12, 13, 15, 16, 18, 21, 22, 25)


def setting(dtype: str = "float32", opset: int = 17, ir: int = 8, **changes: object) -> Setting:
    values = {"may_raise_ir": True, "target": "portable", "variable": False, "capped": False, **changes}
    return Setting(dtype, opset, ir, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "wish", "expected"),
    [
        (setting(), "auto", "thresholded"),
        (setting("float16"), "auto", "thresholded"),
        (setting("float64"), "auto", "where"),
        (setting("bfloat16"), "auto", "where"),
        (setting("bfloat16", 13), "auto", "cast_mul"),
        (setting(opset=9), "auto", "where"),
        (setting(opset=8), "auto", "cast_mul"),
        (setting("float64", 8), "auto", "cast_mul"),
        (setting(variable=True), "auto", "where"),
        (setting(variable=True, opset=8), "auto", "cast_mul"),
        (setting(target="cpu"), "auto", "custom"),
        (setting(target="cuda", opset=25, ir=12), "auto", "custom"),
        (setting(target="cpu", ir=7), "auto", "thresholded"),  # auto raises no IR version
        (setting(target="cuda", ir=7, opset=21), "auto", "thresholded"),
        (setting(target="cuda", ir=7, opset=22), "auto", "where"),
        (setting(opset=22), "auto", "thresholded"),
        (setting(target="cpu", custom_problem="others"), "auto", "thresholded"),
        (setting(target="cpu", opset=9), "auto", "where"),
        (setting(ir=3, may_raise_ir=False), "auto", "thresholded"),
        (setting(ir=3, may_raise_ir=True), "custom", "custom"),
        (setting("float64"), "thresholded", "thresholded"),
        (setting(opset=7), "where", "cast_mul"),
        (setting("float64", 12), "custom", "custom"),
        (setting("bfloat16", 16), "custom", "custom"),
        (setting("float32", 10), "custom", "custom"),
    ],
)
def test_the_choice(given: Setting, wish: str, expected: str) -> None:
    choice = choose(wish, given, "site")  # type: ignore[arg-type]
    assert choice.lowering == expected
    assert choice.reason


@pytest.mark.parametrize(
    ("given", "wish", "message"),
    [
        (
            setting(opset=6),
            "custom",
            r"opset 6 is below 7, where the lowering custom is impossible. Use --lowering where",
        ),
        (setting(opset=5), "auto", r"opset 5 is below 7, where no lowering exists for float32"),
        (setting("float16", 6), "auto", r"opset 6 is below 7, where no lowering exists for float16"),
        (setting(variable=True, opset=6), "where", r"opset 6 is below 7, where no lowering exists for a kappa that"),
        (setting(opset=0), "where", "imports no standard operator set"),
        (setting("float64", 7), "auto", r"no lowering takes float64 at opset 7"),
        (setting("bfloat16", 12), "auto", "no lowering takes bfloat16 at opset 12"),
        (setting(opset=9), "thresholded", r"ThresholdedRelu does not take float32 at opset 9. Use --lowering where"),
        (setting(variable=True), "thresholded", r"cannot change at run time. Use --lowering where or custom"),
        (setting(target="cuda", opset=22), "thresholded", "no CUDA kernel of ThresholdedRelu at opset 22"),
        (setting(opset=9), "custom", r"needs opset 10 \(ThresholdedRelu\), the model has 9. Use --lowering where"),
        (setting("float64", 11), "custom", r"needs opset 12 \(Constant with value_float\)"),
        (setting(capped=True, opset=11), "custom", "needs opset 12"),
        (setting("bfloat16", 15), "custom", "Sub, Greater and Where do not take bfloat16 at opset 15"),
        (setting(ir=3, may_raise_ir=False), "custom", r"needs IR 8.*--demote-initializer-inputs"),
        (
            setting(custom_problem="the others differ"),
            "custom",
            "the others differ. Use --lowering where or thresholded",
        ),
    ],
)
def test_the_refusal_names_what_works(given: Setting, wish: str, message: str) -> None:
    with pytest.raises(RefusalError, match=message) as caught:
        choose(wish, given, "conv1/relu")  # type: ignore[arg-type]
    assert str(caught.value).startswith("site conv1/relu: ")


EVERYTHING = list(
    itertools.product(DTYPES, OPSETS, (3, 7, 8, 12), TARGETS, (False, True), (False, True), (False, True))
)


def test_auto_keeps_its_promises_everywhere() -> None:
    for dtype, opset, ir, target, variable, capped, may_raise in EVERYTHING:
        given = setting(dtype, opset, ir, target=target, variable=variable, capped=capped, may_raise_ir=may_raise)
        try:
            lowering = choose("auto", given, "s").lowering
        except RefusalError:
            assert (dtype == "bfloat16" and opset < 13) or (dtype == "float64" and opset == 7), given
            continue
        if lowering == "thresholded":
            assert dtype in ("float32", "float16"), given
            assert not variable, given
            assert not (target == "cuda" and opset >= 22), given
            assert opset >= 10, given
        if lowering == "custom":
            assert ir >= 8, given
            assert opset >= 10, given
            assert target != "portable", given
        if lowering == "where":
            assert opset >= 9, given
            assert all(allows(op, opset, dtype) for op in ("Sub", "Greater", "Where")), given


def hint_of_refusal(wish: str, given: Setting) -> str | None:
    try:
        choose(wish, given, "s")  # type: ignore[arg-type]
    except OpsetError:
        return None  # whether --opset helps is tried with the model
    except RefusalError as error:
        return error.hint
    return None


def test_a_hint_that_names_a_lowering_names_one_that_works() -> None:
    for dtype, opset, ir, target, variable, capped, may_raise in EVERYTHING:
        given = setting(dtype, opset, ir, target=target, variable=variable, capped=capped, may_raise_ir=may_raise)
        for wish in ("where", "thresholded", "custom"):
            hint = hint_of_refusal(wish, given)
            if hint is None:
                continue
            named = [name for name in ("where", "thresholded", "custom") if f" {name}" in hint and "--lowering" in hint]
            assert named, given
            for name in named:
                assert choose(name, given, "s").lowering in (name, "cast_mul"), given  # type: ignore[arg-type]


@pytest.mark.parametrize(("dtype", "since"), [("float32", 1), ("bfloat16", 13), ("float64", 1)])
def test_the_schemas_are_asked_for_the_element_type(dtype: str, since: int) -> None:
    opsets = range(1, onnx.defs.onnx_opset_version() + 1)
    assert next(opset for opset in opsets if allows("Relu", opset, dtype)) == since
    assert not allows("NoSuchOperator", 20, dtype)

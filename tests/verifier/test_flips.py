"""The rule for differences at the jump: what is excused, what is not, and how often."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.verifier import FlipTally, SiteTrace, control_noise, judge, verify
from jr_onnx.verifier.whole_model.flips import expected_near
from jr_onnx.verifier.whole_model.tolerance import SAFETY

KAPPA = float(np.float32(0.06))
F32 = NDArray[np.float32]


def trace(one: F32, other: F32, noise: float = 1e-6, name: str = "site") -> SiteTrace:
    return SiteTrace(name, KAPPA, one, other, noise)


def floats(*values: float) -> F32:
    return np.array(values, dtype=np.float32)


def test_differences_within_the_bound_need_no_excuse() -> None:
    assert judge(0.0, 1e-6, []).outcome == "equal"
    assert judge(1e-7, 1e-6, []).outcome == "rounding"


def test_a_value_on_both_sides_of_kappa_is_a_flip() -> None:
    verdict = judge(1.0, 1e-6, [trace(floats(1, KAPPA - 3e-7, 2), floats(1, KAPPA + 3e-7, 2))])
    assert verdict.outcome == "flip"
    assert verdict.flip is not None
    assert verdict.flip.crosses
    assert verdict.flip.index == (1,)
    assert "both sides of kappa 0.0599999987" in str(verdict.flip)


def test_equal_values_on_kappa_excuse_nothing() -> None:
    verdict = judge(1.0, 1e-6, [trace(floats(KAPPA, 1), floats(KAPPA, 1))])
    assert verdict.outcome == "different"
    assert "no pre-activation lies within" in verdict.reason


def test_a_value_farther_away_than_the_site_rounds_excuses_nothing() -> None:
    far = trace(floats(KAPPA + 1e-5, 1.0), floats(KAPPA + 1e-5, 1.0 + 1e-6))
    assert judge(1.0, 1e-6, [far]).outcome == "different"


def test_a_defect_in_front_of_a_site_is_not_its_rounding_error() -> None:
    # A weight was changed: everything differs by 1e-3, and some value is within 1e-3 of kappa.
    z = np.linspace(0, 1, 2001, dtype=np.float32)
    verdict = judge(1.0, 1e-6, [trace(z, z + np.float32(1e-3), noise=1e-6)])
    assert verdict.outcome == "different"
    assert "which is not rounding" in verdict.reason


def test_behind_a_flip_anything_may_differ_and_before_it_nothing() -> None:
    flip = trace(floats(KAPPA - 3e-7), floats(KAPPA + 3e-7), name="first")
    wild = trace(floats(0.5), floats(5.0), name="second")
    assert judge(1.0, 1e-6, [flip, wild]).outcome == "flip"
    assert judge(1.0, 1e-6, [wild, flip]).outcome == "different"


def test_a_value_beside_kappa_counts_only_if_none_crosses_and_all_is_rounding() -> None:
    beside = trace(floats(KAPPA + 2e-7), floats(KAPPA + 5e-7), name="beside")
    crossing = trace(floats(KAPPA - 3e-7), floats(KAPPA + 3e-7), name="crossing")
    wild = trace(floats(0.5), floats(5.0), name="wild")
    alone, both = judge(1.0, 1e-6, [beside]).flip, judge(1.0, 1e-6, [beside, crossing]).flip
    assert alone is not None
    assert not alone.crosses
    assert both is not None
    assert both.site == "crossing"
    assert judge(1.0, 1e-6, [beside, wild]).outcome == "different"


def test_values_that_are_not_finite_on_one_side_only_are_a_defect() -> None:
    assert judge(1.0, 1e-6, [trace(floats(np.nan), floats(KAPPA))]).outcome == "different"
    assert judge(1.0, 1e-6, [trace(floats(np.inf), floats(KAPPA))]).outcome == "different"
    both = trace(floats(np.nan, KAPPA - 3e-7), floats(np.nan, KAPPA + 3e-7))
    assert judge(1.0, 1e-6, [both]).outcome == "flip"


def test_the_control_is_never_below_a_few_roundings() -> None:
    z = floats(2.0)
    assert control_noise(z, z) == 8 * 2.0**-24 * 2
    assert control_noise(z, z + np.float32(0.5)) == 0.5


def tally(runs: int, flips: int, traces: list[SiteTrace]) -> FlipTally:
    result = FlipTally()
    for number in range(runs):
        result.add(judge(1.0, 1e-6, traces) if number < flips else judge(0.0, 1e-6, []))
    return result


def test_one_per_cent_of_flips_passes_and_more_fails() -> None:
    atom = [trace(floats(KAPPA - 3e-7), floats(KAPPA + 3e-7))]
    assert tally(200, 2, atom).passed
    many = tally(200, 3, atom)
    assert not many.passed
    assert "3 of 200 runs flip at the jump, 2 are accepted" in many.reason()


def test_a_defect_is_never_outvoted() -> None:
    result = tally(1000, 0, [])
    result.add(judge(1.0, 1e-6, []))
    assert not result.passed


def test_a_large_site_crosses_the_jump_by_chance_and_an_atom_does_not() -> None:
    generator = np.random.default_rng(0)
    z = generator.standard_normal(1_000_000).astype(np.float32)
    other = z + generator.standard_normal(z.size).astype(np.float32) * np.float32(2e-7)
    crossing = np.count_nonzero((z > KAPPA) != (other > KAPPA))
    smooth = [trace(z, other, noise=1e-6)]
    assert crossing > 0
    # Density of a standard normal at kappa, times the width of two roundings.
    assert expected_near(smooth) == pytest.approx(0.398 * 2e-6 * z.size, rel=0.2)
    assert tally(8, 4, smooth).passed
    on_the_jump = np.full(z.shape, KAPPA, dtype=np.float32)
    atom = [trace(on_the_jump, on_the_jump + np.float32(3e-7), noise=1e-6)]
    assert not tally(8, 4, atom).passed


def jump_net(weights: F32) -> onnx.ModelProto:
    """x (1, 64) -> MatMul -> ReLU -> times 100: a flip moves the output by 6."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["a"], name="act"),
        helper.make_node("Mul", ["a", "hundred"], ["y"]),
    ]
    initializers = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.asarray(100, dtype=np.float32), "hundred"),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [1, 64]), ("y", [1, 1]))
    ]
    graph = helper.make_graph(nodes, "jump", values[:1], values[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def at_the_jump() -> tuple[onnx.ModelProto, list[F32], F32]:
    """A net, inputs for which ONNX Runtime and NumPy sum to different sides of kappa, and one for which they agree."""
    generator = np.random.default_rng(1)
    weights = generator.standard_normal((64, 1)).astype(np.float32)
    model = jump_net(weights)
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    seen.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    session = ort.InferenceSession(seen.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[F32] = []
    for _ in range(20_000):
        x = generator.standard_normal((1, 64)).astype(np.float32)
        x *= np.float32(KAPPA / (x.astype(np.float64) @ weights.astype(np.float64)).item())
        by_numpy, by_ort = np.matmul(x, weights).item(), session.run(["z"], {"x": x})[0].item()
        if (by_numpy > KAPPA) != (by_ort > KAPPA) and np.abs(x).max() < 1:
            found.append(x)
        if len(found) == 3:
            return model, found, (x * np.float32(3)).astype(np.float32)
    pytest.skip("ONNX Runtime and NumPy round this sum alike on this machine")


def test_a_flip_in_a_whole_model_is_counted_and_printed(at_the_jump: tuple[onnx.ModelProto, list[F32], F32]) -> None:
    model, flips, calm = at_the_jump
    inputs = [{"x": flips[0]}, *[{"x": calm}] * 149]
    report = verify(model, 0.06, inputs=inputs, reference_samples=150)
    assert report, report.failures
    (check,) = [check for check in report.checks if check.what == "reference run"]
    assert (check.flips, check.samples) == (1, 150)
    assert check.max_difference == pytest.approx(6, rel=1e-3)
    assert check.bound is not None
    assert check.bound < 1e-2, "the bound alone would not have excused it"
    assert "first flip: act" in check.detail
    assert report.flips == 1


def test_more_than_one_per_cent_of_flips_fails(at_the_jump: tuple[onnx.ModelProto, list[F32], F32]) -> None:
    model, flips, calm = at_the_jump
    inputs = [*[{"x": x} for x in flips], *[{"x": calm}] * 97]
    report = verify(model, 0.06, inputs=inputs, reference_samples=100)
    assert not report
    (failure,) = report.failures
    assert (failure.check, failure.site) == ("reference run", "act")
    assert "3 of 100 runs flip at the jump, 1 are accepted" in failure.message


def test_the_safety_factor_separates_rounding_from_defects() -> None:
    base = floats(1.0, 0.5)
    inside = trace(base, base + np.float32(SAFETY * 0.9e-6))
    outside = trace(base, base + np.float32(SAFETY * 1.2e-6))
    assert "is not rounding" not in judge(1.0, 0.0, [inside]).reason
    assert "is not rounding" in judge(1.0, 0.0, [outside]).reason

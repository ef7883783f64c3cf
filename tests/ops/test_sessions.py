"""The operators inside ONNX Runtime sessions: dtypes, shapes, where kappa comes from, concurrency, refusals."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.semantics import jump_relu, round_kappa

FLOAT = TensorProto.FLOAT
TYPES = {"float32": FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16}
SHAPES = [(), (0,), (1,), (7,), (2, 0, 3), (2, 3, 5, 7), (1, 64, 57, 57), (3, 200_001)]


def jump(inputs: tuple[str, ...] = ("z",), output: str = "y", name: str = "site", **attributes: float) -> Any:
    return helper.make_node("JumpRelu", inputs, [output], name=name, domain="jr_onnx", **attributes)


def draw(low: float, high: float, output: str = "k") -> Any:
    return helper.make_node("DrawKappa", [], [output], name=f"draw_{output}", domain="jr_onnx", low=low, high=high)


def value(name: str, kind: int = FLOAT, shape: Any = ("N",)) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def values_for(shape: tuple[int, ...], dtype: str = "float32") -> Any:
    z = np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype) * 0.2
    flat = np.atleast_1d(z).reshape(-1)
    corners = np.array([np.nan, np.inf, -np.inf, -0.0, 0.06], dtype=dtype)[: flat.size]
    flat[: corners.size] = corners
    return flat.reshape(shape).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TYPES)
def test_every_dtype_and_shape(make_session: Any, dtype: str, shape: tuple[int, ...]) -> None:
    names = [f"d{axis}" for axis in range(len(shape))]
    session = make_session([jump(kappa=0.06)], [value("z", TYPES[dtype], names)], [value("y", TYPES[dtype], names)])
    z = values_for(shape, dtype)
    (result,) = session.run(None, {"z": z})
    assert result.shape == shape
    assert result.tobytes() == jump_relu(z, round_kappa(0.06, dtype)).tobytes()


def test_a_shape_of_unknown_rank(make_session: Any) -> None:
    nodes = [
        helper.make_node("Neg", ["z"], ["m"]),
        jump(("m",), "w", kappa=0.06),
        helper.make_node("Neg", ["w"], ["y"]),
    ]
    session = make_session(nodes, [value("z", FLOAT, None)], [value("y", FLOAT, None)])
    for shape in SHAPES[:-1]:
        z = values_for(shape)
        expected = -jump_relu(-z, round_kappa(0.06, "float32"))
        (result,) = session.run(None, {"z": z})
        assert result.shape == shape
        assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("given", [None, (None, None, None, None), (1, 3, None, None), (1, 3, 4, 4)], ids=str)
def test_a_convolution_may_follow(make_session: Any, given: Any) -> None:
    """A shape that is unknown, wholly or in part, must not be handed on as a scalar's or as -1: Conv would refuse."""
    weights = np.ones((2, 3, 1, 1), np.float32)
    nodes = [
        helper.make_node("Neg", ["z"], ["m"]),
        jump(("m",), "jumped", kappa=0.06),
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weights)),
        helper.make_node("Conv", ["jumped", "w"], ["y"]),
    ]
    session = make_session(nodes, [value("z", FLOAT, given)], [value("y", FLOAT, None)])
    z = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    (result,) = session.run(None, {"z": z})
    expected = jump_relu(-z, round_kappa(0.06, "float32")).sum(1, keepdims=True)
    # Three terms may be added in another order: two roundings of a sum below 16, half an ulp (2^-21) each, twice.
    assert abs(result - expected).max() <= 2.0**-19


def test_bfloat16(make_session: Any) -> None:
    nodes = [
        helper.make_node("Cast", ["z"], ["narrow"], to=TensorProto.BFLOAT16),
        jump(("narrow",), "jumped", kappa=0.06, cap=0.3),
        helper.make_node("Cast", ["jumped"], ["y"], to=FLOAT),
    ]
    session = make_session(nodes, [value("z")], [value("y")])
    z = np.linspace(-1, 1, 3001, dtype=np.float32).astype(ml_dtypes.bfloat16)
    expected = jump_relu(z, round_kappa(0.06, "bfloat16"), 0.3).astype(np.float32)
    assert session.run(None, {"z": z.astype(np.float32)})[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", TYPES)
def test_cap(make_session: Any, dtype: str) -> None:
    kind = TYPES[dtype]
    session = make_session([jump(kappa=0.06, cap=0.3)], [value("z", kind)], [value("y", kind)])
    z = values_for((5001,), dtype)
    cap = float(np.float32(0.3))
    expected = jump_relu(z, round_kappa(0.06, dtype), cap)
    assert session.run(None, {"z": z})[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", TYPES)
def test_kappa_as_an_input(make_session: Any, dtype: str) -> None:
    kind = TYPES[dtype]
    inputs = [value("z", kind), value("kappa", FLOAT, ())]
    session = make_session([jump(("z", "kappa"))], inputs, [value("y", kind)])
    z = values_for((999,), dtype)
    for kappa in (0.0, 0.06, 0.5, -0.0):
        expected = jump_relu(z, round_kappa(kappa, dtype))
        result = session.run(None, {"z": z, "kappa": np.array(kappa, np.float32)})[0]
        assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(1,), (1, 1)], ids=str)
def test_a_kappa_of_one_element_may_have_any_rank(make_session: Any, shape: tuple[int, ...]) -> None:
    inputs = [value("z"), value("kappa", FLOAT, shape)]
    session = make_session([jump(("z", "kappa"))], inputs, [value("y")])
    z = values_for((9,))
    result = session.run(None, {"z": z, "kappa": np.full(shape, 0.06, np.float32)})[0]
    assert result.tobytes() == jump_relu(z, 0.06).tobytes()


@pytest.mark.parametrize(
    ("dtype", "kappa", "message"),
    [
        ("float32", [-0.5], "the kappa input is -0.5, expected a finite number >= 0"),
        ("float32", [np.nan], "the kappa input is nan"),
        ("float32", [np.inf], "the kappa input is inf"),
        ("float16", [70000.0], "the kappa input overflows float16"),
        ("float32", [0.1, 0.2], r"the kappa input has the shape \(2\), expected one float, or one for .* \(9\)"),
        ("float32", [], r"the kappa input has the shape \(0\), expected one float"),
    ],
)
def test_a_bad_kappa_at_run_time(make_session: Any, dtype: str, kappa: list[float], message: str) -> None:
    inputs = [value("z", TYPES[dtype]), value("kappa", FLOAT, ("K",))]
    session = make_session([jump(("z", "kappa"))], inputs, [value("y", TYPES[dtype])])
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match=message) as caught:
        session.run(None, {"z": values_for((9,), dtype), "kappa": np.array(kappa, np.float32)})
    assert "JumpRelu node 'site'" in str(caught.value)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "kappa is missing"),
        ({"kappa": 1}, "kappa is missing, expected the float attribute"),
        ({"kappa": -0.1}, "kappa is -0.100000001, expected a finite number >= 0"),
        ({"kappa": np.nan}, "kappa is nan, expected a finite number >= 0"),
        ({"kappa": np.inf}, "kappa is inf, expected a finite number >= 0"),
        ({"kappa_low": 0.1}, "found only kappa_low"),
        ({"kappa_high": 0.1}, "found only kappa_high"),
        ({"kappa_low": 0.2, "kappa_high": 0.1}, "expected kappa_low < kappa_high"),
        ({"kappa_low": 0.1, "kappa_high": 0.1}, "expected kappa_low < kappa_high"),
        ({"kappa_low": -0.1, "kappa_high": 0.1}, "kappa_low is -0.1"),
        ({"kappa_low": 0.0, "kappa_high": np.inf}, "kappa_high is inf"),
        ({"kappa": 0.1, "kappa_low": 0.1, "kappa_high": 0.2}, "kappa is given more than once"),
        ({"kappa": 0.1, "cap": -1.0}, "cap is -1, expected a number >= 0"),
        ({"kappa": 0.1, "cap": np.nan}, "cap is nan"),
    ],
    ids=str,
)
def test_bad_attributes(make_session: Any, attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        make_session([jump(**attributes)], [value("z")], [value("y")])
    assert "JumpRelu node 'site'" in str(caught.value)


def test_kappa_must_not_be_given_twice(make_session: Any) -> None:
    inputs = [value("z"), value("kappa", FLOAT, ())]
    with pytest.raises(Exception, match="kappa is given more than once"):
        make_session([jump(("z", "kappa"), kappa=0.1)], inputs, [value("y")])


def test_an_omitted_second_input_is_none(make_session: Any) -> None:
    session = make_session([jump(("z", ""), kappa=0.06)], [value("z")], [value("y")])
    z = values_for((9,))
    assert session.run(None, {"z": z})[0].tobytes() == jump_relu(z, 0.06).tobytes()


def test_kappa_must_fit_float16(make_session: Any) -> None:
    half = TensorProto.FLOAT16
    with pytest.raises(Exception, match="kappa overflows float16"):
        make_session([jump(kappa=65520.0)], [value("z", half)], [value("y", half)])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"low": 0.1}, "high is missing"),
        ({"high": 0.1}, "low is missing"),
        ({"low": 0.2, "high": 0.1}, "expected low < high"),
        ({"low": -0.2, "high": 0.1}, "low is -0.2"),
        ({"low": 0.0, "high": np.nan}, "high is nan"),
    ],
    ids=str,
)
def test_bad_attributes_of_the_draw(make_session: Any, attributes: dict[str, Any], message: str) -> None:
    node = helper.make_node("DrawKappa", [], ["k"], name="draw", domain="jr_onnx", **attributes)
    with pytest.raises(Exception, match=message) as caught:
        make_session([node], [], [value("k", FLOAT, ())])
    assert "DrawKappa node 'draw'" in str(caught.value)


def test_draws_stay_in_bounds_and_differ_between_runs(make_session: Any) -> None:
    session = make_session([draw(0.25, 0.75)], [], [value("k", FLOAT, ())])
    draws = np.array([session.run(None, {})[0] for _ in range(4000)])
    assert draws.min() >= 0.25
    assert draws.max() < 0.75
    assert len(set(draws.tolist())) > 3900  # 2^23 floats: some 1 collision is expected among 4000
    # The mean of 4000 uniform draws has a standard deviation of 0.5 / sqrt(12 * 4000) = 0.0023; six of them.
    assert abs(draws.mean() - 0.5) < 0.014
    counts = np.histogram(draws, 10, (0.25, 0.75))[0]
    assert abs(counts - 400).max() < 6 * np.sqrt(4000 * 0.1 * 0.9)


def test_a_range_of_one_float_gives_its_lower_end(make_session: Any) -> None:
    low = np.float32(0.5)
    session = make_session([draw(float(low), float(np.nextafter(low, np.float32(1))))], [], [value("k", FLOAT, ())])
    assert {float(session.run(None, {})[0]) for _ in range(50)} == {0.5}


def test_a_draw_is_never_folded_nor_merged(make_session: Any, tmp_path: Any) -> None:
    nodes = [
        draw(0.1, 0.2, "k1"),
        draw(0.1, 0.2, "k2"),
        helper.make_node("Add", ["k1", "k2"], ["sum"]),
        jump(("z", "k1"), "y"),
    ]
    outputs = [value("y"), *(value(name, FLOAT, ()) for name in ("k1", "k2", "sum"))]
    path = tmp_path / "optimised.onnx"
    session = make_session(nodes, [value("z")], outputs, optimized_model_filepath=str(path))
    z = np.linspace(0, 0.3, 100_001, dtype=np.float32)
    runs = [session.run(None, {"z": z}) for _ in range(20)]
    assert len({float(first) for _, first, _, _ in runs}) == 20
    assert all(first != second and total == first + second for _, first, second, total in runs)
    assert all(y.tobytes() == jump_relu(z, float(first)).tobytes() for y, first, _, _ in runs)
    assert path.read_bytes().count(b"DrawKappa") == 2


def test_one_draw_feeds_the_whole_network(make_session: Any) -> None:
    nodes = [draw(0.0, 1.0), jump(("z", "k"), "a", "first"), jump(("z", "k"), "b", "second")]
    session = make_session(nodes, [value("z")], [value(name) for name in "ab"] + [value("k", FLOAT, ())])
    z = np.linspace(0, 1, 1001, dtype=np.float32)
    for _ in range(10):
        first, second, kappa = session.run(None, {"z": z})
        assert first.tobytes() == second.tobytes() == jump_relu(z, float(kappa)).tobytes()


def test_a_range_draws_anew_for_every_node_and_run(make_session: Any) -> None:
    nodes = [jump(output=name, name=name, kappa_low=0.2, kappa_high=0.8) for name in "ab"]
    session = make_session(nodes, [value("z")], [value("a"), value("b")])
    z = np.linspace(0, 1, 1_000_001, dtype=np.float32)
    smallest = np.array([[y[y > 0][0] for y in session.run(None, {"z": z})] for _ in range(20)])
    assert smallest.min() > 0.2
    assert smallest.max() <= 0.8 + 1e-6
    assert len(set(smallest.reshape(-1).tolist())) > 35


def test_sixteen_threads_share_a_session(make_session: Any) -> None:
    nodes = [draw(0.1, 0.9), jump(("z", "k"), "y"), jump(("z",), "w", "fixed", kappa=0.06, cap=0.5)]
    session = make_session(nodes, [value("z")], [value("y"), value("w"), value("k", FLOAT, ())])
    barrier = threading.Barrier(16)

    def work(seed: int) -> list[float]:
        z = np.random.default_rng(seed).standard_normal(140_000 + seed).astype(np.float32)
        barrier.wait()
        draws = []
        for _ in range(25):
            y, w, kappa = session.run(None, {"z": z})
            assert y.tobytes() == jump_relu(z, float(kappa)).tobytes()
            assert w.tobytes() == jump_relu(z, round_kappa(0.06, "float32"), 0.5).tobytes()
            draws.append(float(kappa))
        return draws

    with ThreadPoolExecutor(16) as pool:
        draws = [kappa for result in pool.map(work, range(16)) for kappa in result]
    assert len(set(draws)) > 395  # 400 independent draws from 2^23 floats


@pytest.mark.parametrize("threshold", ["0", "1000000000"])
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_threads_and_dispatch_change_nothing(
    make_session: Any, monkeypatch: pytest.MonkeyPatch, isa: str, threshold: str
) -> None:
    monkeypatch.setenv("JR_ONNX_ISA", isa)
    monkeypatch.setenv("JR_ONNX_PARALLEL_BYTES", threshold)
    session = make_session([jump(kappa=0.06)], [value("z")], [value("y")], intra_op_num_threads=3)
    for count in (0, 1, 16_383, 16_384, 16_385, 300_001):
        z = values_for((count,))
        assert session.run(None, {"z": z})[0].tobytes() == jump_relu(z, round_kappa(0.06, "float32")).tobytes()


def test_the_kernel_wins_over_a_function_of_the_same_name(make_session: Any) -> None:
    """The function's body is wrong on purpose: it negates."""
    body = helper.make_node("Neg", ["x"], ["y"])
    imports = [helper.make_opsetid("", 20)]
    function = helper.make_function("jr_onnx", "JumpRelu", ["x"], ["y"], [body], imports, ["kappa"])
    z = values_for((33,))
    for level in onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL:
        session = make_session(
            [jump(kappa=0.06)], [value("z")], [value("y")], [function], graph_optimization_level=level
        )
        assert session.run(None, {"z": z})[0].tobytes() == jump_relu(z, round_kappa(0.06, "float32")).tobytes()


def test_inside_a_branch(make_session: Any) -> None:
    branches = {}
    for name, kappa in (("then_branch", 0.06), ("else_branch", 0.5)):
        node = helper.make_node("JumpRelu", ["z"], [name], domain="jr_onnx", kappa=kappa)
        branches[name] = helper.make_graph([node], name, [], [value(name)])
    nodes = [helper.make_node("If", ["which"], ["y"], **branches)]
    session = make_session(nodes, [value("z"), value("which", TensorProto.BOOL, ())], [value("y")])
    z = values_for((100,))
    for which, kappa in ((True, 0.06), (False, 0.5)):
        expected = jump_relu(z, round_kappa(kappa, "float32"))
        assert session.run(None, {"z": z, "which": np.array(which)})[0].tobytes() == expected.tobytes()


def test_an_integer_tensor_is_refused(make_session: Any) -> None:
    kind = TensorProto.INT32
    with pytest.raises(Exception, match="JumpRelu"):
        make_session([jump(kappa=1.0)], [value("z", kind)], [value("y", kind)])


def test_shapes_are_inferred(make_session: Any, tmp_path: Any) -> None:
    nodes = [jump(("z",), "mid", kappa=0.06), helper.make_node("Shape", ["mid"], ["y"])]
    path = tmp_path / "optimised.onnx"
    session = make_session(
        nodes, [value("z", FLOAT, (2, 3))], [value("y", TensorProto.INT64, (2,))], optimized_model_filepath=str(path)
    )
    assert session.run(None, {"z": np.zeros((2, 3), np.float32)})[0].tolist() == [2, 3]
    assert b"Shape" not in path.read_bytes()  # folded: the optimiser knew the shape behind the node


def test_the_library_stays_loaded_after_its_last_session(cpu_library: Path) -> None:
    """ONNX Runtime closes it then; what is registered would be lost, and made again by every next session."""
    code = f"""
import gc, onnxruntime
for _ in range(2):
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library({str(cpu_library)!r})
    del options
    gc.collect()
    print({cpu_library.name!r} in open("/proc/self/maps").read())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_many_sessions_share_one_registration(make_session: Any) -> None:
    z = values_for((11,))
    sessions = [make_session([jump(kappa=0.06)], [value("z")], [value("y")]) for _ in range(30)]
    kept = sessions[::2]
    del sessions
    for session in kept:
        assert session.run(None, {"z": z})[0].tobytes() == jump_relu(z, round_kappa(0.06, "float32")).tobytes()

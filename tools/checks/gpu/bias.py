"""BiasJumpRelu on the GPU against the NumPy definition, bit for bit, and its bandwidth against a copy's."""

from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from jr_onnx.runtime.ops_library import Target
from jr_onnx.semantics import BIAS_OP_TYPE, OP_DOMAIN, OP_VERSION, jump_relu, round_kappa
from tools.checks.gpu.bandwidth import best_seconds, torch_seconds
from tools.checks.gpu.findings import Verdict
from tools.checks.gpu.kernel import CAP, KAPPA, to_bytes, to_value
from tools.checks.gpu.sessions import CUDA, built_target, open_session, require_on

SHAPES = ((1, 1, 1, 1), (2, 3, 1, 1), (1, 5, 7, 7), (2, 8, 4, 4), (3, 17, 1, 3), (4, 64, 56, 56), (2, 130, 7, 7))
LARGE = (64, 256, 128, 128)  # 1 GiB of float32
_TYPES: dict[str, tuple[int, Any]] = {
    "float32": (TensorProto.FLOAT, np.float32), "float16": (TensorProto.FLOAT16, np.float16),
    "float64": (TensorProto.DOUBLE, np.float64), "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
}  # fmt: skip
_CHAIN = 8
_AIM = 0.9


def model(element: int, *, axis: int, residual: bool, length: int = 1, **attributes: Any) -> Any:
    """Return a chain of BiasJumpRelu from `x`, `bias` and, where there is one, `residual` to `y`."""
    extra = ["residual"] if residual else []
    names = ["x", *(f"t{index}" for index in range(1, length)), "y"]
    nodes = [
        helper.make_node(
            BIAS_OP_TYPE, [names[index], "bias", *extra], [names[index + 1]], name=f"pass_{index}", domain=OP_DOMAIN,
            axis=axis, **attributes,
        )
        for index in range(length)
    ]  # fmt: skip
    values = [helper.make_tensor_value_info(name, element, None) for name in ("x", "bias", *extra, "y")]
    graph = helper.make_graph(nodes, "check", values[:-1], values[-1:])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(OP_DOMAIN, OP_VERSION)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def expected(
    x: NDArray[Any], bias: NDArray[Any], residual: NDArray[Any] | None, axis: int, dtype: str, cap: float | None
) -> NDArray[Any]:
    """Return J((x + bias) + residual), every sum rounded to the type."""
    z = x + bias.reshape([-1 if index == axis % x.ndim else 1 for index in range(x.ndim)])
    z = z if residual is None else z + residual
    return jump_relu(z, round_kappa(KAPPA, dtype), cap)


def eager(providers: list[Any] | None = None, target: Target | None = None) -> Verdict:
    """Compare every type, with and without a residual and a cap, channels first and last."""
    wanted, library = providers or [CUDA], target or built_target()
    compared, wrong = 0, []
    for (dtype, (element, kind)), residual, axis, cap in product(_TYPES.items(), (False, True), (1, -1), (None, CAP)):
        attributes = {"kappa": KAPPA} if cap is None else {"kappa": KAPPA, "cap": cap}
        session = open_session(model(element, axis=axis, residual=residual, **attributes), wanted, target=library)
        require_on(session, wanted[0])
        for shape in SHAPES:
            random = np.random.default_rng(len(shape))
            x, r = (random.standard_normal(shape).astype(kind) for _ in range(2))
            bias = random.standard_normal(shape[axis]).astype(kind)
            feed = {"x": x, "bias": bias, **({"residual": r} if residual else {})}
            values = {name: _value(array, dtype) for name, array in feed.items()}
            result = session.run_with_ort_values(None, values)[0]
            compared += 1
            if to_bytes(result, x.nbytes) != expected(x, bias, r if residual else None, axis, dtype, cap).tobytes():
                wrong.append(f"{dtype} {shape} axis {axis} residual {residual} cap {cap}")
    summary = f"{compared} comparisons, {len(wrong)} wrong" + (f": {wrong[0]}" if wrong else "")
    return Verdict("failed" if wrong else "passed", summary, {"compared": compared, "wrong": len(wrong)})


def _value(array: NDArray[Any], dtype: str) -> Any:
    return to_value(array.view(np.uint16) if dtype == "bfloat16" else array, dtype)


def pass_seconds(
    shape: tuple[int, ...] = LARGE, *, residual: bool, providers: list[Any] | None = None,
    target: Target | None = None, device: str = "cuda",
) -> float:  # fmt: skip
    """Return the time of one pass over float32 (N, C, H, W): that of the best run of a chain, divided by its length."""
    wanted, library = providers or [CUDA], target or built_target()
    chain = model(TensorProto.FLOAT, axis=1, residual=residual, length=_CHAIN, kappa=KAPPA)
    session = open_session(chain, wanted, target=library, optimise=False)
    require_on(session, wanted[0])
    random = np.random.default_rng(0)
    count = int(np.prod(shape))
    values = np.resize(random.standard_normal(min(count, 1 << 20), dtype=np.float32), count).reshape(shape)
    feed = {"x": values, "bias": random.standard_normal(shape[1], dtype=np.float32)}
    if residual:
        feed["residual"] = -values
    binding = session.io_binding()
    held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0) for name, array in feed.items()}
    for name, value in held.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_ortvalue_output(
        "y", onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), np.float32, device, 0)
    )

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return best_seconds(run) / _CHAIN


def against_copy() -> Verdict:
    """Compare the bandwidth with a copy's, without and with a residual; the aim is nine tenths."""
    copy, _ = torch_seconds()
    return judge(copy, pass_seconds(residual=False), pass_seconds(residual=True))


def judge(copy: float, alone: float, with_residual: float, copied: int = 1 << 28, elements: int = 0) -> Verdict:
    """Turn the times of a copy of `copied` float32 elements and of two passes over `elements` into a verdict."""
    count = elements or int(np.prod(LARGE))
    rates = {
        "copy_gb_s": 8 * copied / copy / 1e9, "bias_gb_s": 8 * count / alone / 1e9,
        "bias_residual_gb_s": 12 * count / with_residual / 1e9,
    }  # fmt: skip
    part = min(rates["bias_gb_s"], rates["bias_residual_gb_s"]) / rates["copy_gb_s"]
    summary = (
        f"bias and jump {rates['bias_gb_s']:.0f} GB/s, with a residual {rates['bias_residual_gb_s']:.0f} GB/s, "
        f"copy {rates['copy_gb_s']:.0f} GB/s (at least {100 * part:.0f} %)"
    )
    return Verdict("passed" if part >= _AIM else "failed", summary, {**rates, "part_of_copy": part})

"""The op library's kernel on the GPU against the NumPy definition, bit for bit: fed from the host, and bound."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto

from jr_onnx.runtime.ops_library import Target
from jr_onnx.semantics import jump_relu, round_kappa
from tools.checks.gpu.findings import Verdict
from tools.checks.gpu.sessions import (
    CUDA,
    built_target,
    device_value,
    elementwise,
    has_gpu,
    jump_node,
    open_session,
    providers_of_operators,
    require_on,
)  # fmt: skip

KAPPA, CAP = 0.06, 6.0
LENGTHS = (0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 127, 128, 129, 255, 257, 1023, 1025, 4097, 262_147)
_ELEMENTS = {
    "float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE,
    "bfloat16": TensorProto.BFLOAT16,
}  # fmt: skip


def sample(length: int, dtype: str, seed: int = 0) -> NDArray[Any]:
    """Return values with specials and the neighbours of kappa among them; bfloat16 as its bits in uint16."""
    random = np.random.default_rng(seed)
    values = random.standard_normal(length).astype(np.float32)
    kappa = np.float32(round_kappa(KAPPA, dtype))
    specials = np.array(
        [0, -0.0, np.nan, np.inf, -np.inf, kappa, -kappa, CAP, 7, 1e-30, -1, 2 * kappa], dtype=np.float32
    )  # fmt: skip
    if length:
        places = random.permutation(length)[: len(specials)]
        values[places] = specials[: len(places)]
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    array = values.astype(dtype)
    if length > 2:
        own = np.asarray(round_kappa(KAPPA, dtype), dtype=dtype)
        array[-1], array[-2] = np.nextafter(own, own * 2), np.nextafter(own, own * 0)
    return array


def expected(z: NDArray[Any], dtype: str, cap: float | None) -> NDArray[Any]:
    """Return what the definition gives, bfloat16 by way of float32, in which every bfloat16 is exact."""
    if dtype != "bfloat16":
        return jump_relu(z, round_kappa(KAPPA, dtype), cap)
    wide = (z.astype(np.uint32) << 16).view(np.float32)
    result = jump_relu(wide, round_kappa(KAPPA, dtype), cap)
    return (result.view(np.uint32) >> 16).astype(np.uint16)


def to_value(z: NDArray[Any], dtype: str) -> Any:
    """Wrap an array as an OrtValue of the element type."""
    if dtype == "bfloat16":
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(z, _ELEMENTS[dtype])
    return onnxruntime.OrtValue.ortvalue_from_numpy(z)


def to_bytes(value: Any, length_bytes: int) -> bytes:
    """Return the memory of an OrtValue on the host; NumPy has no bfloat16 to read it with."""
    return ctypes.string_at(value.data_ptr(), length_bytes) if length_bytes else b""


def eager(
    providers: list[Any] | None = None, target: Target | None = None, lengths: Sequence[int] | None = None
) -> Verdict:
    """Compare every type, length and special value, with and without a cap."""
    wanted, library = providers or [CUDA], target or built_target()
    chosen = LENGTHS if lengths is None else lengths  # read now: a prepared script sets LENGTHS
    compared, wrong = 0, []
    for dtype, element in _ELEMENTS.items():
        for cap in (None, CAP):
            attributes = {"kappa": KAPPA} if cap is None else {"kappa": KAPPA, "cap": cap}
            session = open_session(
                elementwise([jump_node("x", "y", **attributes)], element=element), wanted, target=library
            )
            require_on(session, wanted[0])
            for length in chosen:
                z = sample(length, dtype, seed=length)
                result = session.run_with_ort_values(None, {"x": to_value(z, dtype)})[0]
                compared += 1
                if to_bytes(result, z.nbytes) != expected(z, dtype, cap).tobytes():
                    wrong.append(f"{dtype} length {length} cap {cap}")
    model = elementwise([jump_node("x", "y", kappa=KAPPA)])
    place = providers_of_operators(model, wanted, {"x": sample(64, "float32")}, target=library).get(
        "JumpRelu", "nowhere"
    )
    if place != wanted[0]:
        wrong.append(f"JumpRelu ran on {place}")
    summary = f"{compared} comparisons, {len(wrong)} wrong" + (f": {wrong[0]}" if wrong else "")
    return Verdict("failed" if wrong else "passed", summary, {"compared": compared, "wrong": len(wrong)})


def bound(providers: list[Any] | None = None, target: Target | None = None, device: str = "cuda") -> Verdict:
    """Run with inputs and outputs bound to the device, for several sizes on one binding."""
    wanted, library = providers or [CUDA], target or built_target()
    session = open_session(elementwise([jump_node("x", "y", kappa=KAPPA)]), wanted, target=library)
    require_on(session, wanted[0])
    wrong = []
    for length in LENGTHS[1:]:
        z = sample(length, "float32", seed=length)
        source = device_value(z, device)
        result = onnxruntime.OrtValue.ortvalue_from_shape_and_type([length], np.float32, device, 0)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", source)
        binding.bind_ortvalue_output("y", result)
        session.run_with_iobinding(binding)
        if result.numpy().tobytes() != expected(z, "float32", None).tobytes():
            wrong.append(str(length))
        if source.numpy().tobytes() != z.tobytes():
            wrong.append(f"{length}: the bound input was overwritten")
    summary = f"{len(LENGTHS) - 1} lengths, {len(wrong)} wrong" + (f": length {wrong[0]}" if wrong else "")
    return Verdict("failed" if wrong else "passed", summary, {"wrong": len(wrong)})


def unaligned(providers: list[Any] | None = None, target: Target | None = None, device: str = "cuda") -> Verdict:
    """Bind input and output inside larger buffers, at addresses that are no multiple of 16 bytes."""
    wanted, library = providers or [CUDA], target or built_target()
    session = open_session(elementwise([jump_node("x", "y", kappa=KAPPA)]), wanted, target=library)
    require_on(session, wanted[0])
    wrong, compared = [], 0
    for length in (1, 3, 17, 1025, 262_147):
        for before, behind in ((1, 0), (0, 1), (3, 2)):
            z = sample(length, "float32", seed=length)
            room = np.full(length + 8, np.float32(-7))
            room[before : before + length] = z
            source, result = device_value(room, device), device_value(np.full(length + 8, np.float32(-7)), device)
            binding = session.io_binding()
            binding.bind_input("x", device, 0, np.float32, [length], source.data_ptr() + 4 * before)
            binding.bind_output("y", device, 0, np.float32, [length], result.data_ptr() + 4 * behind)
            session.run_with_iobinding(binding)
            compared += 1
            found = result.numpy()
            inside = found[behind : behind + length].tobytes() == expected(z, "float32", None).tobytes()
            if not inside or (np.delete(found, slice(behind, behind + length)) != -7).any():
                wrong.append(f"{length} elements, {before} before the input, {behind} before the output")
    summary = f"{compared} bindings, {len(wrong)} wrong" + (f": {wrong[0]}" if wrong else "")
    return Verdict("failed" if wrong else "passed", summary, {"wrong": len(wrong)})


def main() -> None:
    """Compare a few lengths on the GPU, for a sanitizer to watch; it makes a kernel some hundred times slower."""
    if not has_gpu():
        raise SystemExit("there is no usable GPU here")
    verdict = eager(lengths=(1, 7, 257, 4097))
    print(f"{verdict.status}: {verdict.summary}")


if __name__ == "__main__":
    main()

"""The kernel's memory traffic against a plain copy, and against torch's ReLU, on tensors too large for any cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from jr_onnx.runtime.ops_library import Target
from tools.checks.gpu.findings import SkipCheckError, Verdict
from tools.checks.gpu.sessions import CUDA, built_target, elementwise, has_gpu, jump_node, open_session, require_on

ELEMENTS = 1 << 28  # 1 GiB of float32
_CHAIN = 16  # kernels a run, so that starting a run does not count
_AIM = 0.9
_REPEATS = 5


def kernel_seconds(
    elements: int = ELEMENTS, providers: list[Any] | None = None, target: Target | None = None, device: str = "cuda"
) -> float:
    """Return the time of one JumpRelu pass over a tensor: the best of some runs of a chain, divided by its length."""
    wanted, library = providers or [CUDA], target or built_target()
    names = ["x", *(f"t{index}" for index in range(1, _CHAIN)), "y"]
    nodes = [
        jump_node(names[index], names[index + 1], kappa=0.01 + index / 1000) for index in range(_CHAIN)
    ]  # fmt: skip
    session = open_session(elementwise(nodes), wanted, target=library, optimise=False)
    require_on(session, wanted[0])
    # Random signs: a tensor of one value would not show what divergent results cost.
    values = np.random.default_rng(0).standard_normal(min(elements, 1 << 20), dtype=np.float32)
    source = onnxruntime.OrtValue.ortvalue_from_numpy(np.resize(values, elements), device, 0)
    result = onnxruntime.OrtValue.ortvalue_from_shape_and_type([elements], np.float32, device, 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", source)
    binding.bind_ortvalue_output("y", result)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return best_seconds(run) / _CHAIN


def best_seconds(run: Callable[[], object], repeats: int = _REPEATS) -> float:
    """Return the least time of some runs, after one to warm up."""
    run()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def torch_seconds(elements: int = ELEMENTS) -> tuple[float, float]:
    """Return the times of torch's copy and ReLU of a tensor on the GPU.

    Raises:
        SkipCheckError: torch is missing or has no GPU.
    """
    try:
        import torch
    except ImportError:
        raise SkipCheckError("torch is not installed, so there is no copy to compare with") from None
    if not torch.cuda.is_available():
        raise SkipCheckError("torch finds no GPU, so there is no copy to compare with")
    source = torch.randn(elements, device="cuda")
    target = torch.empty_like(source)

    def timed(step: Callable[[], object]) -> float:
        def run() -> None:
            for _ in range(_CHAIN):
                step()
            torch.cuda.synchronize()

        return best_seconds(run) / _CHAIN

    return timed(lambda: target.copy_(source)), timed(lambda: torch.relu(source))


def against_copy() -> Verdict:
    """Compare JumpRelu's bandwidth with a copy's; the aim is nine tenths."""
    copy, relu = torch_seconds()
    own = kernel_seconds()
    return judge(own, copy, relu)


def judge(own: float, copy: float, relu: float, elements: int = ELEMENTS) -> Verdict:
    """Turn three times of a pass over float32 elements, all reading and writing each once, into a verdict."""
    moved = 8 * elements / 1e9
    part = copy / own
    figures: dict[str, str | float] = {
        "jump_gb_s": moved / own, "copy_gb_s": moved / copy, "torch_relu_gb_s": moved / relu, "part_of_copy": part,
    }  # fmt: skip
    summary = (
        f"JumpRelu {moved / own:.0f} GB/s, copy {moved / copy:.0f} GB/s ({100 * part:.0f} %), "
        f"torch's ReLU {moved / relu:.0f} GB/s"
    )
    return Verdict("passed" if part >= _AIM else "failed", summary, figures)


def main() -> None:
    """Run the kernel on the GPU, for a profiler to watch."""
    if not has_gpu():
        raise SystemExit("there is no usable GPU here")
    print(f"{kernel_seconds():.6f} s for a pass over {ELEMENTS} elements")


if __name__ == "__main__":
    main()

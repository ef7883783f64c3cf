"""Retrofit against original on the GPU: three networks, three batch sizes, every lowering, data kept on the device."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx

from jr_onnx.bench import BenchReport, Request, bench
from jr_onnx.bench.models import build

KAPPA = 0.06
NETWORKS = ("resnet50", "mobilenet_v2", "wide_resnet")
BATCHES = (1, 32, 256)
# Opening a session takes seconds, for ONNX Runtime tries cuDNN's algorithms out; and sessions are open side by side,
# each with its memory, so that at 256 images a GPU holds fewer of them. `jr-onnx bench` measures the other options.
_OPTIONS = ("default", "both", "graph")
_OPTIONS_OF_LARGE, _LARGE = ("default", "both"), 64


def measure(
    name: str, *, provider: str = "cuda", batches: tuple[int, ...] = BATCHES, rounds: int = 40,
    progress: Callable[[str, int, int], None] | None = None,
) -> BenchReport:  # fmt: skip
    """Benchmark one network on a provider.

    Args:
        name: One of `NETWORKS`.
        provider: cuda; cpu to try the program itself.
        batches: Batch sizes.
        rounds: How often every variant runs.
        progress: As `bench` takes it.
    """
    with tempfile.TemporaryDirectory(prefix="check-gpu-") as folder:
        path = Path(folder) / f"{name}.onnx"
        onnx.save(build(name), str(path))
        request = Request(
            path, KAPPA, batches=batches, sessions=("plain", "optimised"), providers=(provider,), rounds=rounds,
            with_footprint=False, cuda_options=_OPTIONS_OF_LARGE if max(batches) > _LARGE else _OPTIONS,
        )  # fmt: skip
        return bench(request, progress)

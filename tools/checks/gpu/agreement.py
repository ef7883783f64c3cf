"""Does the GPU compute what it should: a network against the CPU, and whole retrofits by `jr-onnx verify`?"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from jr_onnx.bench.models import build
from jr_onnx.verifier import verify
from jr_onnx.verifier.evaluators.device import Device
from tools.checks.gpu.findings import Verdict
from tools.checks.gpu.models import KAPPA
from tools.checks.gpu.sessions import CPU, CUDA, open_session, require_on

_FEED = {"image": np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)}
# Without TF32 both round to float32 and differ by the order of sums alone: n sums of random sign are off by about
# sqrt(n) 2^-24 of their size, 7e-6 for the 512 * 9 products of the widest convolution, in 53 convolutions one after
# another. TF32's 2^-11 in every product would show.
_ACCEPTED = 1e-4


def with_the_cpu(providers: list[Any] | None = None, name: str = "resnet50") -> Verdict:
    """Compare an original on the GPU, TF32 off, with the CPU: shows that the installation computes at all."""
    wanted = providers or [(CUDA, {"use_tf32": "0"}), CPU]
    model = build(name)
    session = open_session(model, wanted)
    require_on(session, wanted[0][0] if isinstance(wanted[0], tuple) else wanted[0])
    found, expected = (item.run(None, _FEED)[0] for item in (session, open_session(model, [CPU])))
    off = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    words = f"relative difference {off:.2g}, accepted {_ACCEPTED:g}; ONNX Runtime {onnxruntime.__version__}"
    return Verdict("passed" if off <= _ACCEPTED else "failed", words, {"relative_difference": off})


def verified(name: str, provider: Device = "cuda", samples: int = 2) -> Verdict:
    """Verify a network's retrofit, with every lowering and all levels; ONNX's evaluator, which is slow, is left out."""
    report = verify(build(name), KAPPA, samples=samples, reference_samples=0, provider=provider)
    counts = {verdict: sum(check.verdict == verdict for check in report.checks) for verdict in ("passed", "failed")}
    words = f"{report.conclusion}: {counts['passed']} checks passed, {counts['failed']} failed, {report.flips} flips"
    if report.failures:
        words += f"; {report.failures[0]}"
    figures: dict[str, str | float] = {**counts, "not run": len(report.not_run), "flips": report.flips}
    return Verdict("passed" if report else "failed", words, figures)

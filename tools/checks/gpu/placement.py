"""Where standard operators run: ThresholdedRelu at two opsets, and whether Conv and Relu become one kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from tools.checks.gpu.findings import Verdict
from tools.checks.gpu.sessions import CPU, CUDA, conv_model, optimised_operators, providers_of_operators

_FEED = {"x": np.random.default_rng(0).standard_normal((2, 8, 16, 16)).astype(np.float32)}


def thresholded_relu(opset: int, providers: list[Any] | None = None) -> Verdict:
    """Find where ThresholdedRelu of an opset runs, and how many copies between the devices that brings."""
    wanted = providers or [CUDA, CPU]
    model = conv_model("ThresholdedRelu", opset, alpha=0.06)
    where = providers_of_operators(model, wanted, _FEED)
    operators = optimised_operators(model, wanted)
    copies = sum(count for name, count in operators.items() if name.startswith("Memcpy"))
    place = where.get("ThresholdedRelu", "nowhere: it was replaced")
    figures: dict[str, str | float] = {"provider": place, "copies": copies}
    return Verdict("measured", f"opset {opset}: {place}, {copies} copies between devices", figures)


def conv_relu_fusion(providers: list[Any] | None = None) -> Verdict:
    """Find whether ONNX Runtime makes Conv and Relu one operator: if not, a jump may cost what Relu costs."""
    operators = optimised_operators(conv_model("Relu", 17), providers or [CUDA, CPU])
    fused = operators["Relu"] == 0
    listing = ", ".join(f"{count} {name}" for name, count in sorted(operators.items()))
    return Verdict(
        "measured", f"{'fused' if fused else 'not fused'}: {listing}", {"fused": float(fused), "operators": listing}
    )  # fmt: skip

"""Outcomes made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jr_onnx.evaluation.outcome import Outcome


def outcome(entry: str, success: Sequence[bool], **changes: Any) -> Outcome:
    """An outcome in which all samples were classified correctly before."""
    count = len(success)
    fields: dict[str, Any] = {
        "model": "retrofit",
        "entry": entry,
        "view": "exact",
        "threat": "white_box",
        "protocol": "adaptive",
        "norm": "linf",
        "eps": 0.1,
        "spec": {"name": entry},
        "draws": 1,
        "decided_by": 1,
        "indices": tuple(range(count)),
        "labels": (0,) * count,
        "correct": (True,) * count,
        "success": tuple(success),
        "served_correct": (True,) * count,
        "served_success": tuple(success),
        "distance": tuple(0.1 if won else 0.0 for won in success),
        "relative": (0.0,) * count,
        "iterations": (1,) * count,
        "forward": (1,) * count,
        "backward": (1,) * count,
        "nonfinite": (0,) * count,
        "zero_gradient": (0,) * count,
        **changes,
    }
    return Outcome(**fields)


def first(count: int, total: int) -> list[bool]:
    """Success on the first `count` of `total` samples."""
    return [index < count for index in range(total)]

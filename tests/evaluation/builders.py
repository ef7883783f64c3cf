"""Outcomes and runs made by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.store import RunRecord
from jr_onnx.evaluation.summary import Evaluation, evaluate


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


def run_record(**changes: Any) -> RunRecord:
    """A run of one entry on one model and 100 samples, unless told otherwise."""
    fields: dict[str, Any] = {
        "suite": "full",
        "entries": ("pgd",),
        "models": {"retrofit": "b" * 64},
        "kappas": {"conv1/Relu": 0.5},
        "data": "digits (test)",
        "data_sha256": "c" * 64,
        "samples": 100,
        "block": 100,
        "norm": "linf",
        "eps": 0.1,
        "seed": 0,
        "preprocessing": '{"schema": "x", "layout": "NCHW"}',
        "options": "{}",
        "versions": {"torch": "2"},
        "host": "a machine",
        "device": "cpu",
        **changes,
    }
    return RunRecord(**fields)


def by_model(outcomes: Iterable[Outcome]) -> dict[str, dict[str, Outcome]]:
    """Model label -> entry -> outcome."""
    found: dict[str, dict[str, Outcome]] = {}
    for item in outcomes:
        found.setdefault(item.model, {})[item.entry] = item
    return found


def evaluation(*outcomes: Outcome, **changes: Any) -> Evaluation:
    """The evaluation of a run that has these outcomes, complete unless told otherwise."""
    known = by_model(outcomes)
    entries = tuple(dict.fromkeys(item.entry for item in outcomes))
    fields = {"entries": entries, "models": dict.fromkeys(known, "a" * 64), "samples": len(outcomes[0]), **changes}
    return evaluate(run_record(**fields), known)

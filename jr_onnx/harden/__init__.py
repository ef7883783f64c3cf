"""Adversarial training of an ONNX file: its weights change, and nothing else."""

from jr_onnx.harden.contest import (
    HARDENED,
    WITH_JUMP,
    ContestRequest,
    gain_of,
    hold,
    recommend,
    worst_case,
)
from jr_onnx.harden.recipe import Recipe
from jr_onnx.harden.record import Contest, Hardening, HardenResult
from jr_onnx.harden.run import HardenRequest, answered_by_model, default_output, harden
from jr_onnx.harden.trainer import TrainingProgress

__all__ = [
    "HARDENED",
    "WITH_JUMP",
    "Contest",
    "ContestRequest",
    "HardenRequest",
    "HardenResult",
    "Hardening",
    "Recipe",
    "TrainingProgress",
    "answered_by_model",
    "default_output",
    "gain_of",
    "harden",
    "hold",
    "recommend",
    "worst_case",
]

"""Prove that a retrofit computes what it should; needs onnxruntime, onnx and NumPy, never torch."""

from jr_onnx.verifier.inputs import InputOptions, InputsError
from jr_onnx.verifier.report import Check, Failure, VerifyReport
from jr_onnx.verifier.run import verify
from jr_onnx.verifier.whole_model.conversion import prove_conversion
from jr_onnx.verifier.whole_model.flips import (
    FLIP_LIMIT,
    FlipTally,
    NearJump,
    RunVerdict,
    SiteTrace,
    control_noise,
    judge,
)
from jr_onnx.verifier.whole_model.tolerance import Bound, rounding_bound

__all__ = [
    "FLIP_LIMIT",
    "Bound",
    "Check",
    "Failure",
    "FlipTally",
    "InputOptions",
    "InputsError",
    "NearJump",
    "RunVerdict",
    "SiteTrace",
    "VerifyReport",
    "control_noise",
    "judge",
    "prove_conversion",
    "rounding_bound",
    "verify",
]

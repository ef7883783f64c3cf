"""Which way a session took, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jr_onnx.records import Record

Mode = Literal["optimised", "plain", "saved", "none"]
Way = Literal["auto", "plain", "optimised"]


@dataclass(frozen=True, slots=True)
class RetrofitInfo(Record):
    """Which way a session went.

    Attributes:
        mode: optimised (retrofitted after ONNX Runtime's optimisation), plain (ONNX Runtime optimised the file as it
            is), saved (the file came from `jr-onnx optimize`), none (the model is not a retrofit).
        reason: Why plain, "" otherwise.
        sites: How many sites the retrofit has.
        jumps: How many jumps the optimised graph has; more than sites where functions are called several times.
        fused: How many jumps took the bias of a convolution along, on CUDA.
        library: Path of the op library that was registered, None without.
        library_problem: Why there is none, "" where it is registered or not needed.
        kappa_input: Name of the input that holds kappa, or None.
        mismatch: Where the graph and its provenance disagree, "" where they do not; what runs is the graph.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.session/1"
    mode: Mode
    reason: str = ""
    sites: int = 0
    jumps: int = 0
    fused: int = 0
    library: str | None = None
    library_problem: str = ""
    kappa_input: str | None = None
    mismatch: str = ""

"""The options of a rewrite, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, get_args

from jr_onnx.errors import InputError, require_choice
from jr_onnx.kappa import KappaPlan
from jr_onnx.rewriter.convert import Prover
from jr_onnx.rewriter.lowering import RequestedLowering, Target


@dataclass(frozen=True, slots=True)
class Options:
    """How to rewrite; see `rewrite` for the meaning of each."""

    plan: KappaPlan
    lowering: RequestedLowering = "auto"
    target: Target = "portable"
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    opset: int | None = None
    prove: Prover | None = None
    demote_initializer_inputs: bool = False
    replace: bool = False
    hash_data: bool = False
    timestamp: bool = False

    def __post_init__(self) -> None:
        """Refuse unknown values, and take one filter for a sequence of one."""
        require_choice("lowering", self.lowering, get_args(RequestedLowering))
        require_choice("target", self.target, get_args(Target))
        opset: object = self.opset
        if opset is not None and not isinstance(opset, int):
            raise InputError(f"opset is {opset!r}, expected a whole number")
        for name in ("include", "exclude"):
            value = getattr(self, name)
            # A string is a sequence too, of patterns of one letter each that match nearly everything.
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))


class OptionKeywords(TypedDict, total=False):
    """The keyword arguments of `rewrite` that are the same for every kind of model; see there."""

    lowering: RequestedLowering
    target: Target
    include: Sequence[str]
    exclude: Sequence[str]
    opset: int | None
    prove: Prover | None
    demote_initializer_inputs: bool
    replace: bool
    hash_data: bool
    timestamp: bool

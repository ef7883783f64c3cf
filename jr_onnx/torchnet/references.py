"""What the compiler knows about a value, of a site, and of what it cannot compile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["const", "host", "device"]


@dataclass(frozen=True, slots=True)
class Ref:
    """Where a value of the model lies: its place in the list, its kind, its ONNX element type (0 = unknown)."""

    place: int
    kind: Kind
    element_type: int = 0


@dataclass(frozen=True, slots=True)
class SitePlan:
    """What the compiler has to know of a site: its number, its cap, and its operand (None: the linear part's)."""

    number: int
    cap: float | None
    operand: str | None


@dataclass(frozen=True, slots=True, order=True)
class Unsupported:
    """One operator that cannot be evaluated, and where it stands."""

    op_type: str
    domain: str
    opset: int
    node: str
    reason: str

    def __str__(self) -> str:
        name = f"{self.domain}::{self.op_type}" if self.domain else self.op_type
        text = f"{name} (opset {self.opset}, node {self.node!r}"
        return f"{text}: {self.reason})" if self.reason else f"{text})"

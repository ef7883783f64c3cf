"""Which operators the proof knows: the rules by domain and name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jr_onnx.rows.node import Rule

STANDARD = ""
MICROSOFT = "com.microsoft"
BLOCKED = "com.microsoft.nchwc"
CLASSICAL = "ai.onnx.ml"


@dataclass(frozen=True, slots=True)
class Known:
    """A rule, and the inputs that may hold sizes which change with the batch."""

    rule: Rule
    sizes: frozenset[int]


RULES: dict[tuple[str, str], Known] = {}


def rule(*names: str, domain: str = STANDARD, sizes: tuple[int, ...] = ()) -> Callable[[Rule], Rule]:
    """Register a rule for operators of a domain.

    Args:
        names: The operators.
        domain: Their domain.
        sizes: Inputs through which they may take sizes that change with the batch.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            if (domain, name) in RULES:
                raise ValueError(f"two rules for {name}")
            RULES[domain, name] = Known(function, frozenset(sizes))
        return function

    return register

"""The table of operators, and what a builder sees of a node while the model is compiled.

An operator is registered as a *builder*: it reads the node's attributes and constant inputs once and returns a
function of tensors, which is all that runs at every forward pass.

    @op("Relu")
    def _relu(node: Node) -> Function:
        return torch.relu
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

import torch

from jr_onnx.element_types import type_name
from jr_onnx.torchnet.dtypes import Precision

MIN_OPSET = 7
MAX_OPSET = 28
MICROSOFT = "com.microsoft"

Attribute = int | float | str | torch.Tensor | list[int] | list[float] | list[str]
"""The value of an attribute."""
Default = TypeVar("Default")
Result = torch.Tensor | Sequence[torch.Tensor]
Function = Callable[..., Result]
"""Takes the node's inputs (None where absent) and returns a tensor, or a tuple for several outputs."""
Builder = Callable[["Node"], Function]


class UnsupportedNodeError(Exception):
    """A node uses a registered operator in a way that is not supported; the message is the reason."""


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One registered operator over a range of operator set versions.

    Attributes:
        op_type: Name of the operator.
        domain: Its domain, "" for the standard one.
        first: First operator set version with these semantics.
        last: Last one.
        host: Positions of inputs that steer shapes (axes, sizes, pads): they are read on the host.
        build: The builder.
    """

    op_type: str
    domain: str
    first: int
    last: int
    host: frozenset[int]
    build: Builder


TABLE: dict[tuple[str, str], list[OpSpec]] = {}


def op(
    *names: str, first: int = 1, last: int = 10**6, host: Sequence[int] = (), domain: str = ""
) -> Callable[[Builder], Builder]:
    """Register a builder for operators of a domain between two versions, both included."""

    def register(build: Builder) -> Builder:
        for name in names:
            spec = OpSpec(name, domain, first, last, frozenset(host), build)
            TABLE.setdefault((domain, name), []).append(spec)
        return build

    return register


def find(domain: str, op_type: str, version: int) -> OpSpec | None:
    """Return the operator's entry for an operator set version, or None."""
    for spec in TABLE.get((domain, op_type), ()):
        if spec.first <= version <= spec.last:
            return spec
    return None


@dataclass(slots=True)
class Node:
    """What a builder sees of a node.

    Attributes:
        op_type: The operator.
        name: The node's name or first output, for messages.
        opset: Version of the operator's domain.
        attributes: Name -> value: int, float, str, list of these, or a tensor.
        constants: For every input the tensor where it is constant, else None.
        present: For every input whether it is given.
        outputs: How many outputs are wanted; a middle one may be unused.
        precision: Element types to torch types.
        lead: The batch size baked into the export where constants that begin with it are to follow the batch.
        element_types: For every input its ONNX element type where the model declares it, else 0.
    """

    op_type: str
    name: str
    opset: int
    attributes: dict[str, Attribute]
    constants: list[torch.Tensor | None]
    present: list[bool]
    outputs: int
    precision: Precision = field(default_factory=Precision)
    lead: int | None = None
    element_types: list[int] = field(default_factory=list)

    def attr(self, name: str, default: Default) -> Default:
        """Return an attribute, or the default, of whose type it is by the operator's schema."""
        return cast("Default", self.attributes.get(name, default))

    def integer(self, name: str) -> int | None:
        """Return an integer attribute, None where it is absent."""
        return cast("int | None", self.attributes.get(name))

    def number(self, name: str) -> float | None:
        """Return an attribute that is a number, None where it is absent."""
        return cast("float | None", self.attributes.get(name))

    def ints(self, name: str) -> list[int] | None:
        """Return an attribute that is a list of integers, None where it is absent."""
        return cast("list[int] | None", self.attributes.get(name))

    def floats(self, name: str) -> list[float] | None:
        """Return an attribute that is a list of numbers, None where it is absent."""
        return cast("list[float] | None", self.attributes.get(name))

    def required(self, name: str) -> int:
        """Return an integer attribute that the operator must have, or refuse the node."""
        if name not in self.attributes:
            raise UnsupportedNodeError(f"it has no attribute {name}")
        return int(cast("int", self.attributes[name]))

    def has(self, index: int) -> bool:
        """Return whether an optional input is given."""
        return index < len(self.present) and self.present[index]

    def const(self, index: int) -> torch.Tensor | None:
        """Return a constant input, or None where it is absent or computed."""
        return self.constants[index] if index < len(self.constants) else None

    def element_type(self, index: int) -> int:
        """Return the ONNX element type of an input, 0 where it is absent or the model does not declare it."""
        return self.element_types[index] if index < len(self.element_types) else 0

    def dtype(self, element_type: int) -> torch.dtype:
        """Return the torch type of an ONNX element type, or refuse the node."""
        found = self.precision.of(element_type)
        if found is None:
            raise UnsupportedNodeError(f"element type {type_name(element_type)}")
        return found

    def list_input(self, index: int) -> Callable[[torch.Tensor | None], list[int] | None]:
        """Return a reader of a small input of integers as a list: read once where constant, else at every pass."""
        return cast("Callable[[torch.Tensor | None], list[int] | None]", self.number_list_input(index))

    def number_list_input(self, index: int) -> Callable[[torch.Tensor | None], list[float] | None]:
        """Return such a reader of an input of any numbers."""
        known = self.const(index)
        if known is not None:
            values = known.reshape(-1).tolist()
            return lambda _: values
        return _as_list

    def refuse(self, reason: str) -> UnsupportedNodeError:
        """Return the error to raise for a use of the operator that is not supported."""
        return UnsupportedNodeError(reason)


def _as_list(tensor: torch.Tensor | None) -> list[float] | None:
    """Return the elements of a tensor as Python numbers, None for an absent input."""
    return None if tensor is None else tensor.reshape(-1).tolist()

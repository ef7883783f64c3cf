"""A node as the rules see it: its inputs as values, its attributes, and the version of its operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import onnx

from jr_onnx.rows.size import ONE, Size
from jr_onnx.rows.value import NotProvedError, Value

Answer = Value | list[Value]
"""What a rule returns: one value for all outputs, or one for each."""

Rule = Callable[["Node"], Answer]
Default = TypeVar("Default")


@dataclass(frozen=True, slots=True)
class Node:
    """One node with what flows into it.

    Attributes:
        op: Its operator.
        version: Version of its operator's domain that its scope imports.
        inputs: Its inputs; None for one that is left away.
        names: Names of its inputs.
        outputs: Number of its outputs.
        attributes: Its attributes, references of function bodies resolved.
        fresh: Makes a size that is known only not to change with the batch.
        run: Runs a sub-graph attribute on values for its inputs.
    """

    op: str
    version: int
    inputs: tuple[Value | None, ...]
    names: tuple[str, ...]
    outputs: int
    attributes: Mapping[str, onnx.AttributeProto]
    fresh: Callable[[], Size]
    run: Callable[[onnx.GraphProto, Sequence[Value]], list[Value]]

    def find(self, index: int) -> Value | None:
        """Return an input, None where it is left away."""
        return self.inputs[index] if index < len(self.inputs) else None

    def value(self, index: int) -> Value:
        """Return an input that must be there."""
        found = self.find(index)
        if found is None:
            raise NotProvedError(f"its input {index} is missing")
        return found

    def given(self) -> list[Value]:
        """Return the inputs that are there."""
        return [value for value in self.inputs if value is not None]

    def attr(self, name: str, default: Default) -> Default:
        """Return an attribute's value, or the default, of whose type it is by the operator's schema."""
        found = self.attributes.get(name)
        value: Default = default if found is None else onnx.helper.get_attribute_value(found)
        return value

    def ints(self, name: str) -> list[int] | None:
        """Return an attribute that is a list of integers, None where it is absent."""
        none: Sequence[int] = ()
        return [int(item) for item in self.attr(name, none)] if name in self.attributes else None

    def integer(self, name: str) -> int:
        """Return an integer attribute that the operator must have."""
        if name not in self.attributes:
            raise NotProvedError(f"it has no attribute {name}")
        return int(self.attr(name, 0))

    def graph(self, name: str) -> onnx.GraphProto:
        """Return a sub-graph that the operator must have."""
        if name not in self.attributes:
            raise NotProvedError(f"it has no attribute {name}")
        found: onnx.GraphProto = self.attr(name, onnx.GraphProto())
        return found

    def only(self, *indices: int) -> None:
        """Refuse rows in any input but these."""
        for index, value in enumerate(self.inputs):
            if index not in indices and value is not None and value.axis is not None:
                raise NotProvedError(
                    f"its input {self.names[index]!r} holds rows, expected one that is the same for all"
                )

    def scalars(self, indices: Iterable[int]) -> None:
        """Refuse inputs that may be vectors along the rows: each must hold one number or be omitted."""
        for index in indices:
            value = self.find(index)
            if value is not None and (value.dims is None or any(size != ONE for size in value.dims)):
                raise NotProvedError(f"its input {self.names[index]!r} may hold one number for each row")

    def same_rank(self, value: Value) -> tuple[Size, ...]:
        """Return the sizes of a value whose rank must be known."""
        if value.dims is None:
            raise NotProvedError("the rank of one of its inputs is not known")
        return value.dims

    def spot(self, axis: int, rank: int) -> int:
        """Return an axis counted from the front, refusing one that does not exist."""
        if not -rank <= axis < rank:
            raise NotProvedError(f"its axis {axis} does not exist in a value of rank {rank}")
        return axis % rank if rank else 0

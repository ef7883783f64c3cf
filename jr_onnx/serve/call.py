"""A request and its answer, independent of the transport."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jr_onnx.element_types import Array
from jr_onnx.serve.faults import BadRequestError, quoted
from jr_onnx.serve.gate import Holding
from jr_onnx.serve.tensors import TensorSpec

LARGEST_ID = 1024


@dataclass(frozen=True, slots=True)
class ModelInterface:
    """The inputs, outputs and limits of a model as clients see them.

    Attributes:
        name: Name of the model.
        version: Its version.
        inputs: Inputs by name.
        outputs: Outputs by name, in the model's order.
        batched: The first dimension of every input and output is open: it is a batch.
        max_rows: Largest batch of one request.
        finite_only: NaN and infinities in inputs are refused.
        labels: Names of the classes of an output, by the output's name.
    """

    name: str
    version: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    batched: bool
    max_rows: int
    finite_only: bool = False
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def input(self, name: object) -> TensorSpec:
        """Return an input.

        Raises:
            BadRequestError: The model has no visible input of this name.
        """
        spec = self.inputs.get(name) if isinstance(name, str) else None
        if spec is None:
            raise BadRequestError(
                f"model {self.name!r} has no input {quoted(name)}, expected {', '.join(map(repr, self.inputs))}"
            )
        return spec

    def output(self, name: object) -> TensorSpec:
        """Return an output.

        Raises:
            BadRequestError: The model has no output of this name.
        """
        spec = self.outputs.get(name) if isinstance(name, str) else None
        if spec is None:
            raise BadRequestError(
                f"model {self.name!r} has no output {quoted(name)}, expected {', '.join(map(repr, self.outputs))}"
            )
        return spec

    def check(self, inputs: Mapping[str, Array]) -> int:
        """Check what concerns the inputs together, and return the rows of the batch (1 without a batch).

        Raises:
            BadRequestError: An input is missing, batches differ or are too large, or a number is not finite.
        """
        for name, spec in self.inputs.items():
            if name not in inputs and not spec.optional:
                raise BadRequestError(f"input {name!r} of model {self.name!r} is missing")
        rows = 1
        if self.batched:
            sizes = {array.shape[0] for name, array in inputs.items() if not self.inputs[name].optional}
            if len(sizes) > 1:
                raise BadRequestError(f"the inputs have batches of {quoted(sorted(sizes))}, expected the same for all")
            rows = next(iter(sizes))
            if rows > self.max_rows:
                raise BadRequestError(f"the batch has {rows} rows, expected at most {self.max_rows}")
        if self.finite_only:
            for name, array in inputs.items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise BadRequestError(f"input {name!r} holds NaN or an infinity, expected finite numbers")
        return rows


@dataclass(slots=True)
class Call:
    """A checked request.

    Attributes:
        inputs: Arrays by input name.
        rows: Size of the batch.
        id: The client's name for the request; "" for none.
        binary: Wanted outputs, in the order of the answer, and whether each is to be sent as bytes (REST only).
        timeout_s: How long the client waits; None for the server's own limit.
        classes: Outputs of which the client wants the largest elements instead, and how many.
        holding: The inputs' bytes in the budget; released when they are no longer needed.
    """

    inputs: dict[str, Array]
    rows: int
    id: str
    binary: dict[str, bool]
    timeout_s: float | None = None
    classes: Mapping[str, int] = field(default_factory=dict)
    holding: Holding | None = None


def take(inputs: dict[str, Array], spec: TensorSpec, array: Array) -> None:
    """Add an input to those of a request.

    Raises:
        BadRequestError: It was given before.
    """
    if spec.name in inputs:
        raise BadRequestError(f"input {spec.name!r} is given twice")
    inputs[spec.name] = array


def refuse_parameters(what: str, parameters: Iterable[str]) -> None:
    """Refuse parameters that change what a tensor means and that this server does not know.

    Raises:
        BadRequestError: One of them is given.
    """
    for name in parameters:
        if name.startswith("shared_memory"):
            raise BadRequestError(f"{what} lies in shared memory, which this server does not support")
        if name == "classification" and not what.startswith("output"):
            raise BadRequestError(f"{what} has the parameter {name!r}, which is for outputs")


def client_timeout(value: object) -> float | None:
    """Return the client's timeout (microseconds, as in Triton's protocol) in seconds.

    Raises:
        BadRequestError: It is not a whole number.
    """
    if value is None or value == 0:
        return None
    if type(value) is not int or value < 0:
        raise BadRequestError(f"the parameter 'timeout' is {quoted(value)}, expected microseconds")
    return value / 1e6

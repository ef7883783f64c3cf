"""Are the rows of a batch independent? Proved from the graph, or not proved with the node where the proof ends."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from jr_onnx.rows.follow import TooMuchError, Walk
from jr_onnx.rows.size import ONE, Size
from jr_onnx.rows.value import ALONE, NotProvedError, Unproved, Value, rows


@dataclass(frozen=True, slots=True)
class RowProof:
    """The answer, true where it is proved.

    Proved means: whatever rows a run holds, every output has one row for each of them, and that row is what the model
    computes from it alone, up to rounding (kernels may add in another order for another batch).

    Attributes:
        proved: Whether it is.
        node: Name and operator of the node where the proof ends; empty where no single node is to blame.
        reason: Why it ends there.
    """

    proved: bool
    node: str = ""
    reason: str = ""

    def __bool__(self) -> bool:
        """Whether it is proved."""
        return self.proved

    @property
    def why(self) -> str:
        """Node and reason as one sentence; empty where it is proved."""
        return f"node {self.node}: {self.reason}" if self.node else self.reason


def prove_rows(model: onnx.ModelProto) -> RowProof:
    """Prove that the rows of a batch do not touch each other, or say where the proof ends.

    The batch is the first axis of every input that has no default. Sizes that the file leaves open beyond it are
    taken to be the same for all rows of a run, as they are wherever requests are joined. Weights are not read, only
    their shapes; external data is not opened.

    Args:
        model: The model; it is not changed.
    """
    try:
        outputs = Walk(model).run(_inputs(model))
        for name, state in outputs:
            _check_output(name, state)
    except _EndError as error:
        return RowProof(proved=False, node=error.node, reason=error.reason)
    except (NotProvedError, RecursionError) as error:
        reason = str(error) if isinstance(error, TooMuchError | NotProvedError) else "its graphs are nested too deeply"
        return RowProof(proved=False, reason=reason)
    return RowProof(proved=True)


class _EndError(NotProvedError):
    def __init__(self, node: str, reason: str) -> None:
        super().__init__(reason)
        self.node, self.reason = node, reason


def _inputs(model: onnx.ModelProto) -> dict[str, Value]:
    graph = model.graph
    defaults = {tensor.name for tensor in graph.initializer} | {item.values.name for item in graph.sparse_initializer}
    result = {}
    for item in graph.input:
        if item.name in defaults:
            continue
        tensor = item.type.tensor_type
        if not item.type.HasField("tensor_type") or not tensor.HasField("shape") or not tensor.shape.dim:
            raise NotProvedError(f"the input {item.name!r} has no axis for the batch")
        first, *others = tensor.shape.dim
        if first.HasField("dim_value") and first.dim_value >= 0:
            raise NotProvedError(f"the first axis of the input {item.name!r} is fixed to {first.dim_value}")
        sizes = [
            Size(dim.dim_value)
            if dim.HasField("dim_value") and dim.dim_value >= 0
            else Size(1, (f"in:{item.name}.{axis}",))
            for axis, dim in enumerate(others, 1)
        ]
        result[item.name] = rows(0, ALONE, [ONE, *sizes])
    if not result:
        raise NotProvedError("the model takes no input")
    return result


def _check_output(name: str, state: Value | Unproved) -> None:
    if isinstance(state, Unproved):
        raise _EndError(state.node, state.reason)
    if state.axis is None:
        raise NotProvedError(f"the output {name!r} has no axis for the batch")
    if state.axis != 0 or state.block != ALONE:
        raise NotProvedError(f"the output {name!r} does not have one entry along its first axis for each row")

"""Prove that nothing else moved: undo the rewrite on a copy, and compare with the source field by field.

What comes back must be the source, unknown fields included. The checker must pass wherever it passed before, and the
sites that are left must be those that were not rewritten. A broken contract is a defect of this package; it is raised
before anything is written.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import checker

from jr_onnx.errors import ContractError, one_line
from jr_onnx.modelfile import copied, tensors
from jr_onnx.modelfile.messages import same_message, unpack
from jr_onnx.modelfile.wire import TOKEN_BYTES
from jr_onnx.rewriter.differences import differences
from jr_onnx.rewriter.sites import Site, locate
from jr_onnx.rewriter.undo import undo

_SHOWN = 3
_ANY = sys.maxsize  # the source was within the bound, and a rewrite adds a few nodes at every site
# Least bytes an element can take; half a byte for 4-bit types is rounded down to a quarter to err on the safe side.
_NARROW = 0.25


@dataclass(frozen=True)
class CheckerVerdict:
    """What onnx.checker reports about a model: `problem` is None where it passes."""

    problem: str | None


def check(model: onnx.ModelProto) -> CheckerVerdict:
    """Run onnx.checker on a model whose weights may be tokens or external; their contents do not matter to it.

    Such a tensor is shown to the checker as one float: it would compare the token's length with the shape, and look
    for external files in the working directory. Presence and length of external data are checked elsewhere.
    """
    inline = copied(model)
    for tensor in tensors(inline):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or _is_token(tensor):
            name = tensor.name
            tensor.Clear()
            tensor.CopyFrom(onnx.TensorProto(name=name, dims=[1], data_type=onnx.TensorProto.FLOAT, float_data=[0.0]))
    try:
        checker.check_model(inline)
    except checker.ValidationError as error:
        return CheckerVerdict(one_line(error))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a library may raise anything on a model that it was not made for
        return CheckerVerdict(f"{type(error).__name__}: {one_line(error)}")
    return CheckerVerdict(None)


def ensure(
    source: onnx.ModelProto,
    output: onnx.ModelProto,
    before: Iterable[Site],
    rewritten: set[str],
    clones: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> CheckerVerdict:
    """Check a rewrite's contract.

    Args:
        source: The model before.
        output: The retrofitted model, provenance included.
        before: The sites that the rewrite found, and the gates and clamps: what is which is judged by the neighbours,
            which a rewrite may change.
        rewritten: Ids of the sites that were rewritten.
        clones: Path of every scope in a cloned function -> path of the same scope in the original, which nothing
            calls any more.
        folder: The folder that external data is relative to, or None.

    Returns:
        What the checker reports about the output; a problem only if it had one with the source.

    Raises:
        ContractError: Something else moved, other sites are left than expected, or the checker fails where it passed.
    """
    back = copied(output)
    record = undo(back)
    if not same_message(source, back):
        moved = differences(source, back)[:_SHOWN]
        raise ContractError(f"the rewrite moved more than its sites: {'; '.join(moved) or 'bytes differ'}")
    # A site is known by its scope and its output: ids of equally named nodes are numbered, and shift with the rewrite.
    # Jumps that the model has itself are not counted: one whose ReLU was rewritten is no longer found.
    located = locate(output, folder, _ANY).located
    left = {_place(item.site, clones or {}) for item in located if item.match.jump is None}
    expected = {_place(site, {}) for site in before if site.id not in rewritten and not site.is_own_jump}
    for path, _, packed in record.undo.nodes_removed:  # a ReLU inside a jump goes with it
        expected.difference_update((path, name) for name in unpack(onnx.NodeProto, packed).output)
    if left != expected:
        odd = ", ".join(f"{scope or 'main graph'}: {name}" for scope, name in sorted(left ^ expected)[:_SHOWN])
        raise ContractError(f"site mismatch after the rewrite: {odd}")
    after = check(output)
    if after.problem is not None:
        earlier = _as_of(source, output.ir_version)
        if earlier.problem is None:
            raise ContractError(f"onnx.checker passed the source and fails the result: {after.problem}")
    return after


def _is_token(tensor: onnx.TensorProto) -> bool:
    """Tell whether a tensor's data may be a token: 16 bytes where the shape asks for a large payload."""
    if math.prod(tensor.dims) * _NARROW < TOKEN_BYTES:
        return False
    return TOKEN_BYTES in (len(tensor.raw_data), 4 * len(tensor.float_data), 8 * len(tensor.double_data))


def _place(site: Site, clones: Mapping[str, str]) -> tuple[str, str]:
    """Return scope and output of a site; a site in a clone counts as the original's."""
    return clones.get(site.scope, site.scope), site.output


def _as_of(source: onnx.ModelProto, ir_version: int) -> CheckerVerdict:
    """Check the source at the IR version of the result: a newer one has the checker look at more, functions say."""
    earlier = check(source)
    if earlier.problem is not None or source.ir_version == ir_version:
        return earlier
    raised = copied(source)
    raised.ir_version = ir_version
    return check(raised)

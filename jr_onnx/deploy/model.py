"""The facts of a model that packages and the server need: its interface, its files and its requirements.

The file is parsed without its external data; nothing but the names of the data files is read of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import onnx

from jr_onnx import provenance
from jr_onnx.errors import ModelError
from jr_onnx.modelfile import ModelFile, external_tensors, load
from jr_onnx.opsets import STANDARD_DOMAINS
from jr_onnx.provenance import Provenance
from jr_onnx.rewriter.agreement import disagreement, examine
from jr_onnx.rewriter.optimised import is_optimised
from jr_onnx.rewriter.scopes import all_nodes
from jr_onnx.rows import RANDOM_OPERATORS, RowProof, prove_rows
from jr_onnx.semantics import BIAS_OP_TYPE, DRAW_OP_TYPE, OP_DOMAIN, OP_TYPE

_BLOCKED_LAYOUT = "com.microsoft.nchwc"
"""Domain of the operators into which ONNX Runtime lays a network out for one processor."""

_TRAINING_MODE = 2  # the input that tells Dropout whether it drops anything
_RANDOM_ATTRIBUTES = {"kappa_low", "kappa_high"}


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One input or output of the model.

    Attributes:
        name: Its name.
        element_type: Value of `onnx.TensorProto.DataType`.
        dims: Sizes, -1 where the model leaves one open; None where not even the rank is known.
        optional: An input with a default: an initializer of the same name.
    """

    name: str
    element_type: int
    dims: tuple[int, ...] | None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a package needs to know of a model.

    Attributes:
        ir_version: IR version of the file.
        opset: Version of the standard operators it imports, 0 where it imports none.
        inputs: All graph inputs, those with a default included.
        outputs: All graph outputs.
        external: Locations of the external data, relative to the model's folder, sorted.
        custom_ops: Operator types of this package's domain that nodes of the model use.
        fallbacks: Those of `custom_ops` that a model-local function defines as well.
        draws_in_op: A node draws kappa itself, from the operating system's entropy.
        draws_in_graph: Type of a standard operator of the model that may draw random numbers, "" without one.
        provenance: What the retrofit recorded, None for a model that is not a retrofit.
        is_host_bound: ONNX Runtime or `jr-onnx optimize` has fitted the file to the processor it ran on.
        rows: Whether the rows of a batch are proved independent.
        mismatch: Where the graph and its provenance disagree, "" where they do not.
    """

    ir_version: int
    opset: int
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    external: tuple[str, ...]
    custom_ops: tuple[str, ...]
    fallbacks: tuple[str, ...]
    draws_in_op: bool
    provenance: Provenance | None
    is_host_bound: bool = False
    draws_in_graph: str = ""
    rows: RowProof = field(default_factory=lambda: RowProof(proved=False, reason="the graph was not looked at"))
    mismatch: str = ""

    @property
    def kappa_inputs(self) -> tuple[str, ...]:
        """Names of the graph inputs through which the retrofit takes kappa at run time."""
        if self.provenance is None:
            return ()
        added = set(self.provenance.undo.inputs_added)
        return tuple(tensor.name for tensor in self.inputs if tensor.name in added)


def read_model(path: Path, *, named: Path | None = None, source: ModelFile | None = None) -> ModelFacts:
    """Read the facts of a model file.

    Args:
        path: The file.
        named: What messages call it, where it is a copy.
        source: The model in memory, where it has been read already.

    Raises:
        ModelError: The file cannot be read, is not an ONNX model, or its interface is not one of plain tensors.
    """
    source = source if source is not None else load(path, named=named)
    path, model = named or path, source.proto
    if model.ir_version == 0 or not model.opset_import or not model.graph.output:
        raise ModelError(f"{path} is not an ONNX model: it has no IR version, no opset or no output")
    everything = list(all_nodes(model))
    nodes = [node for node in everything if node.domain == OP_DOMAIN]
    custom_ops = sorted({node.op_type for node in nodes})
    functions = {function.name for function in model.functions if function.domain == OP_DOMAIN}
    initializers = {tensor.name for tensor in model.graph.initializer}
    initializers |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return ModelFacts(
        ir_version=model.ir_version,
        opset=max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0),
        inputs=tuple(_tensor(value, path, optional=value.name in initializers) for value in model.graph.input),
        outputs=tuple(_tensor(value, path) for value in _outputs(model)),
        external=tuple(sorted({tensor.location for tensor in external_tensors(model)})),
        custom_ops=tuple(custom_ops),
        fallbacks=tuple(name for name in custom_ops if name in functions),
        draws_in_op=any(_draws(node) for node in nodes),
        draws_in_graph=next((node.op_type for node in everything if _may_draw(node)), ""),
        provenance=provenance.read(model),
        is_host_bound=any(node.domain == _BLOCKED_LAYOUT for node in everything) or is_optimised(model),
        mismatch=examine(model, source.payloads, source.folder).reason,
        rows=prove_rows(model),
    )


def require_truth(facts: ModelFacts, named: Path) -> None:
    """Refuse a model whose graph does not compute what its provenance says: what a package or server tells of it is so.

    Raises:
        RefusalError: It does not.
    """
    if facts.mismatch:
        raise disagreement(str(named), facts.mismatch)


def _outputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the outputs, their shapes inferred where the file leaves something open.

    ONNX Runtime infers them too, and Triton refuses a configuration that is less exact than the session's answer.
    """
    if all(_is_known(value.type.tensor_type) for value in model.graph.output):
        return list(model.graph.output)
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph.output
    except Exception:  # noqa: BLE001 - onnx raises a dozen classes on a model that it was not made for
        return list(model.graph.output)  # the caller says that a shape is missing
    by_name = {value.name: value for value in inferred}
    return [by_name.get(value.name, value) for value in model.graph.output]


def _is_known(tensor: onnx.TypeProto.Tensor) -> bool:
    """Return whether every size but the first, which may be the batch, is a number."""
    return tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim[1:])


def _tensor(value: onnx.ValueInfoProto, path: Path, *, optional: bool = False) -> TensorFacts:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ModelError(
            f"{path}: {value.name!r} is a {(kind or 'untyped value').removesuffix('_type')}, expected a tensor",
            hint="Export the model with plain tensors (scikit-learn converters: zipmap=False)",
        )
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return TensorFacts(value.name, tensor.elem_type, None, optional)
    dims = tuple(max(dim.dim_value, -1) if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return TensorFacts(value.name, tensor.elem_type, dims, optional)


def _may_draw(node: onnx.NodeProto) -> bool:
    if node.domain not in STANDARD_DOMAINS:
        return False
    return node.op_type in RANDOM_OPERATORS or (node.op_type == "Dropout" and len(node.input) > _TRAINING_MODE)


def _draws(node: onnx.NodeProto) -> bool:
    if node.op_type == DRAW_OP_TYPE:
        return True
    return node.op_type in (OP_TYPE, BIAS_OP_TYPE) and any(
        attribute.name in _RANDOM_ATTRIBUTES for attribute in node.attribute
    )

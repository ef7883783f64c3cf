"""Read what is to be evaluated: a file or proto, its original if it is a retrofit, its input and its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from jr_onnx import provenance
from jr_onnx.data import required_inputs
from jr_onnx.data.further import filled
from jr_onnx.errors import InputError, ModelError
from jr_onnx.modelfile import copied, from_proto, load, whole
from jr_onnx.provenance import Provenance
from jr_onnx.rewriter.agreement import restore_in_place
from jr_onnx.torchnet.dtypes import FLOATS

_MATRIX = 2


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The image input: its name, its element type, and its sizes (None where free)."""

    name: str
    element_type: int
    shape: tuple[int | None, ...]

    @property
    def batch(self) -> int | None:
        """The batch size the model declares, None where it is free."""
        return self.shape[0] if self.shape else None


@dataclass(frozen=True, slots=True)
class Source:
    """A model to evaluate.

    Attributes:
        model: The original model with all its weights: a retrofit's jumps are taken out again, and come back as the
            sites' kappas.
        provenance: Of the retrofit, or None.
        given: What was read.
    """

    model: onnx.ModelProto
    provenance: Provenance | None
    given: str | Path | onnx.ModelProto


Readable = str | Path | onnx.ModelProto | Source
"""A model file, a model in memory, or one that was read before and is not read again."""


def read(model: Readable, values: Mapping[str, float] | None = None) -> Source:
    """Read a model.

    Args:
        model: A path, a ModelProto, or what `read` returned.
        values: Inputs to be filled with a number.

    Raises:
        ModelError: The file is not a usable model.
        InputError: A value names no input of numbers.
    """
    if isinstance(model, Source):
        return replace(model, model=with_values(model.model, values or {}))
    given = from_proto(model) if isinstance(model, onnx.ModelProto) else load(model)
    if not given.proto.graph.node:
        raise ModelError("the model has no nodes")
    record = provenance.read(given.proto)
    if record is not None:
        record = restore_in_place(given.proto, given.name or "the model", given.payloads, given.folder)
    return Source(with_values(whole(given), values or {}), record, model)


def with_values(model: onnx.ModelProto, values: Mapping[str, float]) -> onnx.ModelProto:
    """Return the model with some of its inputs turned into constants, each filled with one number.

    A free first axis has length one in the constant, which broadcasts over the batch.

    Raises:
        InputError: A value names no input of numbers.
    """
    if not values:
        return model
    known = {item.name: item for item in required_inputs(model)}
    copy = copied(model)
    for name, value in values.items():
        if name not in known:
            raise InputError(f"the model has no input {name!r} to give a value, it has {', '.join(known) or 'none'}")
        copy.graph.initializer.append(onnx.numpy_helper.from_array(filled(known[name], value, 1), name))
    return copy


def image_input(model: onnx.ModelProto, shape: Sequence[int | None] | None) -> ImageInput:
    """Return the model's one input.

    Args:
        model: The model.
        shape: The caller's word on the shape, or None.

    Raises:
        ModelError: The model has several inputs, none, or one without a shape.
        InputError: The caller's shape contradicts the model's.
    """
    required = {item.name for item in required_inputs(model)}
    inputs = [value for value in model.graph.input if value.name in required]
    if len(inputs) != 1:
        names = ", ".join(repr(value.name) for value in inputs) or "none"
        raise ModelError(
            f"the model has {len(inputs)} inputs ({names}), expected one image input",
            hint="Give the others a value (--value NAME=NUMBER, in Python values={name: number}), or export the model "
            "without them",
        )
    value = inputs[0]
    tensor = value.type.tensor_type
    declared: tuple[int | None, ...] | None = None
    if tensor.HasField("shape"):
        declared = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    if shape is not None:
        if declared is not None and not _agree(declared, shape):
            raise InputError(f"the given input shape {list(shape)} contradicts the model's, {list(declared)}")
        declared = tuple(shape) if declared is None else _merged(declared, shape)
    if not declared:
        raise ModelError(
            f"the model does not declare a shape with a batch axis for its input {value.name!r}",
            hint="Export it with its shape; in Python give input_shape=(None, channels, height, width)",
        )
    return ImageInput(str(value.name), int(tensor.elem_type), declared)


def _agree(declared: Sequence[int | None], given: Sequence[int | None]) -> bool:
    return len(declared) == len(given) and all(
        one is None or other is None or one == other for one, other in zip(declared, given, strict=True)
    )


def _merged(declared: Sequence[int | None], given: Sequence[int | None]) -> tuple[int | None, ...]:
    return tuple(one if other is None else other for one, other in zip(declared, given, strict=True))


def refuse_maps(names: Sequence[str]) -> None:
    """Refuse scores that come as a sequence of maps from class to probability, as scikit-learn's converters write them.

    Args:
        names: The outputs of that kind.

    Raises:
        ModelError: There is one.
    """
    if names:
        raise ModelError(
            f"the output {names[0]!r} is a sequence of maps from class to probability (ZipMap), expected a matrix "
            "(samples, classes)",
            hint="Convert the model again with plain tensors (skl2onnx: options={'zipmap': False})",
        )


def logit_candidates(model: onnx.ModelProto, output: str | None) -> list[str]:
    """Return the names of values that may be the logits, the likeliest first.

    Args:
        model: The model.
        output: The caller's choice: a graph output or any value of the main graph; or None.

    Raises:
        InputError: There is no value of that name.
        ModelError: The model has no floating output.
    """
    if output is not None:
        known = {name for node in model.graph.node for name in node.output}
        if output not in known:
            names = ", ".join(repr(value.name) for value in model.graph.output)
            raise InputError(f"the model has no value {output!r}; its outputs are {names}")
        return [output]
    floating = [
        value
        for value in model.graph.output
        if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in (0, *FLOATS)
    ]
    if not floating:
        refuse_maps(
            [value.name for value in model.graph.output if value.type.sequence_type.elem_type.HasField("map_type")]
        )
        raise ModelError("the model has no output of a floating type, so there are no logits to attack")

    def unlikely(value: onnx.ValueInfoProto) -> int:
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            return 1
        return 0 if len(tensor.shape.dim) == _MATRIX else 2

    return [str(value.name) for value in sorted(floating, key=unlikely)]

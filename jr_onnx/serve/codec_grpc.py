"""Requests and answers of the Open Inference Protocol over gRPC, as messages of kserve's protobuf classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Final

from google.protobuf.message import Message

from jr_onnx.element_types import Array
from jr_onnx.serve.call import LARGEST_ID, Call, ModelInterface, client_timeout, refuse_parameters, take
from jr_onnx.serve.extensions.classification import answered_spec, class_count, classify
from jr_onnx.serve.faults import BadRequestError, quoted
from jr_onnx.serve.grpc_tensors import InferMessage
from jr_onnx.serve.tensors import TensorSpec, checked_shape, from_numbers, from_raw, to_raw

_FIELDS: Final = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where typed contents of a datatype lie; FP16 has no field and travels as raw bytes only."""


def decode(interface: ModelInterface, received: InferMessage) -> Call:
    """Read a request, and let go of its raw tensors.

    Raises:
        BadRequestError: The request is not one of this model.
    """
    try:
        return _decode(interface, received.message, received.raw)
    finally:
        received.raw.clear()
        received.message = None


def _decode(interface: ModelInterface, request: Any, raw: Sequence[bytes | memoryview]) -> Call:
    if raw and len(raw) != len(request.inputs):
        raise BadRequestError(f"the request has {len(request.inputs)} inputs, but {len(raw)} raw_input_contents")
    if not request.inputs:
        raise BadRequestError("the request has no inputs")
    inputs: dict[str, Array] = {}
    for index, item in enumerate(request.inputs):
        spec = interface.input(item.name)
        if item.datatype != spec.datatype:
            raise BadRequestError(
                f"the datatype of input {spec.name!r} is {quoted(item.datatype)}, expected {spec.datatype!r}"
            )
        shape = checked_shape(spec, list(item.shape))
        refuse_parameters(f"input {spec.name!r}", item.parameters)
        if not raw:
            take(inputs, spec, _typed(spec, shape, item.contents))
        elif item.HasField("contents"):
            raise BadRequestError(f"input {spec.name!r} has contents beside raw_input_contents, expected one of them")
        else:
            take(inputs, spec, from_raw(spec, shape, raw[index]))
    if len(request.id) > LARGEST_ID:
        raise BadRequestError(f"the id has {len(request.id)} characters, expected at most {LARGEST_ID}")
    timeout = request.parameters["timeout"].int64_param if "timeout" in request.parameters else None
    rows = interface.check(inputs)
    binary, classes = _wanted(interface, request)
    return Call(inputs, rows, request.id, binary, client_timeout(timeout), classes)


def encode(interface: ModelInterface, call: Call, outputs: Mapping[str, Array], messages: ModuleType) -> Message:
    """Return the `ModelInferResponse`, its tensors as raw bytes.

    Args:
        interface: The model.
        call: The request.
        outputs: Arrays by output name.
        messages: The module of kserve's protobuf classes.
    """
    answer = messages.ModelInferResponse(model_name=interface.name, model_version=interface.version, id=call.id)
    outputs = classify(interface, call, outputs)
    for name in call.binary:
        spec, array = answered_spec(interface, call, name), outputs[name]
        answer.outputs.add(name=name, datatype=spec.datatype, shape=array.shape or (1,))
        answer.raw_output_contents.append(to_raw(spec, array))
    return answer


def _typed(spec: TensorSpec, shape: tuple[int, ...], contents: Any) -> Array:
    """Read typed contents; protobuf has checked their types, but not that they lie in the right field."""
    wanted = _FIELDS.get(spec.datatype)
    if wanted is None:
        raise BadRequestError(f"input {spec.name!r} is {spec.datatype}, which goes into raw_input_contents only")
    found = [descriptor.name for descriptor, _ in contents.ListFields()]
    if found != [wanted]:
        raise BadRequestError(f"input {spec.name!r} has {', '.join(found) or 'no data'}, expected {wanted}")
    values = getattr(contents, wanted)
    if not spec.is_bytes:
        return from_numbers(spec, shape, values)
    if len(values) != math.prod(shape):
        raise BadRequestError(f"input {spec.name!r} has {len(values)} strings, expected {math.prod(shape)}")
    try:
        return from_numbers(spec, shape, [value.decode() for value in values])
    except UnicodeDecodeError:
        raise BadRequestError(f"input {spec.name!r} holds a string that is not UTF-8") from None


def _wanted(interface: ModelInterface, request: Any) -> tuple[dict[str, bool], dict[str, int]]:
    if not request.outputs:
        return dict.fromkeys(interface.outputs, True), {}
    wanted: dict[str, bool] = {}
    classes: dict[str, int] = {}
    for item in request.outputs:
        spec = interface.output(item.name)
        if spec.name in wanted:
            raise BadRequestError(f"output {spec.name!r} is asked for twice")
        refuse_parameters(f"output {spec.name!r}", item.parameters)
        wanted[spec.name] = True
        if "classification" in item.parameters and item.parameters["classification"].int64_param:
            classes[spec.name] = class_count(item.parameters["classification"].int64_param, spec)
    return wanted, classes

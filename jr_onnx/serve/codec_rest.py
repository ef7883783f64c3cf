"""Requests and answers of the Open Inference Protocol over REST: JSON, and the binary tensor extension.

    {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}]}<16 bytes>

The header `Inference-Header-Content-Length` says where the JSON ends and the tensors begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from jr_onnx.element_types import Array
from jr_onnx.serve.call import LARGEST_ID, Call, ModelInterface, client_timeout, refuse_parameters, take
from jr_onnx.serve.extensions.classification import answered_spec, class_count, classify
from jr_onnx.serve.faults import BadRequestError, TooLargeError, quoted
from jr_onnx.serve.tensors import TensorSpec, checked_shape, from_numbers, from_raw, raw_view

_LISTS = 1 << 17  # a batch of images in nested lists has a list for each line of pixels
# What parsing takes at its peak, measured: orjson copies the text and makes a tree of 16 bytes a value, from which
# Python's objects are made, in blocks of a multiple of 16 bytes.
_LIST_BYTES = 96  # of a list without elements, 64 to 86; the first has no comma
_OBJECT_BYTES = 80  # of an object without members
_MEMBER_BYTES = 96  # of a name and its place in a dictionary, whose table is doubled while it grows
_ELEMENT_BYTES = 64  # of a number and the reference to it
_STRING_BYTES = 48  # of what a string takes more than a number, beside its characters
_WIDEST = 4  # bytes of every character of a string that holds one beyond U+FFFF
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def json_length(header: bytes | None, length: int, largest: int) -> int:
    """Return how many bytes of a body are JSON.

    Args:
        header: Value of `Inference-Header-Content-Length`, None without one: all of the body is JSON.
        length: Length of the body in bytes.
        largest: Largest JSON in bytes.

    Raises:
        BadRequestError: The header is no length, or one beyond the body.
        TooLargeError: The JSON is too large.
    """
    size = length
    if header is not None:
        if not header.isdigit() or len(header) > 19:
            raise BadRequestError(f"inference-header-content-length is {quoted(header.decode('latin-1'))}")
        size = int(header)
        if size > length:
            raise BadRequestError(f"the body has {length} bytes, but {size} bytes of JSON were announced")
    if size > largest:
        raise TooLargeError(
            f"the request has {size} bytes of JSON, expected at most {largest}", hint="Send tensors in binary"
        )
    return size


def parsing_bytes(body: bytearray, size: int) -> int:
    """Return how many bytes parsing the JSON at the start of a body takes at most, beside the body itself.

    Raises:
        BadRequestError: It has more lists and objects than any request needs: one takes as much as fifty characters.
    """
    lists, objects = body.count(b"[", 0, size), body.count(b"{", 0, size)
    if lists + objects > _LISTS:
        raise BadRequestError(
            f"the request has {lists + objects} lists and objects, expected at most {_LISTS}",
            hint="Send data as one flat list",
        )
    members, elements, quotes = (body.count(mark, 0, size) for mark in (b":", b",", b'"'))
    text = body if size == len(body) else body[:size]
    characters = size if text.isascii() else _WIDEST * size
    values = _ELEMENT_BYTES * elements + _STRING_BYTES * (quotes // 2) + _MEMBER_BYTES * members
    return _LIST_BYTES * lists + _OBJECT_BYTES * objects + values + size + characters


def decode(interface: ModelInterface, body: bytearray, header_bytes: int) -> Call:
    """Read a request of which the first `header_bytes` are JSON.

    Raises:
        BadRequestError: The request is not one of this model.
    """
    request = _parse(memoryview(body)[:header_bytes])
    listed = request.get("inputs")
    if not isinstance(listed, list) or not listed:
        raise BadRequestError("the request has no list 'inputs'")
    inputs: dict[str, Array] = {}
    raw = memoryview(body)
    position = header_bytes
    for item in listed:
        if not isinstance(item, dict):
            raise BadRequestError(f"an input is {quoted(item)}, expected an object")
        spec = interface.input(item.get("name"))
        if item.get("datatype") != spec.datatype:
            raise BadRequestError(
                f"the datatype of input {spec.name!r} is {quoted(item.get('datatype'))}, expected {spec.datatype!r}"
            )
        shape = checked_shape(spec, item.get("shape"))
        parameters = _parameters(item, f"input {spec.name!r}")
        size = parameters.get("binary_data_size")
        if (size is None) == ("data" not in item):
            raise BadRequestError(
                f"input {spec.name!r} is expected to have 'data' or a 'binary_data_size', one of them"
            )
        if size is None:
            take(inputs, spec, from_numbers(spec, shape, item["data"]))
            continue
        left = len(body) - position
        if type(size) is not int or not 0 <= size <= left:
            raise BadRequestError(
                f"the binary_data_size of input {spec.name!r} is {quoted(size)}, and {left} bytes are left"
            )
        take(inputs, spec, from_raw(spec, shape, raw[position : position + size]))
        position += size
    if position != len(body):
        raise BadRequestError(f"the body has {len(body) - position} bytes that no input claims")
    return _call(interface, request, inputs)


def encode(interface: ModelInterface, call: Call, outputs: Mapping[str, Array]) -> tuple[bytes, int | None]:
    """Return the answer's body, and the length of its JSON where bytes follow it."""
    listed: list[dict[str, Any]] = []
    pieces: list[bytes | memoryview] = []
    outputs = classify(interface, call, outputs)
    for name, binary in call.binary.items():
        spec, array = answered_spec(interface, call, name), outputs[name]
        item: dict[str, Any] = {"name": name, "datatype": spec.datatype, "shape": list(array.shape) or [1]}
        if binary:
            pieces.append(raw_view(spec, array))
            item["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            item["data"] = _elements(spec, array)
        listed.append(item)
    answer: dict[str, Any] = {"model_name": interface.name, "model_version": interface.version, "outputs": listed}
    if call.id:
        answer["id"] = call.id
    text = orjson.dumps(answer, option=_NUMPY)
    return (b"".join([text, *pieces]), len(text)) if pieces else (text, None)


def _parse(text: bytes | bytearray | memoryview) -> dict[str, Any]:
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the request is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise BadRequestError(f"the request is {quoted(request)}, expected an object")
    return request


def _call(interface: ModelInterface, request: dict[str, Any], inputs: dict[str, Array]) -> Call:
    identity = request.get("id") or ""
    if not isinstance(identity, str) or len(identity) > LARGEST_ID:
        raise BadRequestError(f"the id is {quoted(identity)}, expected a string of at most {LARGEST_ID} characters")
    parameters = _parameters(request, "the request")
    by_default = _flag(parameters.get("binary_data_output", False), "binary_data_output")
    rows = interface.check(inputs)
    binary, classes = _wanted(interface, request.get("outputs"), by_default=by_default)
    return Call(inputs, rows, identity, binary, client_timeout(parameters.get("timeout")), classes)


def _wanted(interface: ModelInterface, outputs: object, *, by_default: bool) -> tuple[dict[str, bool], dict[str, int]]:
    if outputs is None or outputs == []:
        return dict.fromkeys(interface.outputs, by_default), {}
    if not isinstance(outputs, list):
        raise BadRequestError(f"'outputs' is {quoted(outputs)}, expected a list")
    wanted: dict[str, bool] = {}
    classes: dict[str, int] = {}
    for item in outputs:
        if not isinstance(item, dict):
            raise BadRequestError(f"an output is {quoted(item)}, expected an object")
        spec = interface.output(item.get("name"))
        if spec.name in wanted:
            raise BadRequestError(f"output {spec.name!r} is asked for twice")
        parameters = _parameters(item, f"output {spec.name!r}")
        wanted[spec.name] = _flag(parameters.get("binary_data", by_default), "binary_data")
        if parameters.get("classification"):
            classes[spec.name] = class_count(parameters["classification"], spec)
    return wanted, classes


def _parameters(item: dict[str, Any], what: str) -> dict[str, Any]:
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadRequestError(f"the parameters of {what} are {quoted(parameters)}, expected an object")
    refuse_parameters(what, parameters)
    return parameters


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise BadRequestError(f"the parameter {name!r} is {quoted(value)}, expected true or false")
    return value


def _elements(spec: TensorSpec, array: Array) -> Any:
    """Return an output for JSON: flat, row-major; NaN and infinities, which JSON lacks, become null."""
    if spec.is_bytes:
        return [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in array.ravel()]
    return array.ravel()

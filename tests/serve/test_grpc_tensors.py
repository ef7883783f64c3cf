"""Long gRPC messages are read by their outline: what comes out is what protobuf makes of them, within bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("kserve", reason="kserve is not installed")

from jr_onnx.serve.faults import BadRequestError, TooLargeError
from jr_onnx.serve.grpc_methods import messages
from jr_onnx.serve.grpc_tensors import InferMessage, split, whole

KIND = messages.ModelInferRequest
LARGE = 1 << 20


def message(**contents: Any) -> Any:
    result = KIND(model_name="net", id="7", parameters={"timeout": messages.InferParameter(int64_param=5)})
    tensor = result.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    for name, values in contents.items():
        getattr(tensor.contents, name).extend(values)
    return result


def read(sent: bytes, most_typed: int = LARGE) -> InferMessage:
    received = split(memoryview(sent))
    if received.is_typed:
        received.weigh(most_typed)
    received.parse(KIND)
    return received


def test_raw_tensors_are_views_and_the_rest_is_what_protobuf_says() -> None:
    sent = message()
    sent.raw_input_contents.extend([bytes(100_000), b"", b"abc"])
    data = sent.SerializeToString()
    received = read(data)
    assert [bytes(view) for view in received.raw] == list(sent.raw_input_contents)
    assert all(isinstance(view, memoryview) for view in received.raw)
    del sent.raw_input_contents[:]
    assert received.message == sent
    assert whole(memoryview(data), KIND).raw == [bytes(view) for view in received.raw]


def test_typed_contents_are_weighed_before_they_are_parsed() -> None:
    fixed = message(fp32_contents=np.zeros(100_000, np.float32)).SerializeToString()
    assert read(fixed, most_typed=1).extra_bytes < 3 * len(fixed), "elements of fixed size take what they take"
    small = message(int64_contents=[1] * 100_000).SerializeToString()
    assert read(small).extra_bytes > 800_000
    with pytest.raises(TooLargeError, match="raw_input_contents"):
        read(small, most_typed=50_000)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x2a\x00" * 100_000,  # inputs of nothing, of which each would take fifty bytes and more
        b"\x3a\x00" * 100_000,
        b"\x0a\x90\x4e" + b"n" * 10_000 + b"\x12\x90\x4e" + b"v" * 10_000,
        b"\x2a\xff\xff\xff\x7f" + bytes(100),
        b"\xff" * 50,
        b"\x0b\x0c",
    ],
    ids=["inputs", "raw contents", "names", "beyond the end", "no tag", "groups"],
)
def test_what_no_request_needs_is_refused(sent: bytes) -> None:
    with pytest.raises(BadRequestError):
        read(sent)


@settings(max_examples=300, deadline=None)
@given(head=st.sampled_from([b"", b"\x0a\x03net", b"\x2a\x05\x0a\x01x\x12\x00"]), tail=st.binary(max_size=60))
@example(head=b"", tail=b"=\x00\x00\x00\x00")
def test_bytes_of_any_kind_are_what_protobuf_says_or_refused(head: bytes, tail: bytes) -> None:
    try:
        expected = whole(memoryview(head + tail), KIND)
    except BadRequestError:
        expected = None
    try:
        received = read(head + tail)
    except BadRequestError:
        return  # groups, which protobuf skips, are refused here
    assert expected is not None
    del expected.message.raw_input_contents[:]
    assert received.message == expected.message
    assert [bytes(view) for view in received.raw] == expected.raw

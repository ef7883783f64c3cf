"""Splitting a serialised model and joining it again loses no byte, whatever the model holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from jr_onnx.modelfile.wire import THRESHOLD, TOKEN_BYTES, Payloads, WireError, join, split
from tests.development import DataFolder

BIG = THRESHOLD // 4 + 1


def again(data: bytes) -> bytes:
    """Return the bytes after split, parse, serialise and join."""
    skeleton, payloads = split(data)
    proto = onnx.ModelProto.FromString(skeleton)
    return b"".join(join(proto.SerializeToString(deterministic=True), payloads))


def canonical(data: bytes) -> bytes:
    return onnx.ModelProto.FromString(data).SerializeToString(deterministic=True)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def floats(count: int, start: int = 0) -> bytes:
    return np.arange(start, start + count, dtype=np.float32).tobytes()


def big_tensor(name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.arange(BIG, dtype=np.float32), name)


def model_with_tensors_everywhere() -> onnx.ModelProto:
    """Return a model with large tensors in every place where ONNX lets one stand."""
    model = onnx.ModelProto(ir_version=10)
    model.graph.initializer.append(big_tensor("raw"))
    model.graph.initializer.append(
        helper.make_tensor("packed", onnx.TensorProto.FLOAT, [BIG], np.arange(BIG, dtype=np.float32))
    )
    model.graph.initializer.append(
        helper.make_tensor("double", onnx.TensorProto.DOUBLE, [BIG], np.arange(BIG, dtype=np.float64))
    )
    model.graph.initializer.append(
        helper.make_tensor("int", onnx.TensorProto.INT64, [BIG], np.arange(BIG, dtype=np.int64))
    )
    sparse = model.graph.sparse_initializer.add(dims=[10**6])
    sparse.values.CopyFrom(big_tensor("sparse"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(BIG, dtype=np.int64)))
    node = model.graph.node.add(op_type="Everything")
    node.attribute.add(name="t", type=onnx.AttributeProto.TENSOR).t.CopyFrom(big_tensor("t"))
    node.attribute.add(name="ts", type=onnx.AttributeProto.TENSORS).tensors.extend([big_tensor("a"), big_tensor("b")])
    node.attribute.add(name="g", type=onnx.AttributeProto.GRAPH).g.initializer.append(big_tensor("inner"))
    node.attribute.add(name="gs", type=onnx.AttributeProto.GRAPHS).graphs.add().initializer.append(big_tensor("many"))
    node.attribute.add(name="s", type=onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor.CopyFrom(sparse)
    node.attribute.add(name="ss", type=onnx.AttributeProto.SPARSE_TENSORS).sparse_tensors.append(sparse)
    node.attribute.add(name="text", type=onnx.AttributeProto.STRING).s = b"z" * (2 * THRESHOLD)
    function = model.functions.add(name="f", domain="d")
    constant = function.node.add(op_type="Constant").attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    constant.t.CopyFrom(big_tensor("constant"))
    model.training_info.add().algorithm.initializer.append(big_tensor("training"))
    model.metadata_props.add(key="long", value="m" * (2 * THRESHOLD))
    return model


def test_tensors_are_taken_out_wherever_they_stand() -> None:
    data = model_with_tensors_everywhere().SerializeToString(deterministic=True)
    skeleton, payloads = split(data)
    assert len(payloads) == 15  # int64_data, strings and the training info stay where they are
    assert len(skeleton) < len(data) / 2
    assert again(data) == data


def test_small_payloads_stay_in_the_proto() -> None:
    model = onnx.ModelProto()
    model.graph.initializer.append(onnx.TensorProto(raw_data=b"x" * (THRESHOLD - 1)))
    model.graph.initializer.append(onnx.TensorProto(raw_data=b"x" * THRESHOLD))
    assert len(split(model.SerializeToString())[1]) == 1


def test_an_edit_of_the_skeleton_carries_the_payloads_along() -> None:
    model = onnx.ModelProto()
    for name in ("a", "b", "c"):
        model.graph.initializer.append(onnx.TensorProto(name=name, raw_data=name.encode() * THRESHOLD))
    skeleton, payloads = split(model.SerializeToString())
    proto = onnx.ModelProto.FromString(skeleton)
    del proto.graph.initializer[1]
    proto.graph.initializer[0].name = "renamed"
    proto.graph.initializer.insert(0, proto.graph.initializer[1])
    proto.doc_string = "new"
    joined = onnx.ModelProto.FromString(b"".join(join(proto.SerializeToString(), payloads)))
    found = [(tensor.name, tensor.raw_data[:1], len(tensor.raw_data)) for tensor in joined.graph.initializer]
    assert found == [("c", b"c", THRESHOLD), ("renamed", b"a", THRESHOLD), ("c", b"c", THRESHOLD)]


def test_a_token_that_was_changed_is_an_error_and_never_a_weight() -> None:
    model = onnx.ModelProto()
    model.graph.initializer.append(onnx.TensorProto(raw_data=b"x" * THRESHOLD))
    skeleton, payloads = split(model.SerializeToString())
    proto = onnx.ModelProto.FromString(skeleton)
    proto.graph.initializer[0].raw_data += b"more"
    with pytest.raises(WireError, match="1 of 1 tensors were changed"):
        join(proto.SerializeToString(), payloads)


@pytest.mark.parametrize(
    "tensor",
    [
        field(4, floats(BIG)) + field(4, floats(BIG, 7)),  # two packed runs that protobuf joins
        field(4, floats(BIG)) + varint(4 << 3 | 5) + floats(1, 9),  # packed, then one float on its own
        field(9, b"a" * THRESHOLD) + field(9, b"b" * THRESHOLD),  # the last of two wins
        field(10, floats(2 * BIG)) + field(10, floats(2 * BIG, 3)),
    ],
)
def test_a_tensor_that_is_written_in_pieces_is_not_lost(tensor: bytes) -> None:
    data = field(7, field(5, tensor))
    assert again(data) == canonical(data)


@pytest.mark.parametrize("number", [5, 22])
def test_an_attribute_with_two_tensors_is_joined_as_protobuf_joins_it(number: int) -> None:
    tensor = field(4, floats(BIG)) if number == 5 else field(1, field(4, floats(BIG)))
    data = field(7, field(1, field(5, field(number, tensor) + field(number, tensor))))
    assert again(data) == canonical(data)


def test_two_graphs_are_joined_as_protobuf_joins_them() -> None:
    graph = field(5, field(9, b"w" * THRESHOLD)) + field(2, b"name")
    data = field(7, graph) + field(7, graph)
    assert again(data) == canonical(data)
    assert len(onnx.ModelProto.FromString(again(data)).graph.initializer) == 2


def test_a_token_is_no_nan_whatever_the_random_bytes() -> None:
    for _ in range(200):
        payloads = Payloads()
        for _ in range(3):
            token = payloads.put(b"")
            assert len(token) == TOKEN_BYTES
            assert np.all(np.isfinite(np.frombuffer(token, np.float32)))
            assert np.all(np.isfinite(np.frombuffer(token, np.float64)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x3a\xff", "cut off inside a number"),
        (b"\x3a\x05ab", "ends 3 bytes after its message"),
        (b"\x00", "field number 0"),
        (b"\x0b", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x3a" + b"\xff" * 11, "more than 64 bits"),
        (field(7, field(5, b"\x49" + b"z" * THRESHOLD)) + b"\x01", "field number 0 at byte 32778"),
        (b"\x09abc", "ends 5 bytes after its message"),
        (b"\x0dabc", "ends 1 bytes after its message"),
    ],
)
def test_what_is_no_protobuf_is_an_error_with_its_place(data: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        split(data)


def test_every_prefix_of_a_model_parses_or_is_an_error() -> None:
    model = onnx.ModelProto(ir_version=8, producer_name="someone")
    model.graph.initializer.append(onnx.TensorProto(name="w", dims=[THRESHOLD], raw_data=b"w" * THRESHOLD))
    model.graph.node.add(op_type="Relu", input=["x"], output=["y"])
    data = model.SerializeToString()
    ends = {len(data), *range(0, len(data), 997), *range(200), *range(len(data) - 200, len(data))}
    for end in sorted(ends):
        try:
            skeleton, payloads = split(data[:end])
        except WireError:
            continue
        assert len(b"".join(join(skeleton, payloads))) == end


payload_sizes = st.sampled_from([0, 1, 15, 16, 17, THRESHOLD - 1, THRESHOLD, THRESHOLD + 1, 2 * THRESHOLD])


@st.composite
def tensors(draw: st.DrawFn) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=draw(st.text(max_size=3)), dims=draw(st.lists(st.integers(0, 5), max_size=3)))
    size = draw(payload_sizes)
    kind = draw(st.sampled_from(["raw", "float", "double", "int32", "string"]))
    noise = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, size, dtype=np.uint8).tobytes()
    if kind == "raw":
        tensor.raw_data = noise
    elif kind == "float":
        tensor.MergeFromString(field(4, noise[: size // 4 * 4]))
    elif kind == "double":
        tensor.MergeFromString(field(10, noise[: size // 8 * 8]))
    elif kind == "int32":
        tensor.int32_data.extend(noise[:100])
    else:
        tensor.string_data.append(noise)
    return tensor


unknown = st.lists(
    st.tuples(st.integers(500, 600), st.binary(max_size=20)).map(lambda pair: field(*pair))
    | st.tuples(st.integers(500, 600), st.integers(0, 2**63)).map(lambda pair: varint(pair[0] << 3) + varint(pair[1])),
    max_size=2,
).map(b"".join)


@st.composite
def models(draw: st.DrawFn) -> bytes:
    """Return a serialised model with tensors and unknown fields in many places."""
    model = onnx.ModelProto(ir_version=draw(st.integers(0, 12)))
    model.graph.initializer.extend(draw(st.lists(tensors(), max_size=3)))
    for tensor in draw(st.lists(tensors(), max_size=2)):
        attribute = model.graph.node.add(op_type="Constant").attribute.add(name="value")
        attribute.t.CopyFrom(tensor)
        attribute.MergeFromString(draw(unknown))
    for part in (model.graph, *model.graph.initializer, *model.graph.node):
        part.MergeFromString(draw(unknown))
    model.MergeFromString(draw(unknown))
    return model.SerializeToString(deterministic=True)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(models())
def test_random_models_come_back_byte_for_byte(data: bytes) -> None:
    assert again(data) == data
    skeleton, payloads = split(data)
    assert b"".join(join(skeleton, payloads)) == data


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=300) | models().flatmap(lambda data: st.integers(0, len(data)).map(lambda end: data[:end])))
def test_random_bytes_split_or_are_a_wire_error(data: bytes) -> None:
    try:
        skeleton, payloads = split(data)
    except WireError:
        return
    assert b"".join(join(skeleton, payloads)) == data


def test_the_models_of_the_onnx_package_come_back() -> None:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data"
    paths = sorted(folder.rglob("*.onnx"))
    assert len(paths) > 100
    for path in paths:
        data = path.read_bytes()
        assert again(data) == canonical(data), path


def test_third_party_models_come_back(data_dir: DataFolder) -> None:
    paths = sorted((data_dir / "onnx").rglob("*.onnx"))
    assert len(paths) >= 30
    for path in paths:
        data = path.read_bytes()
        assert again(data) == canonical(data), path.name

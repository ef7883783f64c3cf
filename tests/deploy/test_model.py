"""What is read of a model, and which external data is refused."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, parser

from jr_onnx.deploy.model import read_model
from jr_onnx.errors import ModelError
from tests.deploy.builders import classifier, save


def test_the_interface_is_read(model: Path) -> None:
    facts = read_model(model)
    assert [(tensor.name, tensor.dims, tensor.optional) for tensor in facts.inputs] == [("x", (-1, 3, 8, 8), False)]
    assert [(tensor.name, tensor.dims) for tensor in facts.outputs] == [("y", (-1, 10))]
    assert (facts.ir_version, facts.opset) == (8, 17)
    assert facts.external == ()
    assert facts.custom_ops == ()
    assert facts.provenance is None
    assert facts.kappa_inputs == ()


def test_an_initializer_that_is_an_input_too_is_optional(tmp_path: Path) -> None:
    proto = classifier()
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3]))
    facts = read_model(save(proto, tmp_path / "model.onnx"))
    assert {tensor.name: tensor.optional for tensor in facts.inputs} == {"x": False, "w": True}


def test_an_open_output_is_inferred(tmp_path: Path) -> None:
    facts = read_model(save(classifier(output="M, K"), tmp_path / "model.onnx"))
    assert facts.outputs[0].dims == (-1, 10)


def test_an_output_without_a_shape_is_inferred(tmp_path: Path) -> None:
    proto = classifier()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert read_model(save(proto, tmp_path / "model.onnx")).outputs[0].dims == (-1, 10)


def test_an_output_that_nobody_can_infer_has_no_dims(tmp_path: Path) -> None:
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "elsewhere" : 1]>
        net (float[N, 3] x) => (float[K] y) { y = elsewhere.Unknown (x) }"""
    )
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert read_model(save(proto, tmp_path / "model.onnx")).outputs[0].dims is None


def test_external_data_is_named_and_never_loaded(tmp_path: Path) -> None:
    path = save(classifier(), tmp_path / "model.onnx", external="weights/all.bin")
    (tmp_path / "weights" / "all.bin").unlink()
    assert read_model(path).external == ("weights/all.bin",)


def test_external_data_is_found_wherever_a_tensor_stands(tmp_path: Path) -> None:
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        net (bool b, float[2] x) => (float[2] y) {
            z = If (b) <
                then_branch = t () => (float[2] a) { a = Constant <value = float[2] {1, 2}> () },
                else_branch = e () => (float[2] c) { c = Identity (x) }
            >
            y = local.shift (z)
        }
        <domain: "local", opset_import: ["" : 17]>
        shift (v) => (s) { k = Constant <value = float[2] {1, 2}> () s = Add (v, k) }"""
    )
    inner = proto.graph.node[0].attribute[0].g.node[0].attribute[0].t
    in_function = proto.functions[0].node[0].attribute[0].t
    for tensor, location in ((inner, "branch.bin"), (in_function, "function.bin")):
        tensor.ClearField("float_data")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert read_model(path).external == ("branch.bin", "function.bin")


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff", b"hello", b"PK\x03\x04"])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"is not an ONNX model|expected an ONNX model"):
        read_model(path)


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        read_model(tmp_path / "nowhere.onnx")


def test_an_output_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    proto = classifier()
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    proto.graph.output[0].type.CopyFrom(kind)
    with pytest.raises(ModelError, match="'y' is a sequence, expected a tensor"):
        read_model(save(proto, tmp_path / "model.onnx"))


def test_custom_operators_and_their_definitions_are_distinguished(tmp_path: Path) -> None:
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "jr_onnx" : 1]>
        net (float[2] x) => (float[2] y) {
            k = jr_onnx.DrawKappa ()
            z = jr_onnx.JumpRelu <kappa = 0.5> (x)
            y = Add (z, k)
        }
        <domain: "jr_onnx", opset_import: ["" : 17]>
        JumpRelu <kappa> (v) => (s) { s = Identity (v) }"""
    )
    facts = read_model(save(proto, tmp_path / "model.onnx"))
    assert facts.custom_ops == ("DrawKappa", "JumpRelu")
    assert facts.fallbacks == ("JumpRelu",)
    assert facts.draws_in_op


def test_an_operator_with_a_range_draws_too(tmp_path: Path) -> None:
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "jr_onnx" : 1]>
        net (float[2] x) => (float[2] y) { y = jr_onnx.JumpRelu <kappa_low = 0.0, kappa_high = 0.5> (x) }"""
    )
    assert read_model(save(proto, tmp_path / "model.onnx")).draws_in_op


def test_the_proto_is_not_touched_by_reading(model: Path) -> None:
    before = model.read_bytes()
    read_model(model)
    assert model.read_bytes() == before
    onnx.checker.check_model(onnx.load(model))

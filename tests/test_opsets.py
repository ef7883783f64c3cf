"""Which operator sets a model imports, by either name of the standard domain."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from jr_onnx.opsets import main_opset, main_opsets, normal_domain, opset_table


def model(*imports: tuple[str, int], ir: int = 8) -> onnx.ModelProto:
    proto = onnx.ModelProto(ir_version=ir)
    proto.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in imports)
    return proto


@pytest.mark.parametrize(("domain", "normal"), [("", ""), ("ai.onnx", ""), ("ai.onnx.ml", "ai.onnx.ml"), ("a", "a")])
def test_the_standard_domain_has_one_name(domain: str, normal: str) -> None:
    assert normal_domain(domain) == normal


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_both_spellings_say_the_opset(domain: str) -> None:
    proto = model((domain, 13), ("com.microsoft", 1))
    assert main_opsets(proto) == opset_table(proto.opset_import) == {"": 13, "com.microsoft": 1}
    assert main_opset(proto) == 13


def test_a_version_that_is_not_a_c_int_is_still_looked_up() -> None:
    version = opset_table(model(("", 2**40)).opset_import)[""]
    assert onnx.defs.get_schema("Relu", version, "").name == "Relu"


@pytest.mark.parametrize(("ir", "opset"), [(2, 1), (3, 0)])
def test_before_ir_3_operator_set_1_was_meant(ir: int, opset: int) -> None:
    assert main_opset(model(ir=ir)) == opset

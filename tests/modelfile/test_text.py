"""A text field that is not UTF-8 is found wherever it stands, and payloads of bytes are none of them."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from jr_onnx.errors import ModelError
from jr_onnx.modelfile import require_text


def test_bytes_that_are_no_text_are_welcome_where_bytes_belong() -> None:
    tensor = onnx.TensorProto(name="t", dims=[2], data_type=8, string_data=[b"\xff", b"\xfe"], raw_data=b"\xff")
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    require_text(helper.make_model(helper.make_graph([node], "g", [], [], [tensor])))


def test_the_deepest_name_is_found() -> None:
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["zzzz"])], "inner", [], [])
    for _ in range(5):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "outer", [], [])
    good = helper.make_model(graph).SerializeToString()
    require_text(onnx.ModelProto.FromString(good))
    with pytest.raises((ModelError, UnicodeDecodeError)):
        require_text(onnx.ModelProto.FromString(good.replace(b"zzzz", b"\xc3\x28zz")))

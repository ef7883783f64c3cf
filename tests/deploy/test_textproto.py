"""Text format: protobuf itself reads back what was written."""

from __future__ import annotations

import onnx
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from jr_onnx.deploy.textproto import Message, Symbol, quote, render


def test_a_message_is_written_one_field_a_line() -> None:
    message: Message = [
        ("name", "digits"),
        ("max_batch_size", 8),
        ("input", [("data_type", Symbol("TYPE_FP32")), ("dims", (3, -1)), ("reshape", [("shape", ())])]),
        ("optional", True),
    ]
    assert render(message) == (
        'name: "digits"\n'
        "max_batch_size: 8\n"
        "input {\n"
        "  data_type: TYPE_FP32\n"
        "  dims: [ 3, -1 ]\n"
        "  reshape {\n"
        "    shape: [ ]\n"
        "  }\n"
        "}\n"
        "optional: true\n"
    )


def test_a_digit_after_an_escape_is_not_part_of_it() -> None:
    assert quote("\x01" + "7") == '"\\0017"'


def test_quotes_backslashes_and_line_breaks_are_escaped() -> None:
    assert quote('a"b\\c\nd\te\r') == '"a\\"b\\\\c\\nd\\te\\r"'


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=4), st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_protobuf_reads_back_any_string_and_number(names: list[str], numbers: list[int]) -> None:
    attribute: Message = [("name", "x"), ("ints", tuple(numbers))]
    message: Message = [*(("input", name) for name in names), ("attribute", attribute)]
    node = text_format.Parse(render(message), onnx.NodeProto())
    assert list(node.input) == names
    assert list(node.attribute[0].ints) == numbers

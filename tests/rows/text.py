"""Models written as text."""

from __future__ import annotations

import onnx

FRONT = '<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1, "ai.onnx.ml" : 3]>'
IMAGE = "float[N,3,4,4] x"
TABLE = "float[N,6] x"
TOKENS = "float[N,5,6] x"


def parse(
    body: str, inputs: str = TABLE, output: str = "float[N,M] y", opset: int = 17, more: str = ""
) -> onnx.ModelProto:
    text = f"{FRONT.format(opset=opset)} g ({inputs}) => ({output}) {{ {body} }} {more}"
    return onnx.parser.parse_model(text)


def c(name: str, values: str, kind: str = "int64") -> str:
    """Write a constant: `c("s", "0,-1")` is a vector of int64."""
    count = values.count(",") + 1
    return f"{name} = Constant <value = {kind}[{count}] {{{values}}}> ()\n"

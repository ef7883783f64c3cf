"""What becomes of models of every age, with functions and without; docs/compatibility.md has a row for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import parser

from jr_onnx.kappa import RandomKappa


@dataclass(frozen=True)
class Case:
    """One model and one wish.

    Attributes:
        name: As the table in the documentation names it.
        text: The model as ONNX text.
        outcome: As the table says: `lowering` or "refused: ..." or "converted ...".
        kappa: The jump.
        options: Of `rewrite`.
    """

    name: str
    text: str
    outcome: str
    kappa: Any = 0.5
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_refused(self) -> bool:
        """Whether nothing is written."""
        return self.outcome.startswith("refused: ")

    def model(self) -> onnx.ModelProto:
        """Return the model."""
        return parser.parse_model(self.text)


def _plain(opset: int, ir: int = 3, kind: str = "float", node: str = "Relu(h)", domain: str = "") -> str:
    return (
        f'<ir_version: {ir}, opset_import: ["" : {opset}{domain}]>\n'
        f"g ({kind}[N,4] x) => ({kind}[N,4] y) {{ h = Neg(x) [act] r = {node} y = Neg(r) }}\n"
    )


_CALL = _plain(17, 8, node="f.act(h)", domain=', "f" : 1')
_BODY = '<domain: "f", opset_import: ["" : {}]>\nact (a) => (b) {{ {} }}'
_SAME = _CALL + _BODY.format(17, "[relu] b = Relu(a)")
_OLDER = _CALL + _BODY.format(14, "[relu] b = Relu(a)")
_OTHER = _CALL + _BODY.format(12, "u = Unsqueeze<axes = [0]>(a) s = Squeeze<axes = [0]>(u) [relu] b = Relu(s)")
_SCALED = (
    '<ir_version: 3, opset_import: ["" : 6]>\ng (float[1,2,2,2] x) => (float[1,2,2,2] y) '
    "{ h = ImageScaler<scale = 2.0, bias = [1.0, 2.0]>(x) [act] y = Relu(h) }"
)
_BROADCAST = (
    '<ir_version: 3, opset_import: ["" : 6]>\ng (float[3,3,2,2] x, float[3] b) => (float[3,3,2,2] y) '
    "<float[3] b = {1, 2, 3}> { h = Add<broadcast = 1, axis = 1>(x, b) [act] y = Relu(h) }"
)
_UNKNOWN = _plain(6, node="Relu(k)").replace("h = Neg(x)", "h = Neg(x) k = NobodyKnows(h)")
_WITH_ADD = _plain(6).replace("h = Neg(x)", "h = Add(x, x)")
_RESIZED = """<ir_version: 5, opset_import: ["" : 10]>
    g (float[1,1,2,2] x) => (float[1,1,4,4] y) <float[4] s = {1, 1, 2, 2}>
    { h = Resize<mode = "linear">(x, s) y = Relu(h) }"""
_TO_18 = {"opset": 18}

CASES = (
    Case("opset 5 and lower", _plain(5), "refused: `--opset 13` helps"),
    Case("opset 6", _plain(6), "`log_step`"),
    Case("opset 6, ReLU6", _plain(6, node="Clip<min = 0.0, max = 6.0>(h)"), "`log_step`"),
    Case("opset 6, float16 or double", _plain(6, kind="double"), "refused: `--opset 13` helps"),
    Case("opset 6, random kappa", _plain(6, 4), "refused: `--opset 13` helps", RandomKappa(0.1, 0.2)),
    Case("opset 6, ImageScaler before the ReLU", _SCALED, "`log_step`"),
    Case("opset 6 with Add, Mul, Gemm or another of the operators without a kernel there", _WITH_ADD,
         "refused: `--opset 13` helps"),
    Case("opset 6, an unknown operator, with `--opset 13`", _UNKNOWN, "refused: `NobodyKnows` is named",
         options={"opset": 13}),
    Case("opset 7 and 8", _plain(7), "`cast_mul`"),
    Case("opset 7, double", _plain(7, kind="double"), "refused: `--opset 13` helps"),
    Case("opset 9", _plain(9, 4), "`where`"),
    Case("opset 10 and newer", _plain(10, 5), "`thresholded`"),
    Case("newest opset", _plain(25, 12), "`thresholded`"),
    Case("ReLU in a function", _SAME, "`thresholded`"),
    Case("ReLU in a function of another opset", _OTHER, "`thresholded`"),
    Case("ImageScaler, with `--opset 18`", _SCALED, "`thresholded`, converted and proved", options=_TO_18),
    Case("broadcast along an axis at opset 6, with `--opset 18`", _BROADCAST, "`thresholded`, converted and proved",
         options=_TO_18),
    Case("Resize or Upsample of opset 10 or lower, with `--opset 18`", _RESIZED, "`thresholded`, converted and proved",
         options=_TO_18),
    Case("function, with `--opset 18`", _SAME, "`thresholded`, converted and proved", options=_TO_18),
    Case("function of another opset, its operators called alike, with `--opset 18`", _OLDER,
         "`thresholded`, converted and proved", options=_TO_18),
    Case("function of another opset, its operators called otherwise, with `--opset 18`", _OTHER,
         "refused: `f::act` is named", options=_TO_18),
)  # fmt: skip

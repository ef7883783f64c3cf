"""Every way to write ReLU that is known, one small model each; docs/compatibility.md has a row for each of them.

A model computes y from x (float, N rows of 4) and may have further inputs; behind y stands nothing, in front of x the
operand is made by Add(x, c), so that no bound lies directly on a graph input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

SHIFT = np.float32(0.25)


@dataclass(frozen=True)
class Way:
    """One way to write ReLU.

    Attributes:
        name: As the table in the documentation names it.
        body: ONNX text between h = Add(x, shift) and r, the result; y = Mul(r, two).
        form: Form of the site, "" if it is not one.
        reason: Part of the reason why it is not a site; "" if it is one.
        listed: The list of the table that it is in: sites, refusals, others or jumps.
        cap: Upper bound of the site.
        opset: Version of the standard operator set.
        initializers: Further constants.
        functions: ONNX text of model-local functions of domain "f".
        result: NumPy's value of r where it is not J(h).
        is_output: Whether r itself is the model's output.
    """

    name: str
    body: str
    form: str = ""
    reason: str = ""
    listed: str = "sites"
    cap: float | None = None
    opset: int = 17
    initializers: dict[str, np.ndarray] = field(default_factory=dict)
    functions: str = ""
    is_output: bool = False
    result: Callable[[np.ndarray, float], np.ndarray] | None = None


def jump(z: np.ndarray, kappa: float) -> np.ndarray:
    """Return J(z)."""
    return np.where(z > np.float32(kappa), z, np.float32(0))


ZERO = {"zero": np.asarray(0, np.float32)}
SIX = {**ZERO, "six": np.asarray(6, np.float32)}
ONE = {**ZERO, "one": np.asarray(1, np.float32)}
SIX_AND_THREE = {**SIX, "three": np.asarray(3, np.float32)}
LIKE = "c = Constant<value_int = 0>() lo = CastLike(c, h) d = Constant<value_int = 6>() hi = CastLike(d, h)"


def _site(name: str, form: str, body: str, **more: object) -> Way:
    return Way(name, body, form, **{"initializers": ZERO, **more})  # type: ignore[arg-type]


def _named(name: str, listed: str, reason: str, body: str, **more: object) -> Way:
    return Way(name, body, reason=reason, listed=listed, **{"initializers": ZERO, **more})  # type: ignore[arg-type]


WAYS = (
    _site("Relu", "relu", "r = Relu(h)"),
    _site("Clip from 0", "clip", "r = Clip(h, zero)"),
    _site("Clip from 0 to 6", "clip", "r = Clip(h, zero, six)", cap=6.0, initializers=SIX),
    _site("Clip with attributes", "clip", "r = Clip<min = 0.0, max = 6.0>(h)", cap=6.0, opset=10),
    _site("Clip with bounds through CastLike", "clip", f"{LIKE} r = Clip(h, lo, hi)", cap=6.0),
    _site(
        "Clip with bounds through Cast", "clip", "c = Constant<value_int = 0>() lo = Cast<to = 1>(c) r = Clip(h, lo)",
    ),
    _site(
        "Clip with bounds that were computed", "clip",
        "c = Constant<value_float = -3.0>() d = Neg(c) hi = Add(d, d) lo = Sub(d, d) r = Clip(h, lo, hi)", cap=6.0,
    ),
    _site(
        "Clip in a function, its bounds given by the call", "clip", "r = f.clip(h, zero, six)", cap=6.0,
        initializers=SIX,
        functions='<domain: "f", opset_import: ["" : 17]>\nclip (a, lo, hi) => (b) { b = Clip(a, lo, hi) }',
    ),
    _site(
        "Clip in a function, its bound an attribute", "clip", "r = f.clip <low = 0.0>(h)",
        functions='<domain: "f", opset_import: ["" : 17]>\nclip <low>(a) => (b) '
        "{ lo = Constant<value_float: float = @low>() b = Clip(a, lo) }",
    ),
    _site(
        "Clip with a bound that a function yields", "clip", "lo = f.nothing() r = Clip(h, lo)",
        functions='<domain: "f", opset_import: ["" : 17]>\nnothing () => (b) { b = Constant<value_float = 0.0>() }',
    ),
    _site("Max with 0", "max", "r = Max(h, zero)"),
    _site("Max, 0 first", "max", "r = Max(zero, h)"),
    _site("Max with CastLike of 0", "max", f"{LIKE} r = Max(h, lo)"),
    _site("Max with ConstantOfShape", "max", "s = Shape(h) z = ConstantOfShape(s) r = Max(h, z)"),
    _site("Max with Expand of 0", "max", "s = Shape(h) z = Expand(zero, s) r = Max(h, z)"),
    _site(
        "Max with zeros of a shape made of pieces", "max",
        "s = Shape(h) n = Gather<axis = 0>(s, first) t = Concat<axis = 0>(n, four) z = ConstantOfShape(t) "
        "r = Max(h, z)",
        initializers={"first": np.asarray([0]), "four": np.asarray([4])},
    ),
    _site("Max with z * 0 or z - z", "max", "z = Mul(h, zero) m = Max(h, z) d = Sub(x, x) r = Add(m, d)"),
    _site("Max with a tensor of zeros", "max", "r = Max(h, zeros)", initializers={"zeros": np.zeros(4, np.float32)}),
    _site("Max with 0 and a negative number", "max", "r = Max(h, zero, low)",
          initializers={**ZERO, "low": np.asarray(-1, np.float32)}),
    _site("Max, then Min", "max", "m = Max(h, zero) r = Min(m, six)", initializers=SIX,
          result=lambda z, kappa: np.minimum(jump(z, kappa), np.float32(6))),
    _site("Min, then Max", "max", "m = Min(h, six) r = Max(m, zero)", initializers=SIX,
          result=lambda z, kappa: jump(np.minimum(z, np.float32(6)), kappa)),
    _site("Relu, then Min", "relu", "m = Relu(h) r = Min(m, six)", initializers=SIX,
          result=lambda z, kappa: np.minimum(jump(z, kappa), np.float32(6))),
    _site("Where(z > 0, z, 0)", "where", "g = Greater(h, zero) r = Where(g, h, zero)"),
    _site("Where(z >= 0, z, 0)", "where", "g = GreaterOrEqual(h, zero) r = Where(g, h, zero)"),
    _site("Where(0 < z, z, 0)", "where", "g = Less(zero, h) r = Where(g, h, zero)"),
    _site("Where(z <= 0, 0, z)", "where", "g = LessOrEqual(h, zero) r = Where(g, zero, h)"),
    _site("Where(z < 0, 0, z)", "where", "g = Less(h, zero) r = Where(g, zero, h)"),
    _site("Where(not z <= 0, z, 0)", "where", "g = LessOrEqual(h, zero) n = Not(g) r = Where(n, h, zero)"),
    _site("Where(Cast(z < 0), 0, z), as masked_fill is exported", "where",
          "g = Less(h, zero) b = Cast<to = 9>(g) r = Where(b, zero, h)"),
    _site("Where with zeros like z", "where",
          "s = Shape(h) z = ConstantOfShape(s) g = Greater(h, z) r = Where(g, h, z)"),
    _site("z * Cast(z > 0)", "mask", "g = Greater(h, zero) m = Cast<to = 1>(g) r = Mul(h, m)"),
    _site("CastLike(z > 0, z) * z", "mask", "g = Greater(h, zero) m = CastLike(g, h) r = Mul(m, h)"),
    _site("z * Where(z > 0, 1, 0)", "mask", "g = Greater(h, zero) m = Where(g, one, zero) r = Mul(h, m)",
          initializers=ONE),
    _site("Where(z > 0, z, 0), z dequantised for each reader", "where",
          "q = QuantizeLinear(h, sc, zp) h1 = DequantizeLinear(q, sc, zp) h2 = DequantizeLinear(q, sc, zp) "
          "g = Greater(h1, zero) r = Where(g, h2, zero)",
          initializers={**ZERO, "sc": np.asarray(0.25, np.float32), "zp": np.asarray(3, np.int8)},
          result=lambda z, kappa: jump(np.float32(0.25) * np.rint(z * 4), kappa)),
    _site("(z + |z|) / 2", "abs", "a = Abs(h) s = Add(h, a) r = Div(s, half)",
          initializers={"half": np.asarray(2, np.float32)}),
    _site("0.5 * (|z| + z)", "abs", "a = Abs(h) s = Add(a, h) r = Mul(half, s)",
          initializers={"half": np.asarray(0.5, np.float32)}),
    _site("Mean(z, |z|)", "abs", "a = Abs(h) r = Mean(h, a)"),
    _site("z - Min(z, 0)", "min", "m = Min(h, zero) r = Sub(h, m)"),
    _site("z - Clip(z, max=0)", "min", 'm = Clip(h, , zero) r = Sub(h, m)'),
    _site("-Min(-z, 0)", "min", "n = Neg(h) m = Min(n, zero) r = Neg(m)"),
    _site("LeakyRelu with alpha 0", "slope", "r = LeakyRelu<alpha = 0.0>(h)"),
    _site("PRelu with slope 0", "slope", "r = PRelu(h, zeros)", initializers={"zeros": np.zeros(4, np.float32)}),
    _site("Elu with alpha 0", "slope", "r = Elu<alpha = 0.0>(h)"),
    _site("Selu with alpha 0 and gamma 1", "slope", "r = Selu<alpha = 0.0, gamma = 1.0>(h)"),
    _site("ThresholdedRelu with alpha 0", "thresholded", "r = ThresholdedRelu<alpha = 0.0>(h)"),
    _named("x * Clip(x + 3, 0, 6) / 6 (hard swish)", "refusals", "multiplied with its own input; it is a gate",
           "t = Add(h, three) c = Clip(t, zero, six) m = Mul(h, c) r = Div(m, six)", initializers=SIX_AND_THREE),
    _named("x * (Clip(x + 3, 0, 6) / 6) (hard swish)", "refusals", "scaled by 1/6; it is a gate",
           "t = Add(h, three) c = Clip(t, zero, six) d = Div(c, six) r = Mul(d, h)", initializers=SIX_AND_THREE),
    _named("(x / 6) * Clip(x + 3, 0, 6) (hard swish)", "refusals", "multiplied with its own input; it is a gate",
           "t = Add(h, three) c = Clip(t, zero, six) d = Div(h, six) r = Mul(d, c)", initializers=SIX_AND_THREE),
    _named("Clip(x + 3, 0, 6) * 0.1667 (hard sigmoid)", "refusals", "scaled by 1/6; it is a gate",
           "t = Add(h, three) c = Clip(t, zero, six) r = Mul(sixth, c)",
           initializers={**SIX_AND_THREE, "sixth": np.asarray(0.1667, np.float32)}),
    _named("Min(Relu(x + 3), 6) / 6 (hard sigmoid)", "refusals", "scaled by 1/6; it is a gate",
           "t = Add(h, three) q = Relu(t) c = Min(q, six) r = Div(c, six)", initializers=SIX_AND_THREE),
    _named("Clip(0.2 x + 0.5, 0, 1) (hard sigmoid)", "refusals", "which is a hard sigmoid; it is a gate",
           "f = Mul(h, fifth) t = Add(f, half) r = Clip(t, zero, one)",
           initializers={**ONE, "fifth": np.asarray(0.2, np.float32), "half": np.asarray(0.5, np.float32)}),
    _named("Clip from 0 to 1 or 255 of the model's input", "refusals", "it is a clamp",
           "c = Clip(h, zero, one) r = Neg(c)", initializers=ONE),
    _named("Clip from 0 to 1 or 255 that is the model's output", "refusals", "an output of the model to [0, 1]",
           "n = Sin(h) c = Clip(n, zero, one) k = Constant<value_ints = [-1, 4]>() r = Reshape(c, k)",
           initializers=ONE, is_output=True),
    _named("Round(Clip(z, 0, 255)), a quantiser written out", "refusals", "it is the clamp of a quantiser",
           "c = Clip(h, zero, top) r = Round(c)", initializers={**ZERO, "top": np.asarray(255, np.float32)}),
    _named("Clip(Round(z), 0, 15), a quantiser written out", "refusals", "it is the clamp of a quantiser",
           "t = Round(h) m = Max(t, zero) c = Min(m, top) r = Add(c, one)",
           initializers={**ONE, "top": np.asarray(15, np.float32)}),
    _named("Clip from 0 to 1 of a Sigmoid", "refusals", "it bounds the result of Sigmoid to [0, 1]; it is a clamp",
           "s = Sigmoid(h) c = Clip(s, zero, one) r = Exp(c)", initializers=ONE),
    _named("z times a quantised Cast(z > 0)", "refusals", "leave this Mul and the Cast in front of it out",
           "g = Greater(h, zero) m = Cast<to = 1>(g) q = QuantizeLinear(m, sc, zp) n = DequantizeLinear(q, sc, zp) "
           "r = Mul(n, h)",
           initializers={**ZERO, "sc": np.asarray(0.25, np.float32), "zp": np.asarray(3, np.int8)}),
    _named("Max of several and 0", "refusals", "only Max(x, 0) is taken", "r = Max(h, x, zero)"),
    _named("Max with zeros that may enlarge z", "refusals", "may enlarge 'h' by broadcasting", "r = Max(h, zeros)",
           initializers={"zeros": np.zeros((3, 4), np.float32)}),
    _named("Max with a 0 that a caller may override", "refusals", "a caller may override", "r = Max(h, given)"),
    _named("Clip with a bound that is computed at run time", "refusals", "is not constant",
           "lo = ReduceMin<keepdims = 0>(x) r = Clip(h, lo)"),
    _named("Clip in a function that its calls bound differently", "refusals", "not the same constant in every call",
           "q = f.clip(h, zero) p = f.clip(q, one) r = Identity(p)", initializers=ONE,
           functions='<domain: "f", opset_import: ["" : 17]>\nclip (a, lo) => (b) { b = Clip(a, lo) }'),
    _named("Selu with alpha 0 and another gamma", "refusals", "times its gamma", "r = Selu<alpha = 0.0>(h)"),
    _named("Where(z > c, z, 0) with c > 0", "jumps", "", "g = Greater(h, one) r = Where(g, h, zero)",
           initializers=ONE),
    _named("ThresholdedRelu", "others", "ThresholdedRelu already", "r = ThresholdedRelu<alpha = 0.5>(h)"),
    _named("LeakyRelu, PRelu, Elu, Selu", "others", "lets negative values through", "r = LeakyRelu(h)"),
    _named("HardSwish, HardSigmoid", "others", "a gate of straight pieces", "r = HardSwish(h)"),
    _named("Gelu, Celu, Mish, Swish", "others", "lets negative values through", "r = Gelu(h)", opset=20),
    _named("Softplus", "others", "it is smooth", "r = Softplus(h)"),
)  # fmt: skip


def model_of(way: Way) -> onnx.ModelProto:
    """Return the model of a way."""
    end = "Identity(r)" if way.is_output else "Mul(r, two)"
    text = (
        f'<ir_version: 8, opset_import: ["" : {way.opset}, "f" : 1]>\n'
        "g (float[N,4] x) => (float[N,4] y) {\n"
        f"h = Add(x, shift)\n{way.body}\ny = {end}\n}}\n{way.functions}"
    )
    model = parser.parse_model(text)
    for index, node in enumerate(model.graph.node):
        node.name = f"node{index}"
    constants = {"shift": SHIFT, "two": np.asarray(2, np.float32), **way.initializers}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    if "given" in way.body:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(0, np.float32), "given"))
        model.graph.input.append(helper.make_tensor_value_info("given", onnx.TensorProto.FLOAT, []))
    onnx.checker.check_model(model, full_check=True)
    return model

"""z -> jr_onnx::JumpRelu(z; kappa[, cap]) plus a model-local function of that name.

With the op library registered the kernel wins; without it ONNX Runtime inlines the function, so the file runs
anywhere. IR >= 8 (functions in the checker), opset >= 10. The function's body is written for what the file needs:

    ThresholdedRelu(z; alpha=@kappa)                            float and float16, one node
    Where(Greater(Sub(z, k), 0), z, 0), k = CastLike(@kappa, z)  double and bfloat16 (opset >= 15; Cast at 12 to 14)

With caps in the plan it ends in Min(., @cap), and nodes without a cap name +inf. A random kappa is drawn by the
kernel from the operating system's entropy: per site by attributes kappa_low and kappa_high, per network by one
jr_onnx::DrawKappa that feeds the second input of every JumpRelu. Their bodies use RandomUniform, which is
predictable; the library is meant to be there.

A kappa per channel is the second input, a float constant of shape (C, 1, ..., 1) that broadcasts over z, and so are
then the kappas of all other sites of the file, for they share the function.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import onnx
from onnx import AttributeProto, helper

from jr_onnx.element_types import FLOAT_DTYPES, NUMBERS
from jr_onnx.modelfile import copied
from jr_onnx.rewriter.lowering.base import Jump, Names, allows, constant
from jr_onnx.rewriter.lowering.where import where_allowed
from jr_onnx.semantics import BLOCK_ATTRIBUTE, DRAW_OP_TYPE, OP_DOMAIN, OP_TYPE, OP_VERSION

MINIMUM_IR = 8
_CAST_LIKE_SINCE = 15
_CONSTANT_FLOAT_SINCE = 12
_MIN_BROADCASTS_SINCE = 8
_THRESHOLDED_ON_CUDA_BEFORE = 22


@dataclass(frozen=True)
class Needs:
    """What the custom sites of one file need of the function's body."""

    dtypes: frozenset[str]
    capped: bool
    runtime: bool
    draws: bool
    target: str

    @staticmethod
    def of(jumps: Iterable[Jump], target: str) -> Needs:
        """Collect the needs of all custom sites."""
        jumps = list(jumps)
        return Needs(
            frozenset(jump.dtype for jump in jumps),
            any(jump.cap is not None for jump in jumps),
            any(jump.runtime is not None or jump.kappa_is_input for jump in jumps),
            any(jump.draw is not None for jump in jumps),
            target,
        )

    @property
    def simple(self) -> bool:
        """Whether one attribute and ThresholdedRelu are enough."""
        return self.dtypes <= {"float32", "float16"} and not self.runtime and not self.draws


def custom_problem(opset: int, dtype: str, *, variable: bool, capped: bool, target: str) -> str | None:
    """Return why the function's body is impossible at this opset for the element type, None if it is possible.

    Args:
        opset: Version of the standard operator set.
        dtype: NumPy name of the element type.
        variable: Whether kappa is drawn or an input.
        capped: Whether the site has a cap.
        target: portable, cpu or cuda.
    """
    if opset < 10:
        return f"a function body needs opset 10 (ThresholdedRelu), the model has {opset}"
    simple = dtype in ("float32", "float16") and not variable and not _avoid_thresholded(opset, target)
    if simple and allows("ThresholdedRelu", opset, dtype) and not capped:
        return None
    if opset < _CONSTANT_FLOAT_SINCE:
        return f"this function body needs opset 12 (Constant with value_float), the model has {opset}"
    if simple:
        return None
    if not where_allowed(opset, dtype):
        return f"Sub, Greater and Where do not take {dtype} at opset {opset}"
    return None


def body_problem(needs: Needs, opset: int) -> str | None:
    """Return why one function body cannot serve all custom sites of a file, None if it can."""
    if opset >= _CAST_LIKE_SINCE or len(needs.dtypes) < 2 or (needs.simple and not needs.capped):
        return None
    return f"one function body for {', '.join(sorted(needs.dtypes))} needs opset {_CAST_LIKE_SINCE} (CastLike)"


def lower_custom(jump: Jump, names: Names) -> list[onnx.NodeProto]:
    """Write J as one jr_onnx::JumpRelu, behind the constant where kappa is its second input."""
    nodes: list[onnx.NodeProto] = []
    inputs = [jump.operand]
    if jump.runtime is not None:
        inputs.append(jump.runtime)
    elif jump.kappa_is_input:
        nodes.append(constant(names, jump.base, "kappa", jump.kappa, "float32", jump.rank))
        inputs.append(str(nodes[0].output[0]))
    node = helper.make_node(OP_TYPE, inputs, [jump.result], name=jump.node_name, domain=OP_DOMAIN)
    if jump.draw is not None:
        node.attribute.append(helper.make_attribute("kappa_low", jump.draw[0]))
        node.attribute.append(helper.make_attribute("kappa_high", jump.draw[1]))
    elif len(inputs) == 1:
        node.attribute.append(helper.make_attribute("kappa", jump.kappa))
    if jump.cap is not None:
        node.attribute.append(helper.make_attribute("cap", jump.cap))
    if jump.channel_block:
        node.attribute.append(helper.make_attribute(BLOCK_ATTRIBUTE, jump.channel_block))
    return [*nodes, node]


def draw_node(result: str, low: float, high: float) -> onnx.NodeProto:
    """Return the node that draws one kappa per run for the whole network."""
    return helper.make_node(DRAW_OP_TYPE, [], [result], name=result, domain=OP_DOMAIN, low=low, high=high)


def jump_function(needs: Needs, opset: int) -> onnx.FunctionProto:
    """Return the model-local function jr_onnx::JumpRelu.

    Raises:
        ValueError: Several element types meet where the body must name one (opset 12 to 14).
    """
    simple = needs.simple and not _avoid_thresholded(opset, needs.target)
    nodes: list[onnx.NodeProto] = []
    result = "jumped" if needs.capped else "y"
    if simple:
        nodes.append(_with_reference(helper.make_node("ThresholdedRelu", ["x"], [result]), "alpha", "kappa"))
    else:
        nodes.extend(_where_body(needs, opset, result))
    if needs.capped:
        nodes.extend(_constant_like("cap", needs, opset, "cap"))
        nodes.append(helper.make_node("Min", [result, "cap"], ["y"]))
    function = helper.make_function(
        OP_DOMAIN,
        OP_TYPE,
        ["x", "kappa"] if needs.runtime else ["x"],
        ["y"],
        nodes,
        [helper.make_opsetid("", opset)],
    )
    function.attribute.extend(_required(needs))
    function.doc_string = "JumpReLU: y = x if x > kappa else 0. Inlined where the jr_onnx op library is not registered."
    return function


def draw_function(opset: int) -> onnx.FunctionProto:
    """Return the model-local function jr_onnx::DrawKappa, for machines without the op library."""
    uniform = _uniform("low", "high", "drawn")
    squeeze = helper.make_node("Squeeze", ["drawn"], ["kappa"])
    function = helper.make_function(
        OP_DOMAIN,
        DRAW_OP_TYPE,
        [],
        ["kappa"],
        [uniform, squeeze],
        [helper.make_opsetid("", opset)],
        ["low", "high"],
    )
    function.doc_string = (
        "Draws kappa with RandomUniform, which is predictable; register the jr_onnx op library instead."
    )
    return function


def is_own_body(function: onnx.FunctionProto) -> bool:
    """Tell whether a function JumpRelu or DrawKappa is one that this module writes, its doc string aside."""
    opset = next((int(item.version) for item in function.opset_import if item.domain == ""), 0)
    found = _without_words(function)
    if function.name == DRAW_OP_TYPE:
        return _without_words(draw_function(opset)) == found
    for dtype, capped, target in product(FLOAT_DTYPES, (False, True), ("portable", "cuda")):
        for runtime, draws in ((False, False), (True, False), (False, True)):
            needs = Needs(frozenset({dtype}), capped, runtime, draws, target)
            if _without_words(jump_function(needs, opset)) == found:
                return True
    return False


def _without_words(function: onnx.FunctionProto) -> bytes:
    copy = copied(function)
    copy.doc_string = ""
    return bytes(copy.SerializeToString(deterministic=True))


def opset_import() -> onnx.OperatorSetIdProto:
    """Return the import of domain jr_onnx."""
    return helper.make_opsetid(OP_DOMAIN, OP_VERSION)


def _avoid_thresholded(opset: int, target: str) -> bool:
    return target == "cuda" and opset >= _THRESHOLDED_ON_CUDA_BEFORE


def _required(needs: Needs) -> list[str]:
    cap = ["cap"] if needs.capped else []
    if needs.draws:
        return ["kappa_low", "kappa_high", *cap]
    return cap if needs.runtime else ["kappa", *cap]


def _where_body(needs: Needs, opset: int, result: str) -> list[onnx.NodeProto]:
    nodes: list[onnx.NodeProto] = []
    if needs.draws:
        nodes.append(_uniform("kappa_low", "kappa_high", "drawn"))
        nodes.append(helper.make_node("Squeeze", ["drawn"], ["kappa_float"]))
        nodes.append(_like("kappa_float", "k", needs, opset))
    elif needs.runtime:
        nodes.append(_like("kappa", "k", needs, opset))
    else:
        nodes.extend(_constant_like("kappa", needs, opset, "k"))
    nodes.append(helper.make_node("Constant", [], ["zero_float"], value_float=0.0))
    nodes.append(_like("zero_float", "zero", needs, opset))
    nodes.append(helper.make_node("Sub", ["x", "k"], ["shifted"]))
    nodes.append(helper.make_node("Greater", ["shifted", "zero"], ["above"]))
    nodes.append(helper.make_node("Where", ["above", "x", "zero"], [result]))
    return nodes


def _constant_like(attribute: str, needs: Needs, opset: int, result: str) -> list[onnx.NodeProto]:
    wide = f"{result}_float"
    return [
        _with_reference(helper.make_node("Constant", [], [wide]), "value_float", attribute),
        _like(wide, result, needs, opset),
    ]


def _like(name: str, result: str, needs: Needs, opset: int) -> onnx.NodeProto:
    """Bring a float scalar to the type of x: CastLike, or Cast to the one type there is before opset 15."""
    if opset >= _CAST_LIKE_SINCE:
        return helper.make_node("CastLike", [name, "x"], [result])
    if len(needs.dtypes) != 1:
        raise ValueError(f"one function body for {', '.join(sorted(needs.dtypes))} needs opset 15 (CastLike)")
    (dtype,) = needs.dtypes
    return helper.make_node("Cast", [name], [result], to=NUMBERS[dtype])


def _uniform(low: str, high: str, result: str) -> onnx.NodeProto:
    node = helper.make_node("RandomUniform", [], [result], shape=[1])
    return _with_reference(_with_reference(node, "low", low), "high", high)


def _with_reference(node: onnx.NodeProto, name: str, refers_to: str) -> onnx.NodeProto:
    node.attribute.append(AttributeProto(name=name, ref_attr_name=refers_to, type=AttributeProto.FLOAT))
    return node

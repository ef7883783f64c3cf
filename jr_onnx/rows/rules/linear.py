"""Matrix products: rows stay apart where the batch is not the axis that is summed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jr_onnx.rows.node import Answer, Node
from jr_onnx.rows.registry import MICROSOFT, rule
from jr_onnx.rows.rules.elementwise import broadcast, joint
from jr_onnx.rows.size import ONE, Size
from jr_onnx.rows.value import NotProvedError, Value, fixed, like, rows

_SUMMED = "it sums over the axis of the batch"


def matrix_product(a: Value, b: Value, fresh: Callable[[], Size]) -> Value:
    """Return the product as NumPy's matmul defines it.

    Raises:
        NotProvedError: The sum runs over the batch, or rows of one input meet rows of the other.
    """
    if a.dims is None or b.dims is None:
        if a.axis is None and b.axis is None:
            return fixed()
        raise NotProvedError("the rank of one of its inputs is not known")
    if not a.dims or not b.dims:
        raise NotProvedError("one of its inputs is a scalar")
    if a.axis is not None and a.from_end == -1:
        raise NotProvedError(_SUMMED)
    if b.axis is not None and b.from_end == (-2 if len(b.dims) > 1 else -1):
        raise NotProvedError(_SUMMED)
    if a.axis is not None and b.axis is not None and max(a.from_end, b.from_end) >= -2:
        raise NotProvedError("it multiplies rows with each other")
    # As batches of matrices: the axes but the last two broadcast, and of these two the product takes one from each.
    left = _matrix(a, contracted=-1, vector_axis=0)
    right = _matrix(b, contracted=-2, vector_axis=1)
    whole = broadcast([left, right], fresh)
    drop = {len(whole.dims or ()) - 2} if len(a.dims) == 1 else set()
    drop |= {len(whole.dims or ()) - 1} if len(b.dims) == 1 else set()
    return _without(whole, drop)


def _matrix(value: Value, contracted: int, vector_axis: int) -> Value:
    """Return a matrix whose summed axis has one entry, so that broadcasting gives the product's sizes."""
    dims = list(value.dims or ())
    axis = value.axis
    if len(dims) == 1:
        dims.insert(vector_axis, ONE)
        axis = axis if axis is None or axis < vector_axis else axis + 1
    dims[contracted] = ONE
    return fixed(tuple(dims)) if axis is None else rows(axis, value.block, dims)


def _without(value: Value, dropped: set[int]) -> Value:
    dims = [size for axis, size in enumerate(value.dims or ()) if axis not in dropped]
    if value.axis is None:
        return fixed(tuple(dims))
    return rows(value.axis - sum(axis < value.axis for axis in dropped), value.block, dims)


def turned(value: Value) -> Value:
    """Swap the last two axes."""
    if value.dims is None or len(value.dims) < 2:
        return value
    order = [*range(len(value.dims) - 2), len(value.dims) - 1, len(value.dims) - 2]
    dims = [value.dims[axis] for axis in order]
    return fixed(tuple(dims)) if value.axis is None else rows(order.index(value.axis), value.block, dims)


@rule("MatMul")
def mat_mul(node: Node) -> Answer:
    """Multiply matrices."""
    return matrix_product(node.value(0), node.value(1), node.fresh)


@rule("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_mat_mul(node: Node) -> Answer:
    """Multiply matrices that may be transposed first."""
    if node.attr("transBatchA", 0) or node.attr("transBatchB", 0):
        raise NotProvedError("it moves the axis of the batch (transBatchA, transBatchB)")
    a, b = node.value(0), node.value(1)
    a = turned(a) if node.attr("transA", 0) else a
    b = turned(b) if node.attr("transB", 0) else b
    return matrix_product(a, b, node.fresh)


@rule("Gemm")
@rule("FusedGemm", domain=MICROSOFT)
def gemm(node: Node) -> Answer:
    """Multiply two matrices and add a third, which broadcasts."""
    if node.attr("broadcast", 0):
        raise NotProvedError("it broadcasts in the manner of opset 6 and below")
    return _gemm(node, node.value(0), node.value(1), node.find(2))


def _gemm(node: Node, a: Value, b: Value, c: Value | None) -> Value:
    a = turned(a) if node.attr("transA", 0) else a
    b = turned(b) if node.attr("transB", 0) else b
    result = matrix_product(a, b, node.fresh)
    if c is None or result.dims is None:
        return result
    total = broadcast([result, c], node.fresh)
    if total.rank != len(result.dims):
        raise NotProvedError("what it adds has more axes than the product")
    return total


@rule("MatMulInteger")
@rule("MatMulIntegerToFloat", domain=MICROSOFT)
def integer_mat_mul(node: Node) -> Answer:
    """Multiply quantised matrices: a, b, and their zero points, with MatMulIntegerToFloat after their scales."""
    node.only(0)
    node.scalars((2,) if node.op == "MatMulInteger" else (2, 4))
    return matrix_product(node.value(0), node.value(1), node.fresh)


@rule("QLinearMatMul")
def quantised_mat_mul(node: Node) -> Answer:
    """Multiply quantised matrices: a, its scale and zero point, b, its scale and zero point, those of the result."""
    node.only(0, 3)
    node.scalars((1, 2, 6, 7))
    b = node.value(3)
    if b.axis is not None and b.from_end >= -2:
        raise NotProvedError("the scale of its second input may be one number for each row")
    return matrix_product(node.value(0), b, node.fresh)


@rule("QGemm", domain=MICROSOFT)
def quantised_gemm(node: Node) -> Answer:
    """Multiply quantised matrices, in the order of QLinearMatMul, and add a bias."""
    node.only(0)
    node.scalars((1, 2, 7, 8))
    return _gemm(node, node.value(0), node.value(3), node.find(6))


@rule("Einsum")
def einsum(node: Node) -> Answer:
    """Sum products over named axes; the batch must keep its letter from every input that has rows to the output."""
    values = node.given()
    terms, output = _equation(node, values)
    carrying = [(term, value) for term, value in zip(terms, values, strict=True) if value.axis is not None]
    sizes = _letters(terms, values, node.fresh)
    dims = tuple(sizes[letter] for letter in output)
    if not carrying:
        return fixed(dims)
    letters = {term[value.axis] for term, value in carrying if value.axis is not None}
    letter = next(iter(letters))
    if len(letters) > 1 or len({value.block for _, value in carrying}) > 1:
        raise NotProvedError("the rows of its inputs lie along different axes")
    if output.count(letter) != 1:
        raise NotProvedError(_SUMMED)
    for term, value in zip(terms, values, strict=True):
        if term.count(letter) != (0 if value.axis is None else 1):
            raise NotProvedError("an axis of a value that is the same for all rows lies along the rows")
    return rows(output.index(letter), carrying[0][1].block, dims)


_DOTS = "..."


def _equation(node: Node, values: Sequence[Value]) -> tuple[list[list[str]], list[str]]:
    """Return the letters of every input and of the output; the axes of an ellipsis are called "...1" from the end."""
    text = node.attr("equation", b"").decode().replace(" ", "")
    left, arrow, right = text.partition("->")
    given = left.split(",")
    if len(given) != len(node.inputs) or len(values) != len(given):
        raise NotProvedError(f"its equation {text!r} does not fit its inputs")
    terms = [_spelled(term, len(node.same_rank(value))) for term, value in zip(given, values, strict=True)]
    widest = max((sum(axis.startswith(_DOTS) for axis in term) for term in terms), default=0)
    if not arrow:
        letters = [axis for term in terms for axis in term if not axis.startswith(_DOTS)]
        right = (_DOTS if widest else "") + "".join(sorted(axis for axis in set(letters) if letters.count(axis) == 1))
    return terms, _spelled(right, widest + len(right.replace(_DOTS, "")) if _DOTS in right else len(right))


def _spelled(term: str, rank: int) -> list[str]:
    """Return a name for each axis of a term of an equation."""
    before, dots, after = term.partition(_DOTS)
    hidden = rank - len(before) - len(after)
    if hidden < 0 or (hidden and not dots) or "." in before + after:
        raise NotProvedError(f"the term {term!r} of its equation does not fit an input of rank {rank}")
    return [*before, *(f"{_DOTS}{number}" for number in range(hidden, 0, -1)), *after]


def _letters(terms: Sequence[Sequence[str]], values: Sequence[Value], fresh: Callable[[], Size]) -> Mapping[str, Size]:
    sizes: dict[str, list[Size]] = {}
    for term, value in zip(terms, values, strict=True):
        for letter, size in zip(term, value.dims or (), strict=True):
            sizes.setdefault(letter, []).append(size)
    return {letter: joint(found, fresh) for letter, found in sizes.items()}


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_normalisation(node: Node) -> Answer:
    """Add a skip connection and a bias, and normalise over the last axis."""
    node.only(0, 1)
    total = broadcast([node.value(0), node.value(1)], node.fresh)
    if total.axis is not None and total.from_end == -1:
        raise NotProvedError("it normalises over the axis of the batch")
    dims = total.dims or ()
    small = like(total, (*dims[:-1], ONE))
    return [like(total), small, small, like(total)][: node.outputs]

"""What is proved, and where a proof ends, operator by operator; every case is held against ONNX Runtime too."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from jr_onnx.kappa import RandomKappa
from jr_onnx.rewriter import rewrite
from jr_onnx.rows import prove_rows
from jr_onnx.rows.trial import TrialInput, try_rows
from tests.rows.build import session
from tests.rows.text import IMAGE, TABLE, TOKENS, c, parse

PROVED = {
    "the whole batch by its size": (
        "n = Shape <start = 0, end = 1> (x)" + c("z", "0") + "y = Slice(x, z, n, z)",
        {},
    ),
    "positions counted to a size of the input": (
        "n = Shape <start = 1, end = 2> (x)"
        + c("z", "0")
        + "m = Squeeze(n, z) a = Constant <value = int64 {0}> () b = Constant <value = int64 {1}> () r = Range(a, m, b)"
        " f = Cast <to = 1> (r) y = Add(x, f)",
        {"inputs": "float[N,L] x"},
    ),
    "einsum with any number of axes": (
        'w = ConstantOfShape(t) y = Einsum <equation = "...i,ij->...j"> (x, w)',
        {"inputs": TOKENS, "output": "float[N,5,M] y"},
    ),
    "einsum of rows with rows along any number of axes": (
        'y = Einsum <equation = "...qd,...kd->...qk"> (x, x)',
        {"inputs": TOKENS, "output": "float[N,5,M] y"},
    ),
    "einsum that leaves its output open": (
        'w = ConstantOfShape(t) y = Einsum <equation = "bi, ij"> (x, w)',
        {"inputs": "float[N,6] x"},
    ),
    "elementwise": ("y = Relu(x)", {}),
    "custom op": ("y = ThresholdedRelu <alpha = 0.5> (x)", {}),
    "constant row": (c("b", "1,2,3,4,5,6", "float") + "y = Add(x, b)", {}),
    "constant with one row": ("b = Constant <value = float[1,6] {1,2,3,4,5,6}> () y = Mul(b, x)", {}),
    "two inputs": ("y = Add(x, z)", {"inputs": f"{TABLE}, float[N,1] z"}),
    "image": (
        "w = ConstantOfShape(s) h = Conv(x, w) r = Relu(h) p = MaxPool <kernel_shape = [2,2]> (r)"
        " g = GlobalAveragePool(p) y = Flatten(g)",
        {"inputs": IMAGE},
    ),
    "reshape by count": (c("s", "-1,48") + "y = Reshape(x, s)", {"inputs": IMAGE}),
    "reshape by copy": (c("s", "0,-1") + "y = Reshape(x, s)", {"inputs": "float[N,3,H,W] x"}),
    "reshape by shape": (
        "n = Shape <start = 0, end = 1> (x)" + c("m", "-1") + "s = Concat <axis = 0> (n, m) y = Reshape(x, s)",
        {"inputs": "float[N,3,H,W] x"},
    ),
    "reshape as TensorFlow spells it": (
        "a = Shape(x) b = Cast <to = 6> (a)" + c("z", "0") + c("o", "1") + "d = Slice(b, z, o, z)"
        " e = Squeeze(d, z) f = Unsqueeze(e, z)" + c("k", "48", "int32") + "g = Concat <axis = 0> (f, k)"
        " s = Cast <to = 7> (g) y = Reshape(x, s)",
        {"inputs": IMAGE},
    ),
    "tokens through a table and back": (
        c("s", "-1,6")
        + "a = Reshape(x, s) w = ConstantOfShape(t) h = MatMul(a, w)"
        + c("u", "-1,5,6")
        + "y = Reshape(h, u)",
        {"inputs": TOKENS, "output": "float[N,5,6] y"},
    ),
    "attention": (
        "k = Transpose <perm = [0,2,1]> (x) a = MatMul(x, k) p = Softmax <axis = -1> (a) y = MatMul(p, x)",
        {"inputs": TOKENS, "output": "float[N,5,6] y"},
    ),
    "heads": (
        c("s", "0,0,2,3") + "a = Reshape(x, s) b = Transpose <perm = [0,2,1,3]> (a)" + c("u", "-1,5,3")
        + "d = Reshape(b, u) k = Transpose <perm = [0,2,1]> (d) m = MatMul(d, k)" + c("v", "-1,2,5,5")
        + "y = Reshape(m, v)",
        {"inputs": TOKENS, "output": "float[N,2,5,5] y"},
    ),
    "tokens in front of the batch": (
        "a = Transpose <perm = [1,0,2]> (x)"
        + c("s", "-1,6")
        + "b = Reshape(a, s) w = ConstantOfShape(t) h = MatMul(b, w)"
        + c("u", "5,-1,6")
        + "d = Reshape(h, u) y = Transpose <perm = [1,0,2]> (d)",
        {"inputs": TOKENS, "output": "float[N,5,6] y"},
    ),
    "batch in the middle": (
        "a = Transpose <perm = [1,0,2]> (x) b = Softmax <axis = 0> (a) y = Transpose <perm = [1,0,2]> (b)",
        {"inputs": TOKENS, "output": "float[N,5,6] y"},
    ),
    "softmax of opset 12": ("y = Softmax(x)", {"inputs": IMAGE, "output": "float[N,3,4,4] y", "opset": 12}),
    "argmax": ("y = ArgMax <axis = 1, keepdims = 0> (x)", {"output": "int64[N] y"}),
    "class token": (
        "n = Shape <start = 0, end = 1> (x)" + c("m", "1,6") + "s = Concat <axis = 0> (n, m)"
        " t = Constant <value = float[1,1,6] {1,2,3,4,5,6}> () e = Expand(t, s) y = Concat <axis = 1> (e, x)",
        {"inputs": TOKENS, "output": "float[N,6,6] y"},
    ),
    "class token as torch spells it": (
        "n = Shape <start = 0, end = 1> (x)" + c("m", "-1,-1") + "s = Concat <axis = 0> (n, m)" + c("o", "-1")
        + "l = Shape(s) one = ConstantOfShape <value = int64[1] {1}> (l) q = Equal(s, o) w = Where(q, one, s)"
        " t = Constant <value = float[1,1,6] {1,2,3,4,5,6}> () e = Expand(t, w) y = Concat <axis = 1> (e, x)",
        {"inputs": TOKENS, "output": "float[N,6,6] y"},
    ),
    "quantised with constant scales": (
        "s = Constant <value = float {0.1}> () z = Constant <value = uint8 {128}> () q = QuantizeLinear(x, s, z)"
        " y = DequantizeLinear(q, s, z)",
        {},
    ),
    "a branch on a constant": (
        "t = Constant <value = bool {1}> () y = If (t) <then_branch = a () => (float[N,6] p) { p = Relu(x) },"
        " else_branch = b () => (float[N,6] q) { q = Neg(x) }>",
        {},
    ),
    "a branch on a size": (
        "s = Shape(x)" + c("i", "1") + "d = Gather(s, i) q = Equal(d, i) r = Squeeze(q)"
        " y = If (r) <then_branch = a () => (float[N,6] p) { p = ReduceSum(x) },"
        " else_branch = b () => (float[N,6] q2) { q2 = Neg(x) }>",
        {},
    ),
    "table lookup": (
        "t = ConstantOfShape(s) y = Gather(t, x)",
        {"inputs": "int64[N,5] x", "output": "float[N,5,6] y"},
    ),
    "einsum": ("y = Einsum <equation = \"ntc,ndc->ntd\"> (x, x)", {"inputs": TOKENS, "output": "float[N,5,5] y"}),
    "labels beside scores": (
        "y = Softmax(x) l = ArgMax <axis = 1> (x)",
        {"output": "float[N,6] y, int64[N,1] l"},
    ),
    "scaled table": (
        "y = ai.onnx.ml.Scaler <offset = [0.5], scale = [2.0]> (x)",
        {},
    ),
}  # fmt: skip

NOT_PROVED = {
    "mean of the batch": ("m = ReduceMean <axes = [0]> (x) y = Sub(x, m)", {}, "'m' (ReduceMean): it works over"),
    "mean of everything": ("m = ReduceMean(x) y = Sub(x, m)", {}, "'m' (ReduceMean): it works over the axis"),
    "softmax of the batch": ("y = Softmax <axis = 0> (x)", {}, "'y' (Softmax): it works over the axis of the batch"),
    "softmax of everything": ("y = Softmax <axis = 0> (x)", {"opset": 11}, "'y' (Softmax): it works over the axis"),
    "argmax of the batch": ("y = ArgMax <axis = 0> (x)", {"output": "int64[1,6] y"}, "(ArgMax): it works over"),
    "dynamic scale": (
        "q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z)",
        {},
        "'q' (DynamicQuantizeLinear): it takes one scale from all rows",
    ),
    "constant as long as a batch": (
        "b = Constant <value = float[2,1] {1,2}> () y = Add(x, b)",
        {},
        "'y' (Add): broadcasting lays an axis of a value that is the same for all rows along the rows",
    ),
    "a number for each row beside a table": (
        "y = Add(x, z)",
        {"inputs": "float[N,M] x, float[N] z"},
        "'y' (Add): broadcasting lays the rows of its inputs along different axes",
    ),
    "reshape by an unknown count": (
        c("s", "-1,64") + "y = Reshape(x, s)",
        {"inputs": "float[N,M] x"},
        "'y' (Reshape): a row is not known to fill whole entries of what -1 stands for",
    ),
    "reshape by halves of rows": (c("s", "-1,4") + "y = Reshape(x, s)", {}, "a row is not known to fill whole entries"),
    "reshape to one": (c("s", "1,-1") + "y = Reshape(x, s)", {}, "the output 'y' does not have one entry"),
    "reshape in front of the batch": (c("s", "2,-1,3") + "y = Reshape(x, s)", {}, "it merges the batch"),
    "reshape to a fixed batch": (c("s", "8,6") + "y = Reshape(x, s)", {}, "it reshapes the batch to a fixed size"),
    "tokens taken for rows": (
        "a = Transpose <perm = [1,0,2]> (x)" + c("s", "-1,30") + "y = Reshape(a, s)",
        {"inputs": TOKENS},
        "'y' (Reshape): it merges the batch",
    ),
    "several for one row": (c("s", "-1,2") + "y = Reshape(x, s)", {}, "the output 'y' does not have one entry"),
    "transposed": ("y = Transpose(x)", {}, "the output 'y' does not have one entry along its first axis for each row"),
    "gram matrix": ("t = Transpose(x) y = MatMul(x, t)", {}, "'y' (MatMul): it multiplies rows with each other"),
    "covariance": ("t = Transpose(x) y = MatMul(t, x)", {}, "'y' (MatMul): it sums over the axis of the batch"),
    "batch norm in training": (
        "y, m, v = BatchNormalization <training_mode = 1> (x, a, a, a, a)",
        {},
        "'y' (BatchNormalization): it is in training mode",
    ),
    "mean and variance by default": (
        "y = MeanVarianceNormalization(x)",
        {"inputs": IMAGE},
        "(MeanVarianceNormalization): it works over the axis of the batch",
    ),
    "running sum": ("z = Constant <value = int64 {0}> () y = CumSum(x, z)", {}, "(CumSum): it works over the axis"),
    "first row": (
        c("z", "0") + c("o", "1") + "f = Slice(x, z, o, z) y = Add(x, f)",
        {},
        "'f' (Slice): it cuts the axis of the batch",
    ),
    "a number of rows that wraps around": (
        "n = Shape <start = 0, end = 1> (x)"
        + c("b", "1073741824")
        + "p = Mul(n, b) q = Div(p, b)"
        + c("m", "-1")
        + "s = Concat <axis = 0> (q, m) y = Reshape(x, s)",
        {},
        "'y' (Reshape): a size is computed from the number of rows in a way that is not followed",
    ),
    "a number of rows in eight bits": (
        "n = Shape <start = 0, end = 1> (x) e = Cast <to = 3> (n) q = Cast <to = 7> (e)"
        + c("m", "-1")
        + "s = Concat <axis = 0> (q, m) y = Reshape(x, s)",
        {},
        "'y' (Reshape): a size is computed from the number of rows in a way that is not followed",
    ),
    "a size that floats round": (
        "f = Constant <value = float[1] {0.1}> () n = Constant <value = float[1] {60}> () p = Mul(f, n)"
        " i = Cast <to = 7> (p)"
        + c("m", "-1")
        + "s = Concat <axis = 0> (m, i) y = Reshape(x, s)",
        {},
        "'y' (Reshape): a row is not known to fill whole entries",
    ),
    "a table as long as the batch": (
        "n = Shape <start = 0, end = 1> (x) t = Constant <value = float[3] {1,2,3}> ()"
        + c("z", "0")
        + "p = Slice(t, z, n, z)"
        + c("o", "1")
        + "q = Unsqueeze(p, o) y = Add(x, q)",
        {},
        "'p' (Slice): it takes as many entries as there are rows",
    ),
    "as many columns as rows": (
        "n = Shape <start = 0, end = 1> (x)" + c("z", "0") + c("o", "1") + "y = Slice(x, z, n, o)",
        {},
        "'y' (Slice): it takes as many entries as there are rows",
    ),
    "rows but the last of twice as many": (
        "n = Shape <start = 0, end = 1> (x) d = Concat <axis = 1> (x, x)"
        + c("s", "-1,6")
        + "e = Reshape(d, s)"
        + c("z", "0")
        + "f = Slice(e, z, n, z) y = Relu(f)",
        {},
        "'f' (Slice): it cuts the axis of the batch",
    ),
    "counted rows": (
        "n = Shape <start = 0, end = 1> (x)"
        + c("z", "0")
        + "m = Squeeze(n, z) a = Constant <value = int64 {0}> () b = Constant <value = int64 {1}> () r = Range(a, m, b)"
        " f = Cast <to = 1> (r)"
        + c("o", "1")
        + "q = Unsqueeze(f, o) y = Add(x, q)",
        {},
        "'r' (Range): its input 'm' depends on the number of rows",
    ),
    "einsum over rows": (
        'y = Einsum <equation = "...i,...i->i"> (x, x)',
        {"output": "float[M] y"},
        "'y' (Einsum): it sums over the axis of the batch",
    ),
    "einsum along a table of as many entries": (
        'w = Constant <value = float[3,1] {1,2,3}> () y = Einsum <equation = "...i,...j->...i"> (x, w)',
        {},
        "'y' (Einsum): an axis of a value that is the same for all rows lies along the rows",
    ),
    "rows backwards": (
        c("a", "-1") + c("b", "-9223372036854775807") + c("z", "0") + "y = Slice(x, a, b, z, a)",
        {},
        "'y' (Slice): it cuts the axis of the batch",
    ),
    "rows behind each other": ("y = Concat <axis = 0> (x, x)", {}, "(Concat): it joins values along the axis"),
    "a shape made of rows": (
        "a = ConstantOfShape(x) b = ReduceSum(a)"
        + c("o", "1")
        + "d = Reshape(b, o) e = Cast <to = 1> (x) y = Mul(e, d)",
        {"inputs": "int64[N] x", "output": "float[N] y"},
        "'a' (ConstantOfShape): its input 'x' holds rows",
    ),
    "a product that is none": (
        "s = Shape(x) t = ReduceProd <noop_with_empty_axes = 1> (s) y = Reshape(x, t)",
        {"opset": 18},
        "'t' (ReduceProd): its input 's' depends on the number of rows",
    ),
    "squeezed as it happens": ("y = Squeeze(x)", {}, "(Squeeze): it takes away every axis of size 1"),
    "places in the batch": (
        "p, y = MaxPool <kernel_shape = [2,2]> (x)",
        {"inputs": IMAGE, "output": "int64[N,3,3,3] y"},
        "(MaxPool): its second output counts through the whole batch",
    ),
    "random": ("r = RandomNormalLike(x) y = Add(x, r)", {}, "'r' (RandomNormalLike): it draws random numbers"),
    "random scale": (
        "r = RandomUniform <shape = [1]> () y = Mul(x, r)",
        {},
        "'r' (RandomUniform): it draws random numbers",
    ),
    "dropout in training": (
        "a = Constant <value = float {0.5}> () t = Constant <value = bool {1}> () y = Dropout(x, a, t)",
        {},
        "(Dropout): it may be in training mode",
    ),
    "as many as rows": (
        "n = Size(x) f = Cast <to = 1> (n) y = Div(x, f)",
        {},
        "'y' (Div): its input 'f' depends on the number of rows",
    ),
    "a branch on data": (
        "m = ReduceMax <keepdims = 0> (x) z = Constant <value = float {0}> () q = Greater(m, z)"
        " y = If (q) <then_branch = a () => (float[N,6] p) { p = Relu(x) },"
        " else_branch = b () => (float[N,6] r) { r = Neg(x) }>",
        {},
        "'m' (ReduceMax): it works over the axis of the batch",
    ),
    "fixed batch": ("y = Relu(x)", {"inputs": "float[8,6] x"}, "the first axis of the input 'x' is fixed to 8"),
    "an input without a batch": ("y = Mul(x, z)", {"inputs": f"{TABLE}, float z"}, "'z' has no axis for the batch"),
    "an output without a batch": (
        "y = Relu(x) k = Constant <value = float[1] {2}> ()",
        {"output": "float[N,6] y, float[1] k"},
        "the output 'k' has no axis for the batch",
    ),
    "unknown": ("y = com.microsoft.Inverse(x)", {}, "'y' (Inverse): its operator is not among those that are followed"),
}  # fmt: skip


def weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a case the weights that it names: shapes `s` and `t`, statistics `a`."""
    shapes = {"s": [4, 3, 2, 2] if "Conv" in str(model) else [9, 6], "t": [6, 6]}
    made = {name for node in model.graph.node for name in node.output}
    used = {name for node in model.graph.node for name in node.input} - made
    for name in used & {"s", "t"}:
        model.graph.initializer.append(numpy_helper.from_array(np.array(shapes[name], np.int64), name))
    if "a" in used:
        model.graph.initializer.append(numpy_helper.from_array(np.ones(6, np.float32), "a"))
    return model


def drawn(model: onnx.ModelProto) -> list[TrialInput]:
    inputs = []
    for item in model.graph.input:
        tensor = item.type.tensor_type
        dims = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
        inputs.append(TrialInput(item.name, dims, np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))))
    return inputs


@pytest.mark.parametrize("name", PROVED)
def test_what_is_proved_runs_so(name: str) -> None:
    body, options = PROVED[name]
    model = weights(parse(body, **options))
    proof = prove_rows(model)
    assert proof, proof.why
    assert proof.why == ""
    opened = session(model)
    names = [output.name for output in opened.get_outputs()]
    trial = try_rows(lambda feed: dict(zip(names, opened.run(names, dict(feed)), strict=True)), drawn(model))
    assert (trial.ran, trial.reason) == (True, "")


@pytest.mark.parametrize("name", NOT_PROVED)
def test_where_a_proof_ends(name: str) -> None:
    body, options, says = NOT_PROVED[name]
    proof = prove_rows(weights(parse(body, **options)))
    assert not proof
    assert says in proof.why


@pytest.mark.parametrize("lowering", ["thresholded", "where", "custom"])
def test_a_retrofit_is_proved_where_its_original_is(lowering: str) -> None:
    model = parse("y = Relu(x)")
    assert prove_rows(rewrite(model, 0.1, lowering=lowering)[0])


def test_a_kappa_that_the_graph_or_the_operator_draws_is_not_proved() -> None:
    model = parse("y = Relu(x)")
    for source in ("graph", "op"):
        retrofit, _ = rewrite(model, RandomKappa(0.1, 0.2, source=source))
        assert not prove_rows(retrofit)


def test_an_input_with_a_default_is_a_constant() -> None:
    model = parse("y = Mul(x, k)", inputs=f"{TABLE}, float[1] k")
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "k"))
    assert prove_rows(model)


def test_recurrent_layers_keep_rows_along_their_batch() -> None:
    body = "t = Transpose <perm = [1,0,2]> (x) h, l = GRU <hidden_size = 4> (t, w, r) s = Squeeze(l, z) y = Identity(s)"
    model = parse(body, inputs=TOKENS, output="float[N,4] y")
    for name, shape in (("w", (1, 12, 6)), ("r", (1, 12, 4))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "z"))
    assert prove_rows(model), prove_rows(model).why
    model.graph.node[1].input[0] = "x"
    assert "the rows do not lie along the axis of its batch" in prove_rows(model).why

"""Random graphs, legal ones, that treat the rows of a batch in every way: apart, together, and by luck apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.rows.build import ILLEGAL, ROWS, TYPES, Build, Draw, info

Move = Callable[[Build, str], Any]


def _unary(b: Build, x: str) -> Any:
    b.add(b.draw(st.sampled_from(["Relu", "Sigmoid", "Abs", "Tanh", "Identity", "Neg"])), x)


def _binary(b: Build, x: str) -> Any:
    shape = b.arrays[x].shape
    kind = b.draw(st.sampled_from(["value", "suffix", "ones", "same", "rows", "longer"]))
    other = b.pick()
    if kind != "value" or other is None:
        keep = b.draw(st.integers(0, len(shape)))
        full = {
            "suffix": shape[keep:],
            "ones": tuple(1 if axis < keep else size for axis, size in enumerate(shape)),
            "same": shape,
            "rows": (ROWS, *(1 for _ in shape[1:])),
        }.get(kind, (1, *shape))
        other = b.noise(*full)
    op = b.draw(st.sampled_from(["Add", "Mul", "Sub", "Max", "Min", "Where"]))
    if op == "Where":
        b.add("Where", b.add("Greater", x, other), x, other)
    else:
        b.add(op, *b.draw(st.permutations([x, other])))


def _mat_mul(b: Build, x: str) -> Any:
    shape = b.arrays[x].shape
    kind = b.draw(st.sampled_from(["right", "left", "self", "batched"]))
    if kind == "right":
        b.add("MatMul", x, b.noise(shape[-1], 3))
    elif kind == "left":
        b.add("MatMul", b.noise(3, shape[-2]), x)
    elif kind == "batched":
        b.add("MatMul", x, b.noise(*shape[:-2], shape[-1], 2))
    else:
        order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        b.add("MatMul", x, b.add("Transpose", x, perm=order))


def _gemm(b: Build, x: str) -> Any:
    y = b.pick(rank=2)
    if y is None:
        y = b.add("Flatten", x, axis=b.draw(st.sampled_from([0, 1, 1, 1, 2])))
    across = b.draw(st.sampled_from([0, 0, 0, 1]))
    bias = b.noise(*b.draw(st.sampled_from([(2,), (1, 2), (1,), (ROWS, 1), (ROWS, 2)])))
    b.add("Gemm", y, b.noise(b.arrays[y].shape[1 - across], 2), bias, transA=across)


def _reshape(b: Build, x: str) -> Any:
    shape = list(b.arrays[x].shape)
    total = int(np.prod(shape))
    options = [[-1, shape[-1]], [0, -1], [1, -1], [-1], [ROWS, -1], [-1, total // ROWS], [0, 0, -1], [2, -1], [-1, 2]]
    options += [[*shape[:-1], -1], [-1, *shape[1:]], [0, -1, 1], [-1, 3], [*shape[:1], 1, *shape[1:]]]
    b.add("Reshape", x, b.const(b.draw(st.sampled_from(options)), "int64"))


def _dynamic_reshape(b: Build, x: str) -> Any:
    axis = b.axis(x)
    other = b.pick()
    size = b.add("Gather", b.add("Shape", other or x), b.const(axis, "int64"), axis=0)
    if b.draw(st.booleans()):
        size = b.add("Mul", size, b.const(b.draw(st.sampled_from([1, 2, 3])), "int64"))
    size = b.axes("Unsqueeze", size, [0], 13)
    parts = [size, b.const([b.draw(st.sampled_from([-1, -1, 2, 3]))], "int64")]
    if b.draw(st.booleans()):
        parts.reverse()
    b.add("Reshape", x, b.add("Concat", *parts, axis=0))


def _layout(b: Build, x: str) -> Any:
    rank = b.arrays[x].ndim
    kind = b.draw(st.sampled_from(["transpose", "unsqueeze", "squeeze", "flatten", "squeeze all"]))
    if kind == "transpose":
        b.add("Transpose", x, perm=b.draw(st.permutations(range(rank))))
    elif kind == "flatten":
        b.add("Flatten", x, axis=b.draw(st.integers(-rank, rank)))
    elif kind == "unsqueeze":
        b.axes("Unsqueeze", x, [b.draw(st.integers(-rank - 1, rank))], 13)
    elif kind == "squeeze":
        b.axes("Squeeze", x, [b.draw(st.integers(-rank, max(rank - 1, -rank)))], 13)
    else:
        b.add("Squeeze", x)


def _pieces(b: Build, x: str) -> Any:
    axis, size = b.axis(x), b.arrays[x].shape
    kind = b.draw(st.sampled_from(["concat", "concat constant", "slice", "split", "pad", "all"]))
    if kind == "concat":
        b.add("Concat", x, b.pick() or x, axis=axis)
    elif kind == "concat constant":
        b.add("Concat", x, b.noise(*size), axis=axis)
    elif kind == "split":
        outputs = 2 if size[axis] % 2 == 0 else 3
        more = {"num_outputs": outputs} if b.opset >= 18 else {}
        b.add("Split", x, axis=axis, outputs=outputs, **more)
    elif kind == "pad":
        pads = [0] * (2 * len(size))
        pads[axis] = b.draw(st.integers(0, 1))
        pads[axis + len(size)] = 1
        b.add("Pad", x, b.const(pads, "int64"))
    else:
        start, end = (
            (0, 2**31) if kind == "all" else (b.draw(st.integers(0, 1)), b.draw(st.sampled_from([2, -1, 2**31])))
        )
        step = -1 if kind == "slice" and b.draw(st.integers(0, 4)) == 0 else 1
        bounds = [start] if step == 1 else [-1], [end] if step == 1 else [-(2**31)]
        b.add("Slice", x, *(b.const(value, "int64") for value in (*bounds, [axis], [step])))


def _lookup(b: Build, x: str) -> Any:
    kind = b.draw(st.sampled_from(["places", "scalar", "table", "one hot", "elements"]))
    if kind in ("places", "scalar"):
        b.add("Gather", x, b.const([0, 1] if kind == "places" else 0, "int64"), axis=b.axis(x))
        return
    small = b.add("Clip", x, b.const(0.0), b.const(1.0))
    indices = b.add("Cast", small, to=TensorProto.INT64)
    if kind == "table":
        b.add("Gather", b.noise(2, 3), indices, axis=b.draw(st.integers(0, 1)))
    elif kind == "one hot":
        rank = b.arrays[x].ndim
        axis = b.draw(st.integers(-rank - 1, rank))
        b.add("OneHot", indices, b.const(2, "int64"), b.const([0.0, 1.0]), axis=axis)
    else:
        b.add("GatherElements", x, indices, axis=b.axis(x))


def _along(b: Build, x: str) -> Any:
    axis = b.axis(x)
    op = b.draw(
        st.sampled_from(
            ["Softmax", "LogSoftmax", "CumSum", "ReduceMean", "ReduceSum", "ReduceMax", "ArgMax", "TopK", "Lp"]
        )
    )
    if op in ("Softmax", "LogSoftmax"):
        b.add(op, x, axis=axis - b.draw(st.sampled_from([0, b.arrays[x].ndim])))
    elif op == "CumSum":
        b.add(op, x, b.const(axis, "int64"))
    elif op == "ArgMax":
        index = b.add(op, x, axis=axis, keepdims=b.draw(st.integers(0, 1)))
        b.add("Cast", index, to=TensorProto.FLOAT)
    elif op == "TopK":
        b.add(op, x, b.const([1], "int64"), axis=axis, outputs=2)
    elif op == "Lp":
        b.add("LpNormalization", x, axis=axis)
    else:
        since = 13 if op == "ReduceSum" else 18
        axes = b.draw(st.sampled_from([[axis], [axis], [-1], list(range(1, b.arrays[x].ndim)) or [0], [0]]))
        b.axes(op, x, axes, since, keepdims=b.draw(st.integers(0, 1)))


def _normalise(b: Build, x: str) -> Any:
    shape = b.arrays[x].shape
    kind = b.draw(st.sampled_from(["batch", "instance", "layer", "variance"]))
    if kind == "batch":
        channels = [b.noise(shape[1]), b.noise(shape[1]), b.noise(shape[1]), b.const(np.ones(shape[1]))]
        b.add("BatchNormalization", x, *channels)
    elif kind == "instance":
        b.add("InstanceNormalization", x, b.noise(shape[1]), b.noise(shape[1]))
    elif kind == "layer" and b.opset >= 17:
        axis = b.axis(x)
        b.add("LayerNormalization", x, b.noise(*shape[axis:]), axis=axis)
    else:
        axes = b.draw(st.sampled_from([[0, 2, 3], [2, 3], [1, 2, 3]]))
        b.add("MeanVarianceNormalization", x, axes=axes)


def _image(b: Build, x: str) -> Any:
    y = b.pick(rank=4) or x
    shape = b.arrays[y].shape
    kind = b.draw(st.sampled_from(["conv", "max", "average", "global", "resize", "depth"]))
    if kind == "conv":
        b.add("Conv", y, b.noise(4, shape[1], 2, 2), pads=[0, 0, 1, 1], strides=[b.draw(st.integers(1, 2))] * 2)
    elif kind in ("max", "average"):
        op = "MaxPool" if kind == "max" else "AveragePool"
        ceil = b.draw(st.integers(0, 1))
        b.add(op, y, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=ceil)
    elif kind == "global":
        b.add("GlobalAveragePool", y)
    elif kind == "resize":
        scales = b.draw(st.sampled_from([[1, 1, 2, 2], [1, 1, 1.5, 1], [2, 1, 1, 1]]))
        b.add("Resize", y, "", b.const(np.array(scales)), mode="nearest")
    else:
        b.add("SpaceToDepth", y, blocksize=2)


def _quantise(b: Build, x: str) -> Any:
    if b.draw(st.integers(0, 3)) == 0:
        q = b.add("DynamicQuantizeLinear", x, outputs=3)
        first = int(q[1:])
        b.add("DequantizeLinear", q, f"v{first + 1}", f"v{first + 2}")
        return
    size = b.arrays[x].shape
    axis = b.axis(x)
    scales = b.const(0.1) if b.draw(st.booleans()) else b.const(np.linspace(0.1, 0.2, size[axis]))
    zero = np.zeros(b.arrays[scales].shape, np.uint8)
    more = {"axis": axis} if zero.ndim else {}
    b.weights[name := f"c{len(b.weights)}"] = zero
    b.arrays[name] = zero
    b.add("DequantizeLinear", b.add("QuantizeLinear", x, scales, name, **more), scales, name, **more)


def _spread(b: Build, x: str) -> Any:
    other = b.pick() or x
    kind = b.draw(st.sampled_from(["expand", "fill", "tile", "constant", "range"]))
    if kind == "expand":
        b.add("Expand", x, b.add("Shape", other))
    elif kind == "constant":
        shape = b.arrays[other].shape
        small = b.noise(*(1 if axis == 0 else size for axis, size in enumerate(shape)))
        b.add("Expand", small, b.add("Shape", other))
    elif kind == "fill":
        b.add("Add", x, b.add("ConstantOfShape", b.add("Shape", other)))
    elif kind == "tile":
        counts = [1] * b.arrays[x].ndim
        counts[b.axis(x)] = 2
        b.add("Tile", x, b.const(counts, "int64"))
    else:
        size = b.add("Gather", b.add("Shape", x), b.const(b.axis(x), "int64"))
        numbers = b.add("Range", b.const(0, "int64"), size, b.const(1, "int64"))
        b.add("Add", x, b.axes("Unsqueeze", b.add("Cast", numbers, to=TensorProto.FLOAT), [1], 13))


def _control(b: Build, x: str) -> Any:
    shape = b.arrays[x].shape
    kind = b.draw(st.sampled_from(["if data", "if size", "if constant", "loop", "loop size", "scan"]))
    if kind.startswith("if"):
        if kind == "if data":
            total = b.add("ReduceMax", x, keepdims=0)
            condition = b.add("Greater", total, b.const(1.0))
        elif kind == "if size":
            size = b.add("Gather", b.add("Shape", x), b.const(b.axis(x), "int64"))
            condition = b.add("Equal", size, b.const(ROWS, "int64"))
        else:
            condition = b.const(True, "bool")
        branches = [_branch("Relu", x, "p"), _branch(b.draw(st.sampled_from(["Neg", "Abs"])), x, "q")]
        b.add("If", condition, then_branch=branches[0], else_branch=branches[1])
    elif kind == "scan":
        axis = b.axis(x)
        size = [size for at, size in enumerate(shape) if at != axis]
        nodes = [helper.make_node("Add", ["s", "e"], ["t"]), helper.make_node("Relu", ["t"], ["u"])]
        body = helper.make_graph(
            nodes,
            "body",
            [info("s", "float32", size), info("e", "float32", size)],
            [info("t", "float32", size), info("u", "float32", size)],
        )
        b.add("Scan", b.const(np.ones(size)), x, outputs=2, body=body, num_scan_inputs=1, scan_input_axes=[axis])
    else:
        size = b.const(2, "int64")
        if kind == "loop size":
            size = b.add("Gather", b.add("Shape", x), b.const(b.axis(x), "int64"))
        nodes = [
            helper.make_node("Add", ["s", b.noise(*shape[1:])], ["t"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ]
        body = helper.make_graph(
            nodes,
            "body",
            [
                info("i", "int64", []),
                info("go", "bool", []),
                helper.make_tensor_value_info("s", TensorProto.FLOAT, None),
            ],
            [info("on", "bool", []), helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
        )
        b.add("Loop", size, b.const(True, "bool"), x, body=body)


def _branch(op: str, x: str, name: str) -> onnx.GraphProto:
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node(op, [x], [name])], name, [], [output])


def _einsum(b: Build, x: str) -> Any:
    rank = b.arrays[x].ndim
    letters = "abcd"[:rank]
    kind = b.draw(st.sampled_from(["weights", "self", "diagonal"]))
    if kind == "weights":
        at = b.axis(x)
        b.add("Einsum", x, b.noise(b.arrays[x].shape[at], 2), equation=f"{letters},{letters[at]}z->{letters}z")
    elif kind == "self":
        b.add("Einsum", x, x, equation=f"{letters},{letters}->{b.draw(st.permutations(letters))[0]}")
    else:
        b.add("Einsum", x, equation=f"{letters}->{''.join(b.draw(st.permutations(letters)))}")


MOVES: tuple[Move, ...] = (
    *(_unary, _binary, _binary, _mat_mul, _gemm, _reshape, _dynamic_reshape, _layout, _layout, _pieces, _lookup),
    *(_along, _normalise, _image, _quantise, _spread, _control, _einsum),
)


@st.composite
def graphs(draw: Draw) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Draw a model whose inputs have `ROWS` rows, and these inputs."""
    build = Build(draw(st.sampled_from([12, 13, 17, 20])), draw)
    shapes = draw(st.sampled_from([[(4, 6)], [(6,)], [(3, 4, 4)], [(3,), (3,)], [(3, 4), (4,)], [(2, 4, 4), ()]]))
    generator = np.random.default_rng(draw(st.integers(0, 3)))
    feeds = {}
    for index, shape in enumerate(shapes):
        feeds[f"x{index}"] = (generator.standard_normal((ROWS, *shape)) * 3).astype(np.float32)
        feeds[f"x{index}"][1] *= 4
    build.arrays.update(feeds)
    for _ in range(draw(st.integers(1, 6))):
        before = len(build.arrays), len(build.weights)
        value = build.pick()
        if value is None:
            break
        try:
            draw(st.sampled_from(MOVES))(build, value)
        except ILLEGAL:
            build.rollback(*before)
            continue
        build.commit()
    return _model(build, feeds), feeds


def _reaching(nodes: list[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """Return the nodes that an output needs; others might fail on a single row."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= {*node.input, *(name for item in node.attribute for inner in item.g.node for name in inner.input)}
    return kept[::-1]


def _model(build: Build, feeds: dict[str, np.ndarray]) -> onnx.ModelProto:
    made = [name for node in build.nodes for name in node.output if name in build.arrays]
    read = {name for node in build.nodes for name in node.input}
    ends = [name for name in made if name not in read and build.arrays[name].dtype.name in TYPES]
    if not ends:
        build.nodes.append(helper.make_node("Identity", ["x0"], ["same"]))
        build.arrays["same"], ends = feeds["x0"], ["same"]
    graph = helper.make_graph(
        _reaching(build.nodes, ends[-1]),
        "random",
        [info(name, "float32", ["N", *array.shape[1:]]) for name, array in feeds.items()],
        [helper.make_tensor_value_info(ends[-1], TYPES[build.arrays[ends[-1]].dtype.name], None)],
        [numpy_helper.from_array(array, name) for name, array in build.weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", build.opset)], ir_version=8)

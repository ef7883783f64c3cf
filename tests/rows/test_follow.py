"""The walk through a model: functions, loops, branches, nodes in any order, and models too large to follow."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.rows import prove_rows
from tests.rows.text import parse


def test_a_function_is_followed_with_its_own_opset_and_attributes() -> None:
    function = """<domain: "own", opset_import: ["" : 12]>
        norm <axis> (a) => (b) {{ b = Softmax <axis: int = @axis> ({arg}) }}"""
    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[N,3,4] x) => (float[N,3,4] y) { y = own.norm <axis = AXIS> (x) } """
    by_row = onnx.parser.parse_model(text.replace("AXIS", "1") + function.format(arg="a"))
    whole = onnx.parser.parse_model(text.replace("AXIS", "0") + function.format(arg="a"))
    assert prove_rows(by_row)
    assert "(Softmax): it works over the axis" in prove_rows(whole).why


def test_a_function_is_told_from_its_overloads() -> None:
    sets = [helper.make_opsetid("", 17)]
    apart = helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], sets, overload="1")
    nodes = [helper.make_node("ReduceMax", ["a"], ["m"], axes=[0]), helper.make_node("Add", ["a", "m"], ["b"])]
    mixed = helper.make_function("own", "f", ["a"], ["b"], nodes, sets, overload="2")
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 17, "own" : 1]> g (float[N,3] x) => (float[N,3] y) { y = own.f(x) }"""
    )
    for functions in ([apart, mixed], [mixed, apart]):
        del model.functions[:]
        model.functions.extend(functions)
        for overload, proved in (("1", True), ("2", False)):
            model.graph.node[0].overload = overload
            assert bool(prove_rows(model)) is proved


def test_functions_that_multiply_are_given_up_in_time() -> None:
    calls = " ".join(
        f"""<domain: "own", opset_import: ["" : 17, "own" : 1]> f{level} (a) => (c)
        {{ b = own.f{level + 1}(a) c = own.f{level + 1}(b) }}"""
        for level in range(40)
    )
    text = f"""<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[N,3] x) => (float[N,3] y) {{ y = own.f0(x) }}
        {calls} <domain: "own", opset_import: ["" : 17]> f40 (a) => (c) {{ c = Relu(a) }}"""
    proof = prove_rows(onnx.parser.parse_model(text))
    assert not proof
    assert "nodes" in proof.why


def test_a_function_that_calls_itself_is_given_up() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]> g (float[N,3] x) => (float[N,3] y) { y = own.f(x) }
        <domain: "own", opset_import: ["" : 17, "own" : 1]> f (a) => (c) { c = own.f(a) }"""
    assert "nested" in prove_rows(onnx.parser.parse_model(text)).why


def test_a_loop_and_a_scan_are_followed() -> None:
    def info(name: str, kind: int, *dims: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, list(dims))

    def looping(op: str, **attributes: object) -> onnx.ModelProto:
        body = helper.make_graph(
            [
                helper.make_node(op, ["s"], ["t"], name="inner", **attributes),
                helper.make_node("Identity", ["go"], ["on"]),
            ],
            "body",
            [info("i", TensorProto.INT64), info("go", TensorProto.BOOL), info("s", TensorProto.FLOAT, "N", 6)],
            [info("on", TensorProto.BOOL), info("t", TensorProto.FLOAT, "N", 6)],
        )
        graph = helper.make_graph(
            [helper.make_node("Loop", ["two", "yes", "x"], ["y"], body=body)],
            "g",
            [info("x", TensorProto.FLOAT, "N", 6)],
            [info("y", TensorProto.FLOAT, "N", 6)],
            [numpy_helper.from_array(np.array(2, np.int64), "two"), numpy_helper.from_array(np.array(True), "yes")],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    assert prove_rows(looping("Softmax", axis=1))
    assert prove_rows(looping("Softmax", axis=0)).node == "'inner' (Softmax)"

    def scanning(axis: int) -> onnx.ModelProto:
        body = helper.make_graph(
            [helper.make_node("Add", ["s", "e"], ["t"]), helper.make_node("Identity", ["t"], ["u"])],
            "body",
            [info("s", TensorProto.FLOAT, 1), info("e", TensorProto.FLOAT, "K")],
            [info("t", TensorProto.FLOAT, "K"), info("u", TensorProto.FLOAT, "K")],
        )
        nodes = [
            helper.make_node("ReduceSum", ["x", "last"], ["start"], keepdims=0),
            helper.make_node(
                "Scan",
                ["start", "x"],
                ["z", "y"],
                body=body,
                num_scan_inputs=1,
                scan_input_axes=[axis],
                scan_output_axes=[1],
            ),
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [info("x", TensorProto.FLOAT, "N", 6)],
            [info("y", TensorProto.FLOAT, "N", "K")],
            [numpy_helper.from_array(np.array([1], np.int64), "last")],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    assert prove_rows(scanning(1))
    assert "along the axis of the batch" in prove_rows(scanning(0)).why


def test_a_deep_graph_is_followed() -> None:
    count = 20_000
    nodes = [helper.make_node("Relu", [f"v{index}"], [f"v{index + 1}"]) for index in range(count)]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("v0", f"v{count}")]
    model = helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:]), ir_version=8)
    assert prove_rows(model)


def test_nodes_in_any_order_are_followed() -> None:
    model = parse("a = Relu(x) b = Neg(a) y = Abs(b)")
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    assert prove_rows(model)
    model.graph.node[2].input[0] = "b"  # a circle
    assert "nothing computes this value" in prove_rows(model).why


def test_a_branch_that_reads_a_later_node_waits_for_it() -> None:
    model = parse(
        "t = Constant <value = bool {1}> ()"
        " y = If (t) <then_branch = a () => (float[N,6] p) { p = Neg(h) },"
        " else_branch = b () => (float[N,6] q) { q = Abs(h) }> h = Relu(x)"
    )
    assert prove_rows(model)


def test_a_function_with_the_name_of_an_operator_is_not_taken_for_it() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[N,3] x) => (float[N,3] y) { y = com.microsoft.Gelu (x) }
        <domain: "com.microsoft", opset_import: ["" : 17]> Gelu (a) => (c) { c = Relu(a) }"""
    assert "has the name of a built-in operator" in prove_rows(onnx.parser.parse_model(text)).why


def test_two_versions_of_one_domain_are_not_chosen_from() -> None:
    model = parse("y = Softmax(x)")
    model.opset_import.add(domain="ai.onnx", version=12)
    assert "in two versions" in prove_rows(model).why

"""An omitted input that is not optional is refused before ONNX Runtime sees it; optional ones are not."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from jr_onnx.errors import ModelError
from jr_onnx.modelfile import load
from jr_onnx.modelfile.load import from_proto
from jr_onnx.rewriter import find_sites


def model(*nodes: onnx.NodeProto, opset: int = 17, functions: tuple[onnx.FunctionProto, ...] = ()) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    graph = helper.make_graph(list(nodes), "g", values[:1], values[1:])
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("pkg", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=list(functions))


MAX = helper.make_node("Max", ["x", "", "x"], ["y"], name="largest")


@pytest.mark.parametrize("operator", ["Max", "Min", "Sum", "Mean", "Einsum", "Concat"])
@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_an_omitted_input_of_any_number_is_refused(operator: str, domain: str, tmp_path: Path) -> None:
    found = model(helper.make_node(operator, ["x", ""], ["y"], name="n", domain=domain))
    with pytest.raises(ModelError, match=f"the node 'n' omits input 1 of {operator}, which takes any number"):
        from_proto(found)
    onnx.save(found, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="omits input 1"):
        load(tmp_path / "m.onnx")


def test_it_is_found_in_sub_graphs_and_functions() -> None:
    branch = helper.make_graph([MAX], "b", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    inner = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    body = helper.make_function("pkg", "f", ["x"], ["y"], [MAX], [helper.make_opsetid("", 17)])
    call = helper.make_node("f", ["x"], ["y"], domain="pkg")
    for found in (model(inner), model(call, functions=(body,))):
        with pytest.raises(ModelError, match="the node 'largest' omits input 1 of Max"):
            from_proto(found)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Clip", ["x", "", "x"], ["y"]),
        helper.make_node("Max", ["x", ""], ["y"], domain="com.example"),
        helper.make_node("Loop", ["", "", "x"], ["y"]),
        helper.make_node("NoSuchOperator", ["x", ""], ["y"]),
    ],
    ids=["optional", "another domain", "optional before any number", "unknown"],
)
def test_other_inputs_may_be_omitted(node: onnx.NodeProto) -> None:
    assert from_proto(model(node)).proto.graph.node[0] == node


def test_what_was_optional_at_an_older_opset_is_optional_there() -> None:
    scan = helper.make_node("Scan", ["", "x"], ["y"])
    assert from_proto(model(scan, opset=8))
    with pytest.raises(ModelError, match="omits input 0 of Scan"):
        from_proto(model(scan, opset=9))
    absurd = model(MAX)
    absurd.opset_import[0].version = 2**62
    assert from_proto(absurd)


def test_listing_the_sites_of_a_proto_does_not_need_it() -> None:
    """Nothing is run there, and every model can be looked at."""
    assert not find_sites(model(helper.make_node("Max", ["x", ""], ["y"]))).sites

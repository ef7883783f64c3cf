"""`jr-onnx inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from jr_onnx.rewrite import SiteTable, find_sites


def test_table_names_the_site_and_what_it_feeds(jr, model: Path) -> None:
    outcome = jr("inspect", model)
    assert outcome.exit_code == 0
    assert outcome.out.splitlines()[1].split() == ["act1", "relu", "Relu", "float32", "Gemm", "fc2"]
    assert outcome.err == "1 site, 0 cannot be rewritten, 0 are no sites\n"


def test_json_is_the_record(jr, model: Path) -> None:
    table = SiteTable.from_json(json.loads(jr("inspect", model, "--json").out))
    assert table == find_sites(model)


def test_exit_code_3_and_the_reason_without_a_site(jr, tmp_path: Path) -> None:
    path = tmp_path / "leaky.onnx"
    graph = helper.make_graph(
        [helper.make_node("LeakyRelu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    outcome = jr("inspect", path)
    assert outcome.exit_code == 3
    assert "LeakyRelu lets negative values through" in outcome.out


def test_a_retrofit_shows_its_kappa(jr, model: Path) -> None:
    jr("rewrite", model, "--kappa", "0.5")
    outcome = jr("inspect", model.with_name("net.jr.onnx"))
    assert outcome.exit_code == 0
    assert outcome.out.splitlines()[1].split() == ["act1", "relu", "float32", "0.5", "thresholded"]
    assert "1 site retrofitted from net.onnx" in outcome.err


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("op_type", ["LeakyRelu", "PRelu"])
def test_a_slope_of_zero_makes_a_relu(jr, tmp_path: Path, op_type: str, slope: float) -> None:
    leaky = op_type == "LeakyRelu"
    node = helper.make_node(op_type, ["x"] if leaky else ["x", "s"], ["y"], **({"alpha": slope} if leaky else {}))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [helper.make_tensor("s", TensorProto.FLOAT, [2], [slope, slope])],
    )
    path = tmp_path / "leaky.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    outcome = jr("inspect", path)
    assert outcome.exit_code == (0 if slope == 0 else 3)
    said = ["y", "slope", op_type, "float32"] if slope == 0 else ["lets", "negative", "values", "through"]
    assert " ".join(said) in " ".join(outcome.out.split())

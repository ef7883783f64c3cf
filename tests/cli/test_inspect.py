"""`jr-onnx inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from jr_onnx.rewriter import SiteTable, find_sites


def test_table_names_the_site_and_what_it_feeds(jr, model: Path) -> None:
    outcome = jr("inspect", model)
    assert outcome.exit_code == 0
    assert outcome.out.splitlines()[1].split() == ["act1", "relu", "Relu", "float32", "Gemm", "fc2"]
    assert outcome.err == "1 site, 0 cannot be rewritten, 0 are not ReLUs\n"


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


@pytest.mark.parametrize(
    ("words", "label", "how"),
    [
        (("--random", 0.1, 0.2), "U[0.1, 0.2]", "by jr_onnx.InferenceSession and jr-onnx serve, into the input 'jr_k"),
        (("--random", 0.1, 0.2, "--random-source", "op"), "U[0.1, 0.2]", "once for the whole network"),
        (("--random", 0.1, 0.2, "--random-per", "site"), "U[0.1, 0.2]", "for every site in every run, by the op lib"),
        (("--random", 0.1, 0.2, "--random-source", "graph"), "U[0.1, 0.2]", "which is predictable"),
        (("--kappa", 0.1, "--kappa-input", "k"), "input 'k', default 0.1", "jr-onnx restore undoes it"),
    ],
)
def test_a_kappa_that_varies_is_shown_as_what_it_is(jr, model: Path, words: tuple, label: str, how: str) -> None:
    rewriting = jr("rewrite", model, *words)
    outcome = jr("inspect", model.with_name("net.jr.onnx"))
    assert outcome.exit_code == 0
    for table in (rewriting.out, outcome.out):
        assert label in table
        assert "0.15" not in table.splitlines()[1]
    assert how in outcome.err
    assert "no site" not in outcome.out
    shown = json.loads(jr("inspect", model.with_name("net.jr.onnx"), "--json").out)["retrofit"]
    assert shown["sites"][0]["kappa_label"] == label
    assert shown["sites"][0]["kappa_range"] == ([0.1, 0.2] if label.startswith("U") else None)


def test_an_optimised_file_is_not_said_to_be_restorable(jr, model: Path) -> None:
    jr("rewrite", model, "--kappa", 0.5)
    fast = model.with_name("fast.onnx")
    assert jr("optimize", model.with_name("net.jr.onnx"), "-o", fast).exit_code == 0
    outcome = jr("inspect", fast)
    assert outcome.exit_code == 0
    assert "nothing can be restored from it" in outcome.err
    assert "undoes it" not in outcome.err
    assert jr("restore", fast).exit_code == 2


def test_the_sites_left_alone_stand_beside_the_retrofitted_ones(jr, tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", [a], [b], name=n) for a, b, n in (("x", "h", "one"), ("h", "y", "two"))]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "net.onnx")
    jr("rewrite", tmp_path / "net.onnx", "--kappa", 0.5, "--exclude", "one")
    outcome = jr("inspect", tmp_path / "net.jr.onnx")
    assert "1 site retrofitted" in outcome.err
    assert "not retrofitted: 1 site, 0 cannot" in outcome.err


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

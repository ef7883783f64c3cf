"""A model and kappa opened as a pair: which of the two is made, what is written, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.errors import InputError, ModelError, NoSiteError, RefusalError
from jr_onnx.kappa import KappaPlan
from jr_onnx.rewriter import rewrite
from jr_onnx.rewriter.pair import in_every_lowering, open_pair, read_model

KAPPA = 0.25


def network(*, activation: str = "Relu", dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    weight = numpy_helper.from_array(np.full((4, 300), 0.5, dtype=kind), "weight")
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["z"]),
        helper.make_node(activation, ["z"], ["y"], name="act"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", dtype, ["N", 4])],
        [helper.make_tensor_value_info("y", dtype, ["N", 300])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(network().SerializeToString(deterministic=True))
    return path


@pytest.fixture
def retrofit(original: Path) -> Path:
    rewrite(original, KAPPA, output=original.with_name("net.jr.onnx"))
    return original.with_name("net.jr.onnx")


def test_an_original_without_kappa_is_alone(original: Path, tmp_path: Path) -> None:
    pair = open_pair(original)
    assert pair.original is pair.given
    assert pair.retrofit is None
    assert pair.record is None
    assert not pair.is_retrofit
    assert pair.save(tmp_path) == (original, None)
    with pytest.raises(InputError, match=r"^net.onnx is not a retrofit, and no kappa was given"):
        pair.plan(None)


def test_an_original_with_kappa_is_rewritten(original: Path, retrofit: Path, tmp_path: Path) -> None:
    pair = open_pair(original, KAPPA)
    folder = tmp_path / "made"
    folder.mkdir()
    before, after = pair.save(folder)
    assert before == original
    assert after == folder / "retrofit.jr.onnx"
    assert after.read_bytes() == retrofit.read_bytes()
    assert pair.record is not None
    assert [site.kappa for site in pair.record.sites] == [KAPPA]
    assert pair.plan(None) == KappaPlan.of(KAPPA)
    assert pair.plan(0.5) == KappaPlan.of(0.5)


def test_the_original_of_a_retrofit_comes_back(original: Path, retrofit: Path, tmp_path: Path) -> None:
    pair = open_pair(retrofit)
    folder = tmp_path / "made"
    folder.mkdir()
    before, after = pair.save(folder)
    assert pair.is_retrofit
    assert after == retrofit
    assert before == folder / "original.onnx"
    assert before.read_bytes() == original.read_bytes()
    assert pair.original.sha256 == read_model(original).sha256


def test_external_data_goes_with_what_is_made(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    onnx.save(network(), source / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    made = tmp_path / "made"
    made.mkdir()
    _, after = open_pair(source / "net.onnx", KAPPA).save(made)
    assert after is not None
    assert (made / "net.data").read_bytes() == (source / "net.data").read_bytes()
    back = tmp_path / "back"
    back.mkdir()
    before, _ = open_pair(after).save(back)
    assert before.read_bytes() == (source / "net.onnx").read_bytes()
    (made / "net.data").unlink()
    with pytest.raises(ModelError, match=r"net\.data"):
        open_pair(after)


def test_a_model_in_memory_has_no_place_to_be_saved(tmp_path: Path) -> None:
    model = network()
    pair = open_pair(model, KAPPA)
    assert pair.retrofit is not None
    assert model == network()
    with pytest.raises(InputError, match="the model is in memory"):
        pair.save(tmp_path)


def test_a_retrofit_has_its_own_kappa(retrofit: Path) -> None:
    with pytest.raises(InputError, match=r"^net.jr.onnx is a retrofit and has its own kappa"):
        open_pair(retrofit, KAPPA)


def test_a_retrofit_that_was_edited_is_refused_or_reported(retrofit: Path) -> None:
    model = onnx.load(retrofit)
    jump = next(node for node in model.graph.node if node.op_type == "ThresholdedRelu")
    jump.attribute[0].f = 2 * KAPPA
    with pytest.raises(RefusalError, match="does not compute what its provenance says"):
        open_pair(model)
    pair = open_pair(model, report_mismatches=True)
    assert [item.site for item in pair.mismatches] == ["act"]
    assert pair.original.proto.graph == network().graph


def test_a_model_without_sites_is_no_pair_with_kappa() -> None:
    assert open_pair(network(activation="Tanh")).retrofit is None
    with pytest.raises(NoSiteError):
        open_pair(network(activation="Tanh"), KAPPA)


def test_every_lowering_is_made_or_refused_with_the_reason() -> None:
    made, refused = in_every_lowering(read_model(network()), KappaPlan.of(KAPPA))
    assert list(made) == ["where", "thresholded", "custom"]
    assert not refused
    assert {site.lowering for site in made["where"].record.sites} == {"where"}
    # ONNX Runtime has no ThresholdedRelu for double.
    made, refused = in_every_lowering(read_model(network(dtype=TensorProto.DOUBLE)), KappaPlan.of(KAPPA))
    assert "where" in made
    assert set(made) | set(refused) == {"where", "thresholded", "custom"}

"""What can be evaluated: originals, retrofits, kappa maps, random kappas, odd inputs, models beyond torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from jr_onnx.attack.suite.setup import prepare
from jr_onnx.data import Preprocessing
from jr_onnx.errors import InputError
from jr_onnx.evaluation.summary import Evaluation
from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.rewrite import find_sites, rewrite
from tests.attack.suite import small


@pytest.fixture(autouse=True)
def _handful() -> Iterator[None]:
    with small.patched(small.handful):
        yield


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def counts(evaluation: Evaluation) -> list[list[int]]:
    return [[model.clean.count, *(item.robust.count for item in model.entries)] for model in evaluation.models]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    with small.patched(small.handful):
        return counts(small.evaluated(small.request(tmp_path_factory.mktemp("plain")))[1])


def test_a_retrofit_is_evaluated_against_its_restored_original(tmp_path: Path, plain: list[list[int]]) -> None:
    small.request(tmp_path)
    retrofit = tmp_path / "small.jr.onnx"
    rewrite(tmp_path / "small.onnx", 0.3, output=retrofit)
    wanted = small.request(tmp_path, model=retrofit, plan=None)
    assert counts(small.evaluated(wanted)[1]) == plain
    assert (wanted.out / "original.onnx").read_bytes() == (tmp_path / "small.onnx").read_bytes()


def test_kappa_must_be_given_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"small\.onnx is no retrofit, so a kappa is needed"):
        prepare(small.request(tmp_path, plan=None))
    rewrite(tmp_path / "small.onnx", 0.3, output=tmp_path / "small.jr.onnx")
    with pytest.raises(InputError, match=r"is a retrofit, so its kappa is given"):
        prepare(small.request(tmp_path, model=tmp_path / "small.jr.onnx"))


def test_a_kappa_map_reaches_its_site(tmp_path: Path, plain: list[list[int]]) -> None:
    small.request(tmp_path)
    (site,) = find_sites(tmp_path / "small.onnx").sites
    prepared, evaluation = small.evaluated(small.request(tmp_path, plan=KappaPlan(by_site=((site.id, 0.3),))))
    assert prepared.record.kappas == {site.id: pytest.approx(0.3)}
    assert counts(evaluation) == plain


def test_a_random_kappa_is_averaged_and_decided_by_repetition(tmp_path: Path) -> None:
    plan = KappaPlan.of(RandomKappa(0.1, 0.5))
    with small.patched(small.short):
        prepared, evaluation = small.evaluated(small.request(tmp_path, plan=plan, data=small.images(6)))
    entries = {entry.name: entry.attack for entry in prepared.work.entries}
    assert entries["apgd-ce/linf"].draws == 20
    assert entries["apgd-ce/linf/one draw"].draws == 1
    flags = [{flag.name: flag for flag in model.verdict.flags} for model in evaluation.models]
    assert not flags[0]["single-draw"].checked, "the original does not draw"
    assert flags[1]["single-draw"].checked


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("flat", ("N", 16)), ("plane", ("N", 4, 4)), ("static batch", (7, 1, 4, 4)), ("image", ("N", 1, 4, 4))],
)
def test_inputs_of_every_shape_give_the_same_figures(
    tmp_path: Path, plain: list[list[int]], kind: str, shape: tuple[int | str, ...]
) -> None:
    model = saved(tmp_path, small.network(shape=shape, outputs=(shape[0], small.CLASSES)))
    _, evaluation = small.evaluated(small.request(tmp_path, model=model))
    assert counts(evaluation) == plain


def test_channels_last_and_a_final_softmax(tmp_path: Path) -> None:
    model = saved(
        tmp_path,
        small.network(
            before=(helper.make_node("Transpose", ["x"], ["image"], perm=[0, 3, 1, 2]),),
            after=(helper.make_node("Softmax", ["z"], ["y"], axis=1),),
            shape=("N", 4, 4, 1),
        ),
    )
    prepared, evaluation = small.evaluated(
        small.request(tmp_path, model=model, preprocessing=Preprocessing(layout="NHWC"))
    )
    original = evaluation.models[0]
    assert original.clean.count == 17
    assert original.entries[0].robust.count < 17
    assert any("softmax" in note.lower() for note in prepared.notes)


def test_a_model_that_torch_cannot_evaluate_leaves_the_black_box(tmp_path: Path) -> None:
    odd = (
        helper.make_node("Squeeze", ["x", "axes"], ["square"]),
        helper.make_node("Det", ["square"], ["determinant"]),
        helper.make_node("Unsqueeze", ["determinant", "axes"], ["column"]),
        helper.make_node("Mul", ["column", "nil"], ["zero"]),
        helper.make_node("Add", ["z", "zero"], ["same"]),
        helper.make_node("ReverseSequence", ["same", "one"], ["y"], batch_axis=1, time_axis=0),
    )
    model = small.network(after=odd, shape=(1, 1, 4, 4), outputs=(1, small.CLASSES))
    model.graph.initializer.append(helper.make_tensor("axes", TensorProto.INT64, [1], [1]))
    model.graph.initializer.append(helper.make_tensor("nil", TensorProto.FLOAT, [1], [0.0]))
    model.graph.initializer.append(helper.make_tensor("one", TensorProto.INT64, [3], [1, 1, 1]))
    prepared, evaluation = small.evaluated(small.request(tmp_path, model=saved(tmp_path, model)))
    (note,) = [note for note in prepared.notes if "black-box" in note]
    assert "Det" in note
    assert "ReverseSequence" in note
    assert {item.view for item in evaluation.models[1].entries} == {"black_box"}
    assert evaluation.models[0].clean.count == 17


def test_black_box_on_request(tmp_path: Path) -> None:
    with small.patched(small.short):
        prepared = prepare(small.request(tmp_path, black_box=True))
        assert [entry.name for entry in prepared.work.entries] == ["square/linf"]
        with pytest.raises(InputError, match="no attack that works without gradients in l1"):
            prepare(small.request(tmp_path / "l1", black_box=True, norm="l1"))


def test_the_number_of_classes_is_the_networks(tmp_path: Path) -> None:
    """A data set may name fewer classes than the network tells apart."""
    data = small.images(6)
    two = small.ImageData.from_arrays(data.images, np.minimum(data.labels, 1))
    assert len(two.class_names) == 2
    with small.patched(small.short):
        names = [entry.name for entry in prepare(small.request(tmp_path, data=two)).work.entries]
    assert "apgd-dlr/linf" in names

"""What can be evaluated: originals, retrofits, kappa maps, random kappas, odd inputs, models beyond torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx import modelfile
from jr_onnx.attack.suite.setup import prepare
from jr_onnx.data import Preprocessing, load
from jr_onnx.errors import DataError, InputError, ModelError
from jr_onnx.evaluation.summary import Evaluation
from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.modelfile import ModelFile
from jr_onnx.rewriter import find_sites, rewrite
from tests.attack.suite import small


@pytest.fixture(autouse=True)
def _handful() -> Iterator[None]:
    with small.patched(small.handful):
        yield


def saved(folder: Path, model: onnx.ModelProto, *, checked: bool = True) -> Path:
    path = folder / "model.onnx"
    if checked:
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


def test_a_retrofit_has_its_kappa(tmp_path: Path) -> None:
    small.request(tmp_path)
    rewrite(tmp_path / "small.onnx", 0.3, output=tmp_path / "small.jr.onnx")
    with pytest.raises(InputError, match="is a retrofit and has its own kappa"):
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
    [
        ("flat", ("N", 16)),
        ("plane", ("N", 4, 4)),
        ("static batch", (7, 1, 4, 4)),
        ("image", ("N", 1, 4, 4)),
        ("column", ("N", 16, 1)),
        ("row", ("N", 1, 16)),
        ("static column", (7, 16, 1, 1)),
        ("channels last", ("N", 4, 4, 1)),
        ("free vector", ("N", "features")),
        ("free", ("unk__0", "unk__1", "unk__2", "unk__3")),
        ("no rank", None),
    ],
)
def test_inputs_of_every_shape_give_the_same_figures(
    tmp_path: Path, plain: list[list[int]], kind: str, shape: tuple[int | str, ...] | None
) -> None:
    network = small.network(shape=shape, outputs=((shape or "N")[0], small.CLASSES))
    model = saved(tmp_path, network, checked=shape is not None)  # onnx insists on a rank, ONNX Runtime does not
    _, evaluation = small.evaluated(small.request(tmp_path, model=model))
    assert counts(evaluation) == plain


def test_a_reshape_that_takes_what_it_gets_is_tried_with_the_sizes_of_the_data(
    tmp_path: Path, plain: list[list[int]]
) -> None:
    """With other sizes the rows would fold into more or fewer samples than there are."""
    model = small.network(before=(helper.make_node("Reshape", ["x", "rows"], ["image"]),), shape=("a", "b", "c", "d"))
    model.graph.initializer.append(helper.make_tensor("rows", TensorProto.INT64, [2], [-1, 16]))
    prepared, evaluation = small.evaluated(small.request(tmp_path, model=saved(tmp_path, model)))
    assert counts(evaluation) == plain
    assert all(item.target is not None for item in prepared.work.contenders)


@pytest.mark.parametrize("shape", [("N", 16), ("N", "features", 1), ("N", 1, 4, 4)])
def test_a_table_is_attacked_as_it_is(tmp_path: Path, plain: list[list[int]], shape: tuple[int | str, ...]) -> None:
    """The values of a file of features reach the model unchanged, and the budget is a share of their range."""
    pixels, features = small.images(), tmp_path / "table.npz"
    spread = pixels.images.reshape(len(pixels), -1) * 6 - 2
    hot = np.eye(3)[pixels.labels]
    np.savez(features, x_train=spread, y_train=hot, x_test=spread.astype(np.float32), y_test=hot)
    data = load(f"npz:{features}")
    undo = (
        helper.make_node("Add", ["x", "two"], ["moved"]),
        helper.make_node("Div", ["moved", "six"], ["image"]),
    )
    model = small.network(before=undo, shape=shape)
    for name, value in (("two", 2.0), ("six", 6.0)):
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [1], [value]))
    wanted = small.request(
        tmp_path, model=saved(tmp_path, model), data=data, preprocessing=data.restored(Preprocessing())
    )
    _, evaluation = small.evaluated(wanted)
    assert [item.clean.count for item in evaluation.models] == [row[0] for row in plain]
    for found, expected in zip(counts(evaluation), plain, strict=True):
        # Gradient attacks do not mind the shape; the range is a little less than 6, so that eps is a little smaller.
        assert max(abs(a - b) for a, b in zip(found[1:-1], expected[1:-1], strict=True)) <= 1


def test_blue_first_is_attacked_with_gradients_of_the_right_colour(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    weight = generator.standard_normal((48, small.CLASSES)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w"], ["z"]),
            helper.make_node("Relu", ["z"], ["a"], name="act"),
            helper.make_node("Identity", ["a"], ["y"]),
        ],
        "bgr",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 4, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", small.CLASSES])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    pixels = generator.random((15, 3, 4, 4)).astype(np.float32)
    seen = pixels[:, ::-1].transpose(0, 2, 3, 1).reshape(15, -1) * 255 @ weight
    data = small.ImageData.from_arrays(pixels, np.maximum(seen, 0).argmax(1))
    chosen = Preprocessing.parse("range=0,255;order=BGR;layout=NHWC")
    wanted = small.request(tmp_path, model=saved(tmp_path, model), data=data, preprocessing=chosen)
    _, evaluation = small.evaluated(wanted)
    assert evaluation.models[0].clean.count == 15
    assert evaluation.models[0].entries[0].robust.count < 15


def with_further_inputs() -> onnx.ModelProto:
    """The small network times `keep`, where `training` is false; they have a batch axis, and none."""
    chosen = (
        helper.make_node("Mul", ["x", "keep"], ["kept"]),
        helper.make_node("Neg", ["x"], ["wrong"]),
        helper.make_node("Where", ["training", "wrong", "kept"], ["image"]),
    )
    model = small.network(before=chosen)
    model.graph.input.append(helper.make_tensor_value_info("keep", TensorProto.FLOAT, ["N", 1, 1, 1]))
    model.graph.input.insert(0, helper.make_tensor_value_info("training", TensorProto.BOOL, [1]))
    return model


@pytest.mark.parametrize("black_box", [False, True])
def test_further_inputs_are_filled(tmp_path: Path, plain: list[list[int]], black_box: bool) -> None:
    model = saved(tmp_path, with_further_inputs())
    wanted = small.request(tmp_path, model=model, values={"keep": 1.0, "training": 0.0}, black_box=black_box)
    _, evaluation = small.evaluated(wanted)
    assert [item.clean.count for item in evaluation.models] == [row[0] for row in plain]
    if not black_box:
        assert counts(evaluation) == plain
    other = {"values": {"keep": 1.0, "training": 1.0}, "black_box": black_box}
    half = small.request(tmp_path / "half", model=model, force=True, **other)  # its answers are near chance
    assert small.evaluated(half)[1].models[0].clean.count != plain[0][0]


def test_a_retrofit_with_further_inputs_is_evaluated_too(tmp_path: Path, plain: list[list[int]]) -> None:
    model, retrofit = saved(tmp_path, with_further_inputs()), tmp_path / "model.jr.onnx"
    rewrite(model, 0.3, output=retrofit)
    wanted = small.request(tmp_path, model=retrofit, plan=None, values={"keep": 1.0, "training": 0.0})
    assert counts(small.evaluated(wanted)[1]) == plain


@pytest.mark.parametrize("black_box", [False, True])
def test_a_further_input_without_a_value_is_named(tmp_path: Path, black_box: bool) -> None:
    wanted = small.request(
        tmp_path, model=saved(tmp_path, with_further_inputs()), values={"keep": 1.0}, black_box=black_box
    )
    with pytest.raises(InputError, match=r"needs 'training' besides the images \('x'\)\. .*--value training=NUMBER"):
        prepare(wanted)


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


def typed(element: int, shape: tuple[int | str, ...] = ("N", 1, small.SIDE, small.SIDE)) -> onnx.ModelProto:
    """The small network behind an input of another type."""
    model = small.network(before=(helper.make_node("Cast", ["x"], ["image"], to=TensorProto.FLOAT),), shape=shape)
    model.graph.input[0].type.tensor_type.elem_type = element
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (typed(TensorProto.INT64), r"the input 'x' takes int64, expected floats or bytes for images"),
        (typed(TensorProto.UINT8), r"the input 'x' takes bytes, the preprocessing gives fractions"),
        (
            typed(TensorProto.FLOAT, ("N", 1, "side", 5)),
            r"has the shape \(N, 1, side, 5\), which images of shape \(1, 4, 4\) in the layout NCHW do not fit",
        ),
    ],
    ids=["int64", "uint8", "sizes"],
)
def test_images_that_do_not_fit_are_refused_before_anything_is_compared(
    tmp_path: Path, model: onnx.ModelProto, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        prepare(small.request(tmp_path, model=saved(tmp_path, model)))


def test_bytes_are_attacked_as_bytes(tmp_path: Path) -> None:
    scale = numpy_helper.from_array(np.float32(1 / 255), "scale")
    model = typed(TensorProto.UINT8)
    model.graph.initializer.append(scale)
    model.graph.node[0].output[0] = "raw"
    model.graph.node.insert(1, helper.make_node("Mul", ["raw", "scale"], ["image"]))
    wanted = small.request(
        tmp_path, model=saved(tmp_path, model), preprocessing=Preprocessing(range=(0.0, 255.0)), data=small.images(8)
    )
    _, evaluation = small.evaluated(wanted)
    assert evaluation.models[0].clean.count == 6  # every fourth label is wrong on purpose


def test_one_score_does_not_tell_three_classes_apart(tmp_path: Path) -> None:
    pick = helper.make_node("Slice", ["z", "start", "end", "axis"], ["y"])
    model = small.network(after=(pick,), outputs=("N", 1))
    for name, value in (("start", 0), ("end", 1), ("axis", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
    with pytest.raises(InputError, match="the largest label is 2, and 'y' has one score, which tells two classes"):
        prepare(small.request(tmp_path, model=saved(tmp_path, model)))


def test_a_file_that_onnx_runtime_cannot_open_is_named(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((1, 1, 3, 3)), "w")
    model = small.network()
    model.graph.initializer.append(weight)
    model.graph.node.insert(0, helper.make_node("Conv", ["x64"], ["c"]))
    del model.graph.node[0].input[:]
    model.graph.node[0].input.extend(["x64", "w"])
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["x64"], to=TensorProto.DOUBLE))
    model.graph.node.append(helper.make_node("Flatten", ["c"], ["other"]))
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.DOUBLE, ["N", 4]))
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot open model\.onnx on the CPU.*NOT_IMPLEMENTED"):
        prepare(small.request(tmp_path, model=saved(tmp_path, model)))


@pytest.mark.parametrize("black_box", [False, True])
def test_scores_in_maps_are_refused_with_the_way_out(tmp_path: Path, black_box: bool) -> None:
    after = (
        helper.make_node("ArgMax", ["z"], ["label"], axis=1, keepdims=0),
        helper.make_node("Softmax", ["z"], ["p"]),
        helper.make_node("ZipMap", ["p"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),
    )
    model = small.network(after=after)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    maps = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]))
    model.graph.output.append(helper.make_value_info("y", helper.make_sequence_type_proto(maps)))
    wanted = small.request(tmp_path, model=saved(tmp_path, model), black_box=black_box)
    with pytest.raises(ModelError, match=r"'y' is a sequence of maps .*\(ZipMap\).* options=.'zipmap': False"):
        prepare(wanted)


def test_a_float64_network_is_attacked(tmp_path: Path) -> None:
    model = small.network()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    with small.patched(small.short):
        _, evaluation = small.evaluated(small.request(tmp_path, model=saved(tmp_path, model), data=small.images(8)))
    assert evaluation.models[0].clean.count == 6


def test_each_file_is_parsed_a_few_times_only(tmp_path: Path) -> None:
    """By the pair or for its digest, for torch and its comparison, and for the session that torch is compared with."""
    parsed: Counter[str] = Counter()
    parse = modelfile.load.__globals__["parse"]

    def counted(view: Any, path: Path, shown: Path) -> ModelFile:
        parsed[path.name] += 1
        found: ModelFile = parse(view, path, shown)
        return found

    wanted = small.request(tmp_path)
    with mock.patch.dict(modelfile.load.__globals__, parse=counted):
        prepare(wanted)
    assert parsed == {"small.onnx": 3, "retrofit.jr.onnx": 3}

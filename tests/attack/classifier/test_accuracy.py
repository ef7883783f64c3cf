"""A model that classifies nothing is not attacked, and the preprocessing that it may want is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.attack.classifier.accuracy import Clean, classified, require_clean
from jr_onnx.attack.classifier.opener import ClassifierOpener
from jr_onnx.attack.classifier.served import ServedClassifier
from jr_onnx.data import ImageData, Preprocessing
from jr_onnx.detect import DetectRequest, detect
from jr_onnx.errors import DataError
from jr_onnx.report import Report, html
from jr_onnx.tune import Objective, TuneRequest, tune_kappa
from tests.attack.suite import small


@pytest.fixture(autouse=True)
def _handful() -> Iterator[None]:
    with small.patched(small.handful):
        yield


def lopsided(scale: float, offset: float) -> onnx.ModelProto:
    """The small network that wants its pixels as (x - offset) / scale, and knows but one class of others."""
    model = small.network(
        before=(
            helper.make_node("Mul", ["x", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "offset"], ["image"]),
        )
    )
    for name, value in (("scale", scale), ("offset", offset)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=np.float32), name))
    return model


def opened(
    folder: Path, model: onnx.ModelProto, shape: tuple[int, int, int] = (1, 4, 4), **changes: Any
) -> ServedClassifier:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return ServedClassifier(path, Preprocessing(**changes), shape)


@pytest.mark.parametrize(
    ("scale", "offset", "words"),
    [
        (1 / 255, 0.0, "--preprocess 'range=0,255' classifies 7"),
        (0.5, 0.5, "--preprocess 'range=-1,1' classifies 7"),
        (0.3081, 0.1307, "--preprocess 'mnist' classifies 7"),
    ],
)
def test_the_usual_preprocessing_that_is_better_is_named(
    tmp_path: Path, scale: float, offset: float, words: str
) -> None:
    data = small.images(120)
    served = opened(tmp_path, lopsided(scale, offset))
    found = classified(served, data)
    if not found.is_poor:
        pytest.fail(f"the trial needs a model that fails without its preprocessing, found {found.accuracy}")
    said = require_clean(served, data, Preprocessing(), force=True)
    assert words in said
    assert said.startswith("warning: model.onnx classifies ")


def colours(order: str, layout: str) -> tuple[onnx.ModelProto, ImageData]:
    """A linear model on the mean colour of pictures whose class is the brightest channel."""
    generator = np.random.default_rng(0)
    pixels = generator.random((60, 3, 4, 4)).astype(np.float32) * 0.5
    labels = generator.integers(0, 3, 60)
    pixels[np.arange(60), labels] += 0.4
    weight = np.eye(3, dtype=np.float32)
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    size = 4 if layout == "NCHW" else 3
    shape = ["N", "c", "h", "w_"] if order == "BGR" else ["N", "a", "b", size if layout == "NHWC" else "d"]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(weight[::-1].copy() if order == "BGR" else weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, ImageData.from_arrays(pixels, labels)


def test_the_order_of_the_channels_is_tried(tmp_path: Path) -> None:
    model, data = colours("BGR", "NCHW")
    served = opened(tmp_path, model, (3, 4, 4))
    with pytest.raises(DataError, match=r"classifies \d+% of 60 clean images correctly.*'order=BGR' classifies 100%"):
        require_clean(served, data, Preprocessing(), force=False)
    assert (
        require_clean(served.preprocessed(Preprocessing(order="BGR")), data, Preprocessing(order="BGR"), force=False)
        == ""
    )


def shifted(by: int) -> ImageData:
    """Images of the small network with all labels moved on by some classes, those of nobody beyond them."""
    data = small.images(60)
    first, bias, second = small.weights()
    answers = (np.maximum(data.images.reshape(60, -1) @ first + bias, 0) @ second).argmax(1)
    return ImageData.from_arrays(data.images, (answers + by) % small.CLASSES, class_names=("a", "b", "c"))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("command", ["attack", "tune", "detect"])
def test_every_command_stops_unless_it_is_forced(tmp_path: Path, command: str, force: bool) -> None:
    path, data = tmp_path / "small.onnx", shifted(1)
    onnx.save(small.network(), path)

    def run() -> tuple[str, ...]:
        if command == "attack":
            found = small.evaluated(small.request(tmp_path, data=data, force=force))[1]
            return found.run.notes
        if command == "tune":
            objective = Objective(eps=0.1, steps=2)
            return tune_kappa(
                TuneRequest(
                    model=path, data=data, objective=objective, attacked=4, grid=(0.2,), device="cpu", force=force
                )
            ).notes
        wanted: dict[str, Any] = {"eps": 0.4, "steps": 3, "reference": 10, "neighbours": 5, "device": "cpu"}
        return detect(DetectRequest(model=path, data=data, force=force, **wanted)).notes

    if force and command != "detect":  # a detector needs images that are classified correctly
        assert any(note.startswith("warning: small.onnx classifies 0% of 60 clean images") for note in run())
        return
    with pytest.raises(DataError if not force else Exception) as caught:
        run()
    if not force:
        assert "--allow-poor-accuracy" in str(caught.value)
        assert not (tmp_path / "out" / "units").exists()


def test_a_forced_run_is_marked_on_the_page(tmp_path: Path) -> None:
    from jr_onnx.evaluation.store import merged

    _, found = small.evaluated(small.request(tmp_path, data=shifted(1), force=True))
    page = html.page(Report(found, merged([tmp_path / "out"])[1]))
    assert "Warning: small.onnx classifies 0% of 60 clean images correctly" in page


def test_nan_scores_are_told_in_one_line(tmp_path: Path) -> None:
    model = small.network(
        after=(helper.make_node("Sqrt", ["minus"], ["nan"]), helper.make_node("Add", ["z", "nan"], ["y"]))
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(-1.0, dtype=np.float32), "minus"))
    path = tmp_path / "nan.onnx"
    onnx.save(model, path)
    with pytest.raises(DataError, match="gives NaN or infinite scores for 23 of 23 clean images"):
        ClassifierOpener(data=small.images()).open(path)


def test_what_is_near_chance() -> None:
    def clean(right: int, count: int, chance: float) -> Clean:
        return Clean(np.arange(count) < right, chance, 0)

    assert clean(20, 200, 0.1).is_chance
    assert clean(30, 200, 0.1).is_chance, "surely not chance, and still good for nothing"
    assert not clean(80, 200, 0.1).is_chance
    assert clean(80, 200, 0.1).is_poor
    assert clean(110, 200, 0.5).is_chance
    assert not clean(160, 200, 0.5).is_poor
    assert not clean(1, 4, 0.1).is_chance, "four images tell nothing"
    assert not clean(9, 10, 0.1).is_poor


def test_swapped_classes_are_named(tmp_path: Path) -> None:
    data = small.images(120)
    kept = data.take(np.flatnonzero(data.labels != 1))
    turned = ImageData.from_arrays(kept.images, np.where(kept.labels == 2, 0, 1), class_names=("a", "b"))
    swapped = small.network(after=(helper.make_node("Gather", ["z", "pair"], ["y"], axis=1),), outputs=("N", 2))
    swapped.graph.initializer.append(numpy_helper.from_array(np.array([0, 2]), "pair"))
    with pytest.raises(DataError, match=r"the model's answer is the other class for \d+%"):
        require_clean(opened(tmp_path, swapped), turned, Preprocessing(), force=False)


def test_one_channel_has_no_layout_to_advise(tmp_path: Path) -> None:
    said = require_clean(opened(tmp_path, lopsided(1 / 255, 0.0)), small.images(120), Preprocessing(), force=True)
    assert "range=0,255" in said
    assert "layout" not in said

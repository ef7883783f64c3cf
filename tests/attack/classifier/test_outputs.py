"""Which output is attacked, one score as two classes, and a model without a kappa."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.attack.classifier.opener import ClassifierOpener
from jr_onnx.data import ImageData
from jr_onnx.errors import InputError, ModelError
from jr_onnx.evaluation.summary import Evaluation, ModelFigures
from jr_onnx.kappa import KappaPlan
from tests.attack.suite import small


@pytest.fixture(autouse=True)
def _handful() -> Iterator[None]:
    with small.patched(small.handful):
        yield


def extended(*after: onnx.NodeProto, outputs: tuple[str, ...] = (), classes: int = small.CLASSES) -> onnx.ModelProto:
    """The small network with the logits z, more nodes behind, and the outputs in the given order."""
    model = small.network(after=after, outputs=("N", classes))
    if outputs:
        del model.graph.output[:]
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    for name, value in (("two", 2.0), ("hundred", 100.0), ("spread", [0.0, 30.0, -9.0])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=np.float32), name))
    return model


def evaluated(folder: Path, model: onnx.ModelProto, **changes: Any) -> Evaluation:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return small.evaluated(small.request(folder, model=path, **changes))[1]


def figures(found: Evaluation, label: str) -> ModelFigures:
    return next(item for item in found.models if item.model == label)


def robust(found: Evaluation, label: str = "original") -> list[int]:
    return [item.robust.count for item in figures(found, label).entries]


PLAIN = (helper.make_node("Identity", ["z"], ["y"]),)
EMBEDDING = (helper.make_node("Identity", ["a"], ["embedding"]), *PLAIN)


@pytest.mark.parametrize(
    ("after", "outputs", "taken"),
    [
        (EMBEDDING, ("embedding", "y"), "'y'"),
        ((*PLAIN, helper.make_node("Softmax", ["z"], ["p"])), ("p", "y"), "'z' before the Softmax of 'p'"),
        ((*PLAIN, helper.make_node("Neg", ["z"], ["upside_down"])), ("upside_down", "y"), "'y'"),
        ((helper.make_node("ArgMax", ["z"], ["label"], axis=1), *PLAIN), ("y",), "'y'"),
    ],
    ids=["wider output first", "logits and softmax", "a wrong output of the same width", "argmax beside it"],
)
def test_the_output_that_fits_the_labels_is_attacked(
    tmp_path: Path, after: tuple[onnx.NodeProto, ...], outputs: tuple[str, ...], taken: str
) -> None:
    found = evaluated(tmp_path, extended(*after, outputs=outputs))
    plain = evaluated(tmp_path / "plain", small.network()) if (tmp_path / "plain").mkdir() is None else found
    assert found.run.logits == taken
    assert robust(found) == robust(plain)
    assert robust(found, "retrofit") == robust(plain, "retrofit")


TWINS = (*PLAIN, helper.make_node("Add", ["z", "noise"], ["other"]))


def test_two_outputs_that_fit_are_named_and_one_can_be_chosen(tmp_path: Path) -> None:
    model = extended(*TWINS, outputs=("other", "y"))
    noise = np.array([0.0, 0.02, 0.0], dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(noise, "noise"))
    with pytest.raises(InputError, match=r"'other' \(3 columns, \d+% right\), 'y' \(3 columns") as caught:
        evaluated(tmp_path, model)
    assert "--logits" in str(caught.value)
    assert evaluated(tmp_path, model, logits="other").run.logits == "'other'"


def test_a_value_inside_the_graph_can_be_chosen(tmp_path: Path) -> None:
    after = (helper.make_node("Add", ["z", "spread"], ["moved"]), helper.make_node("Round", ["moved"], ["y"]))
    found = evaluated(tmp_path, extended(*after), logits="z")
    assert found.run.logits == "'z'"
    assert any("'z' is not an output, so a copy of model.onnx" in note for note in found.run.notes)
    (tmp_path / "plain").mkdir()
    assert robust(found) == robust(evaluated(tmp_path / "plain", small.network()))
    with pytest.raises(InputError, match="has no value 'nowhere'; its outputs are 'y'"):
        evaluated(tmp_path, extended(*after), logits="nowhere")


@pytest.mark.parametrize("black_box", [False, True])
def test_outputs_that_do_not_fit_are_refused_with_their_names(tmp_path: Path, black_box: bool) -> None:
    narrow = (
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.array([2], dtype=np.int64))),
        helper.make_node("TopK", ["z", "k"], ["best", "which"], axis=1),
    )
    with pytest.raises(InputError, match="the largest label is 2, and 'best' has 2 classes"):
        evaluated(tmp_path, extended(*narrow, outputs=("best",)), black_box=black_box)
    whole = small.network(after=(helper.make_node("ArgMax", ["z"], ["y"], axis=1),))
    whole.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(ModelError, match=r"no output of model.onnx holds scores.*'y' \(tensor\(int64\)\)"):
        evaluated(tmp_path, whole, black_box=black_box)


@pytest.mark.parametrize("black_box", [False, True])
def test_a_sequence_of_tensors_is_not_taken_for_one_of_maps(tmp_path: Path, black_box: bool) -> None:
    model = extended(helper.make_node("SequenceConstruct", ["z"], ["y"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))
    with pytest.raises(
        (InputError, ModelError), match=r"no output of (a floating type|model\.onnx holds scores)"
    ) as said:
        evaluated(tmp_path, model, black_box=black_box)
    assert "ZipMap" not in str(said.value)


def scores_one(*after: onnx.NodeProto) -> onnx.ModelProto:
    """The small network reduced to one score, "s": the logit of class 2 minus that of class 0."""
    weight = helper.make_node("MatMul", ["z", "difference"], ["s"])
    model = extended(weight, *after, classes=1)
    difference = np.array([[-1.0], [0.0], [1.0]], dtype=np.float32)
    last = numpy_helper.from_array(np.array([1]), "last")
    model.graph.initializer.extend([numpy_helper.from_array(difference, "difference"), last])
    if any(node.op_type == "Squeeze" for node in after):
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"]))
    return model


def two_classes() -> tuple[ImageData, onnx.ModelProto]:
    """Images of two classes, and the small network without its class 1, which is never its answer."""
    first, bias, second = small.weights()
    data = small.images(24)
    logits = np.maximum(data.images.reshape(24, -1) @ first + bias, 0) @ second
    labels = (logits[:, 2] > logits[:, 0]).astype(np.int64)
    labels[::5] ^= 1
    model = small.network(outputs=("N", 2))
    position = next(at for at, item in enumerate(model.graph.initializer) if item.name == "w2")
    model.graph.initializer[position].CopyFrom(numpy_helper.from_array(second[:, ::2].copy(), "w2"))
    return ImageData.from_arrays(data.images, labels), model


@pytest.mark.parametrize(
    ("after", "black_box"),
    [
        ((helper.make_node("Identity", ["s"], ["y"]),), False),
        ((helper.make_node("Sigmoid", ["s"], ["y"]),), False),
        ((helper.make_node("Sigmoid", ["s"], ["p"]), helper.make_node("Mul", ["p", "hundred"], ["y"])), False),
        ((helper.make_node("Tanh", ["s"], ["y"]),), False),
        ((helper.make_node("Squeeze", ["s", "last"], ["y"]),), False),
        ((helper.make_node("Sigmoid", ["s"], ["p"]), helper.make_node("Squeeze", ["p", "last"], ["y"])), False),
        ((helper.make_node("Sigmoid", ["s"], ["p"]), helper.make_node("Squeeze", ["p", "last"], ["y"])), True),
        ((helper.make_node("Identity", ["s"], ["y"]),), True),
        ((helper.make_node("Sigmoid", ["s"], ["y"]),), True),
    ],
    ids=[
        "logit",
        "sigmoid",
        "per cent",
        "tanh",
        "logit (N,)",
        "sigmoid (N,)",
        "sigmoid (N,), black box",
        "logit, black box",
        "sigmoid, black box",
    ],
)
def test_one_score_is_attacked_as_two_classes(
    tmp_path: Path, after: tuple[onnx.NodeProto, ...], black_box: bool
) -> None:
    data, reference = two_classes()
    (tmp_path / "two").mkdir()
    two = evaluated(tmp_path / "two", reference, data=data, black_box=black_box)
    found = evaluated(tmp_path, scores_one(*after), data=data, black_box=black_box)
    assert figures(found, "original").clean == figures(two, "original").clean
    assert figures(found, "retrofit").clean == figures(two, "retrofit").clean
    assert "one score: class 1 where 'y' is above" in found.run.logits
    for label in ("original", "retrofit"):
        # The same decisions; a logit and a margin are steps of different sizes for a search without gradients.
        slack = 4 if black_box or after[0].op_type == "Tanh" else 1
        assert np.abs(np.subtract(robust(found, label), robust(two, label))).max() <= slack
        assert all(item.disagreements == 0 for item in figures(found, label).entries)


def test_a_model_without_a_kappa_is_attacked_alone_and_says_so(tmp_path: Path) -> None:
    with small.patched(small.short):
        both = small.evaluated(small.request(tmp_path))[1]
        prepared, alone = small.evaluated(small.request(tmp_path, plan=None, out=tmp_path / "alone"))
    assert "no kappa is given, so small.onnx itself is attacked, not a retrofit of it" in prepared.notes
    assert [item.model for item in alone.models] == ["model"]
    assert alone.comparisons == alone.minimal == ()
    model, original = figures(alone, "model"), figures(both, "original")
    assert {item.view for item in model.entries} == {"exact", "black_box"}
    known = {item.entry: item.robust for item in original.entries}
    assert all(item.robust == known[item.entry] for item in model.entries)
    assert model.verdict.not_judged == ""


def test_a_model_without_a_site_is_attacked(tmp_path: Path) -> None:
    model = small.network()
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Softplus"
    found = evaluated(tmp_path, model, plan=None, force=True)  # with Softplus it answers one class only
    assert figures(found, "model").entries
    with pytest.raises(Exception, match=r"no (ReLU )?site"):
        evaluated(tmp_path / "with", model, plan=KappaPlan(0.3)) if (tmp_path / "with").mkdir() is None else None


def test_the_threshold_of_one_score_is_one_half_where_all_are_shares(tmp_path: Path) -> None:
    data, _ = two_classes()
    model = scores_one(helper.make_node("Sigmoid", ["s"], ["p"]), helper.make_node("Clip", ["p"], ["y"]))
    onnx.save(model, tmp_path / "model.onnx")
    served, net = ClassifierOpener(data=data).open(tmp_path / "model.onnx")
    assert served.head.threshold == 0.5
    assert net is not None
    answers = served.logits(data.images).argmax(1)
    import torch

    assert (net(torch.from_numpy(data.images)).argmax(1).numpy() == answers).all()

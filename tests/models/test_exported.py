"""The committed ONNX files are what their cards and records say; torch is not needed for that."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from jr_onnx.data import PRESETS, ImageData, InputAdapter, ModelInput, load
from jr_onnx.evaluation.statistics import wilson
from tests.data.builders import unpack_cifar10
from tests.development import DataFolder

ort = pytest.importorskip("onnxruntime")
MODELS = Path(__file__).resolve().parents[2] / "models"
NAMES = ("digits_cnn", "digits_mlp")


def _path(name: str) -> Path:
    return MODELS / "exported" / f"{name}.onnx"


def _hits(name: str, data: ImageData, preset: str = "none") -> int:
    session = ort.InferenceSession(_path(name), providers=["CPUExecutionProvider"])
    (node,) = session.get_inputs()
    adapter = InputAdapter(ModelInput.of_session(node), data.shape, PRESETS[preset])
    hits = 0
    for pixels, labels in data.batches(100):
        (logits,) = session.run(None, {node.name: adapter.to_model(pixels)})
        hits += int((logits.argmax(1) == labels).sum())
    return hits


def _card(name: str, row: str) -> tuple[int, int]:
    text = (MODELS / "cards" / f"{name}.md").read_text(encoding="utf-8")
    match = re.search(rf"^\| {row} \| (\d+) of (\d+) images", text, re.MULTILINE)
    assert match, f"the card of {name} has no row {row!r}"
    return int(match[1]), int(match[2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_accuracy_is_that_of_the_card(name: str, split: str) -> None:
    data = load("digits", split=split)
    stated, count = _card(name, f"{split} accuracy")
    assert count == len(data)
    # One image may stand on the border between two classes on another processor.
    assert abs(_hits(name, data) - stated) <= 1
    if split == "test":
        assert stated / count > 0.97


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_portable_and_small(name: str) -> None:
    content = _path(name).read_bytes()
    assert len(content) < 200_000
    stated = re.search(r"\.onnx`, (\d+) bytes", (MODELS / "cards" / f"{name}.md").read_text(encoding="utf-8"))
    assert stated
    assert int(stated[1]) == len(content)
    for trace in (b"/home", str(MODELS.parent).encode(), b".py", b"site-packages", b"stack_trace"):
        assert trace not in content
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    (graph_input,) = model.graph.input
    axes = [axis.dim_param or axis.dim_value for axis in graph_input.type.tensor_type.shape.dim]
    assert axes == ["batch", 1, 8, 8]
    assert sum(node.op_type == "Relu" for node in model.graph.node) == {"digits_cnn": 4, "digits_mlp": 2}[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_is_free(name: str) -> None:
    session = ort.InferenceSession(_path(name), providers=["CPUExecutionProvider"])
    images = load("digits", limit=5).images
    (together,) = session.run(None, {"input": images})
    alone = np.concatenate([session.run(None, {"input": image[None]})[0] for image in images])
    # Logits of order 30, sums of at most 300 terms in float32: 300 * 2^-24 * 30 is 5e-4.
    assert np.allclose(together, alone, rtol=0, atol=1e-3)


CARDS = sorted(path.stem for path in (MODELS / "exported").glob("*_*.json") if ".training" not in path.name)


def test_every_network_of_the_paper_has_its_card() -> None:
    networks = ("alex_like", "lenet_like", "mobilenet_v2", "wide_resnet")
    paper = [f"{name}_{variant}" for name in networks for variant in ("base", "robust")]
    assert sorted([*paper, "lenet_like_pgd"]) == CARDS


@pytest.mark.parametrize("name", CARDS)
def test_a_network_reaches_what_its_card_says(name: str, data_dir: DataFolder, tmp_path: Path) -> None:
    card = json.loads((MODELS / "exported" / f"{name}.json").read_text(encoding="utf-8"))
    kind = card["preprocess"]
    if not (data_dir / kind).is_dir():
        pytest.skip(f"{data_dir / kind} is missing")
    spec = f"mnist:{data_dir / 'mnist'}" if kind == "mnist" else unpack_cifar10(data_dir, tmp_path)
    images = load(spec, limit=50 if "wide" in name else 200)
    hits = _hits(name, images, kind)
    low, high = wilson(hits, len(images), z=3.29)  # one in a thousand: every network is a chance to fail
    assert low <= card["correct"] / card["test_images"] <= high
    assert abs(card["correct"] - card["correct_float32"]) <= 0.005 * card["test_images"]

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import numpy_helper

from jr_onnx.provenance import HARDENED_KEY
from models import build, entry
from tests.reproduce.builders import digits_as_mnist
from tools.training.export import export
from tools.training.export_networks import main

pytest.importorskip("onnxruntime")


def _run(weights: Path, out: Path, spec: str, *options: str) -> Result:
    return CliRunner().invoke(main, [str(weights), str(out), "--data", spec, "--limit", "20", *options])


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return digits_as_mnist(tmp_path_factory.mktemp("mnist"))


def test_a_state_dict_becomes_a_network_with_a_card(tmp_path: Path, spec: str) -> None:
    torch.manual_seed(0)
    torch.save(build("lenet_like").state_dict(), tmp_path / "lenet_like_robust.pt")
    (tmp_path / "lenet_like_robust.json").write_text('{"recipe": {"epochs": 2}, "seconds": 3.5}', encoding="utf-8")
    done = _run(tmp_path, tmp_path / "out", spec, "--half")
    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "out" / "lenet_like_robust.json").read_text(encoding="utf-8"))
    assert (card["network"], card["variant"], card["preprocess"]) == ("lenet_like", "robust", "mnist")
    assert (card["recipe"], card["training_seconds"], card["test_images"]) == ({"epochs": 2}, 3.5, 20)
    stored = onnx.load(tmp_path / "out" / "lenet_like_robust.onnx")
    large = [item for item in stored.graph.initializer if numpy_helper.to_array(item).size >= 1024]
    assert large
    assert {numpy_helper.to_array(item).dtype for item in large} == {np.dtype(np.float16)}


def test_a_hardened_file_keeps_its_weights_and_gives_its_own_recipe(tmp_path: Path, spec: str) -> None:
    torch.manual_seed(1)
    proto = export(build("lenet_like"), entry("lenet_like").input_shape, exporter="old")
    said = {"recipe": {"method": "pgd", "eps": 0.1}, "source_name": "lenet_like_base.onnx", "source_sha256": "ab"}
    proto.metadata_props.add(key=HARDENED_KEY, value=json.dumps(said))
    onnx.save(proto, tmp_path / "lenet_like_pgd.onnx")
    done = _run(tmp_path, tmp_path / "out", spec)
    assert done.exit_code == 0, done.output
    assert onnx.load(tmp_path / "out" / "lenet_like_pgd.onnx") == proto
    card = json.loads((tmp_path / "out" / "lenet_like_pgd.json").read_text(encoding="utf-8"))
    assert (card["variant"], card["source"], card["recipe"]) == ("pgd", "trained here", said["recipe"])
    assert (card["hardened_from"], card["hardened_from_sha256"]) == ("lenet_like_base.onnx", "ab")


def test_an_onnx_file_that_was_not_hardened_is_refused(tmp_path: Path, spec: str) -> None:
    onnx.save(export(build("lenet_like"), (1, 28, 28), exporter="old"), tmp_path / "lenet_like_pgd.onnx")
    done = _run(tmp_path, tmp_path / "out", spec)
    assert done.exit_code != 0
    assert f"has no entry {HARDENED_KEY}" in done.output


def test_a_folder_without_weights_is_refused(tmp_path: Path, spec: str) -> None:
    (tmp_path / "empty").mkdir()
    done = _run(tmp_path / "empty", tmp_path / "out", spec)
    assert done.exit_code != 0
    assert "holds no weights" in done.output
    assert not (tmp_path / "out").exists()

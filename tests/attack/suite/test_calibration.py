"""The masking verdict on real networks: it fires on masked ones, and on nothing else.

Short suites (fewer steps and images than the command takes) keep this to minutes; docs/attacks.md has the figures of
whole runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from jr_onnx.attack.suite import plan
from jr_onnx.attack.suite.plan import Entry, SuiteOptions
from jr_onnx.attack.suite.setup import AttackRequest
from jr_onnx.data import PRESETS, ImageData, load
from jr_onnx.evaluation.summary import Evaluation, ModelFigures
from jr_onnx.kappa import KappaPlan
from tests.attack.suite import small
from tests.conftest import ROOT
from tests.development import DataFolder

pytestmark = pytest.mark.slow

LINF = 0.4 * 0.3081
"""What the authors' 40 steps of 0.01 can move a pixel of MNIST."""


def brief(name: str, options: SuiteOptions, *, gradients: bool = True) -> list[Entry]:
    """The adaptive suite with a third of its steps."""
    few = {"steps": 30, "queries": 300, "multiples": 20}
    found = []
    for entry in plan.suite(name, options, gradients=gradients):
        changes = {key: value for key, value in few.items() if hasattr(entry.attack, key)}
        found.append(dataclasses.replace(entry, attack=dataclasses.replace(entry.attack, **changes)))
    return found


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def evaluate(folder: Path, model: Path, data: ImageData, kappa: float, eps: float, **changes: object) -> Evaluation:
    fields: dict[str, object] = {
        "model": model,
        "plan": KappaPlan(kappa),
        "data": data,
        "suite": "adaptive",
        "norm": "linf",
        "eps": eps,
        "out": folder / "out",
        "device": "cpu",
        **changes,
    }
    with small.patched(brief):
        return small.evaluated(AttackRequest(**fields))[1]  # type: ignore[arg-type]


def raised(figures: ModelFigures) -> set[str]:
    return {flag.name for flag in figures.verdict.flags if flag.raised}


def lenet(data_dir: DataFolder, folder: Path, checkpoint: str) -> Path:
    from models.checkpoints import load_weights
    from models.registry import build, entry
    from tools.training.export import export

    net = build("lenet_like")
    load_weights(net, data_dir / f"checkpoints/LeNetLike_{checkpoint}.pkl")
    path = folder / f"{checkpoint}.onnx"
    onnx.save(export(net, entry("lenet_like").input_shape, exporter="old"), path)
    return path


def test_kappa_one_is_masked_and_the_adaptive_suite_sees_through(data_dir: DataFolder, tmp_path: Path) -> None:
    data = load(f"mnist:{data_dir / 'mnist'}", limit=100)
    model = lenet(data_dir, tmp_path, "baseline")
    found = evaluate(tmp_path, model, data, 1.0, LINF, preprocessing=PRESETS["mnist"])
    original, retrofit = found.models
    assert raised(original) == set()
    assert "surrogate-beats-exact" in raised(retrofit)
    worst = next(item for item in retrofit.worst if item.group == "all attacks" and item.eps == pytest.approx(LINF))
    assert worst.robust.value <= 0.45  # the paper's protocol reads 80 % here
    assert found.comparisons[0].what == "clean accuracy"


def test_a_robust_network_and_a_jump_of_a_millionth_are_silent(data_dir: DataFolder, tmp_path: Path) -> None:
    data = load(f"mnist:{data_dir / 'mnist'}", limit=100)
    model = lenet(data_dir, tmp_path, "robust")
    found = evaluate(tmp_path, model, data, 1e-6, LINF, preprocessing=PRESETS["mnist"])
    assert [raised(figures) for figures in found.models] == [set(), set()]


@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp"])
def test_plain_networks_are_silent(tmp_path: Path, name: str) -> None:
    model = ROOT / "models" / "exported" / f"{name}.onnx"
    found = evaluate(tmp_path, model, load("digits", limit=100), 0.0, 0.1)
    assert [raised(figures) for figures in found.models] == [set(), set()]


def test_a_relu_network_behind_a_quantised_input_is_masked(tmp_path: Path) -> None:
    """round(16 x) / 16 has no gradient: the exact attacks are helpless, an attack on outputs is not."""
    model = onnx.load(ROOT / "models" / "exported" / "digits_cnn.onnx")
    name = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["quantised" if item == name else item for item in node.input]
    steps = [
        helper.make_node("Mul", [name, "levels"], ["scaled"], name="scale"),
        helper.make_node("Round", ["scaled"], ["rounded"], name="round"),
        helper.make_node("Div", ["rounded", "levels"], ["quantised"], name="unscale"),
    ]
    nodes = [*steps, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(helper.make_tensor("levels", TensorProto.FLOAT, [], [16.0]))
    path = tmp_path / "quantised.onnx"
    onnx.save(model, path)
    found = evaluate(tmp_path, path, load("digits", limit=60), 0.0, 0.1)
    for figures in found.models:
        assert {"dead-gradients", "black-box-beats-white-box"} <= raised(figures)
        exact = next(item for item in figures.worst if item.group == "exact gradient" and item.eps == 0.1)
        every = next(item for item in figures.worst if item.group == "all attacks" and item.eps == 0.1)
        assert exact.robust.value > every.robust.value
        assert np.isfinite(every.robust.low)

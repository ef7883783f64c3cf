"""The gate: it passes what is right, and stops what is wrong by little or by much."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from jr_onnx.errors import DataError, ModelError, RefusalError, VerificationError
from jr_onnx.kappa import RandomKappa
from jr_onnx.records import dumps, loads
from jr_onnx.rewriter import rewrite
from jr_onnx.torchnet import ParityReport, check_parity, load, parity
from jr_onnx.torchnet.runtime import Reference
from tests.torchnet.models import mlp, with_if
from tests.verifier.nets import save
from tests.verifier.quantising import classifier, images
from tests.verifier.quantising import quantised as quantised_file

_X = np.random.default_rng(0).standard_normal((32, 6)).astype(np.float32)


def _changed(relative: float) -> onnx.ModelProto:
    """The network with one weight off."""
    model = mlp()
    tensor = next(item for item in model.graph.initializer if item.name == "w2")
    value = numpy_helper.to_array(tensor).copy()
    value[0, 0] *= 1 + relative
    tensor.CopyFrom(numpy_helper.from_array(value, "w2"))
    return model


def test_a_right_module_passes_well_within_the_bound() -> None:
    report = check_parity(load(mlp()), mlp(), _X)
    (comparison,) = report.comparisons
    assert report.passed
    assert comparison.samples == 32
    assert comparison.disagreements == 0
    assert comparison.max_abs_error <= comparison.bound < 1e-4


@pytest.mark.parametrize("relative", [1e-2, 1e-1])
def test_a_wrong_weight_is_caught(relative: float) -> None:
    net = load(mlp())
    with pytest.raises(VerificationError, match=r"disagree on sample \d+") as caught:
        check_parity(net, _changed(relative), _X)
    assert "black-box" in caught.value.hint
    report = check_parity(net, _changed(relative), _X, raise_on_failure=False)
    assert not report.passed
    assert report.comparisons[0].worst_ratio > 1


def test_a_wrong_kappa_in_the_file_is_caught() -> None:
    retrofit, _ = rewrite(mlp(), kappa=0.5, lowering="thresholded")
    for node in retrofit.graph.node:
        if node.op_type == "ThresholdedRelu":
            node.attribute[0].f = 0.8
    # The provenance still says 0.5, which the module would believe.
    with pytest.raises(RefusalError, match=r"the graph holds .*alpha=0\.80.* by the provenance it is .*alpha=0\.5"):
        check_parity(load(mlp()), retrofit, _X, raise_on_failure=False)


def test_samples_at_the_jump_are_explained_not_failed() -> None:
    """Put a pre-activation of every sample within rounding of kappa: the sides differ, and the report says why."""
    model = mlp()
    net = load(model)
    seen: list[torch.Tensor] = []
    with net.observing(lambda _, z, *__: seen.append(z)):
        net(torch.from_numpy(_X))
    kappa = float(seen[0].flatten().sort().values[-60])
    retrofit, _ = rewrite(model, kappa={"node1": kappa, "node3": 0.0})
    report = check_parity(net, retrofit, _X)
    assert report.passed
    blind = check_parity(net, retrofit, _X, raise_on_failure=False).comparisons[1]
    assert blind.bound < 1e-4


def test_random_draw_inside_the_graph_is_compared_at_kappa_zero_only() -> None:
    drawn, _ = rewrite(mlp(), kappa=RandomKappa(0.2, 0.8, source="graph"))
    report = check_parity(load(drawn), drawn, _X)
    assert len(report.comparisons) == 1
    assert any("draws kappa" in note for note in report.notes)
    fed, _ = rewrite(mlp(), kappa=RandomKappa(0.2, 0.8, source="input"))
    assert len(check_parity(load(fed), fed, _X).comparisons) == 2


def test_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match="other sites"):
        check_parity(load(mlp()), with_if("shape"), _X)


def test_no_input_is_refused() -> None:
    with pytest.raises(DataError, match="at least one input"):
        check_parity(load(mlp()), mlp(), _X[:0])


def test_module_keeps_its_settings() -> None:
    net = load(mlp())
    net.set_kappa(0.3)
    net.set_random(0.1, 0.2)
    check_parity(net, mlp(), _X)
    assert set(net.kappas.values()) == {float(np.float32(0.3))}
    assert net.random is not None


def test_report_survives_json() -> None:
    report = check_parity(load(mlp()), mlp(), _X)
    assert loads(ParityReport, dumps(report)) == report


class Stepping:
    """ONNX Runtime as it would be if a quantiser decided one step otherwise for some samples: their logits move."""

    moved = 0
    size = 0.0

    def __init__(self, *arguments: Any) -> None:
        self._inner = Reference(*arguments)

    def __call__(self, inputs: Any) -> Any:
        logits = self._inner(inputs).copy()
        places = np.arange(min(self.moved, len(logits)))
        best = logits[places].argmax(axis=1)
        logits[places, best] += self.size
        return logits


@pytest.mark.parametrize(
    ("quantised", "moved", "size", "taken"),
    [(True, 20, 0.3, True), (True, 1, -50.0, True), (True, 2, -50.0, False), (False, 20, 0.3, False)],
)
def test_the_twin_of_a_quantised_model_is_taken_for_its_decisions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quantised: bool, moved: int, size: float, taken: bool
) -> None:
    path = save(classifier(), tmp_path)
    if quantised:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the quantiser says of itself
            path = quantised_file(path, tmp_path / "q.onnx", "int8", keep=True)
    net, inputs = load(path), images(64)
    assert check_parity(net, path, inputs).by_decisions is False
    monkeypatch.setattr(parity, "Reference", Stepping)
    monkeypatch.setattr(Stepping, "moved", moved)
    monkeypatch.setattr(Stepping, "size", size)
    report = check_parity(net, path, inputs, raise_on_failure=False)
    assert not report.comparisons[0].passed
    assert report.passed is report.by_decisions is taken
    if taken:
        decided = 64 - report.comparisons[0].disagreements
        assert f"decides as ONNX Runtime for {decided} of 64 images" in report.notes[-1]
    else:
        with pytest.raises(VerificationError, match="disagree on sample"):
            check_parity(net, path, inputs)

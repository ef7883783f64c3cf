"""Kappas that are drawn or given at run time: what can be verified of them, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.rewriter import rewrite
from jr_onnx.verifier import VerifyReport, verify
from tests.verifier.nets import network, save


def failed(report: VerifyReport) -> set[str]:
    return {check.what for check in report.checks if check.verdict == "failed"}


@pytest.mark.parametrize("scope", ["main", "function"])
def test_a_kappa_input_is_fed_other_kappas(tmp_path: Path, scope: str) -> None:
    source = save(network(scope=scope, sites=1), tmp_path)
    path, _ = rewrite(source, KappaPlan(kappa=0.06, input_name="kappa"))
    report = verify(path, original=source, samples=2)
    assert report, report.failures
    fed = [check.compared for check in report.checks if check.what == "kappa given at run time"]
    assert fed == ["the file fed 0 with a fixed retrofit", "the file fed 0.62 with a fixed retrofit"]
    assert "default of the input 'kappa'" in report.kappa


def test_a_kappa_input_that_one_site_ignores_is_found(tmp_path: Path) -> None:
    path, _ = rewrite(save(network(), tmp_path), KappaPlan(kappa=0.06, input_name="kappa"))
    model = onnx.load(path)
    fixed = onnx.helper.make_tensor("fixed", onnx.TensorProto.FLOAT, [], [0.06])
    model.graph.initializer.append(fixed)
    for node in model.graph.node:
        if node.name == "a1/jr_shifted":
            node.input[1] = "fixed"
    path.write_bytes(model.SerializeToString(deterministic=True))
    report = verify(path, samples=2)
    assert "kappa given at run time" in failed(report)


@pytest.mark.parametrize("source", ["op", "graph"])
@pytest.mark.parametrize("per", ["network", "site"])
def test_draws_lie_in_their_range_and_are_used(per: str, source: str) -> None:
    model, _ = rewrite(network(), RandomKappa(0.05, 0.5, per, source))  # type: ignore[arg-type]
    report = verify(model, samples=3)
    assert report, report.failures
    assert any("kappa is drawn in every run" in note for note in report.notes)
    verdicts = {check.what: check.verdict for check in report.checks}
    assert verdicts["sites in place"] == "passed"
    assert verdicts["between the sites"] == "passed"
    assert verdicts["drawn kappa"] == "passed"
    assert not [check for check in report.checks if check.what.startswith("kappa, ")]


def test_a_random_input_is_compared_at_its_default_and_both_ends() -> None:
    model, _ = rewrite(network(), RandomKappa(0.05, 0.5))
    report = verify(model, samples=2)
    assert report, report.failures
    fed = [check.compared for check in report.checks if check.what == "kappa given at run time"]
    assert fed == ["the model fed 0.05 with a fixed retrofit", "the model fed 0.5 with a fixed retrofit"]


def test_a_site_that_draws_beyond_its_range_is_named() -> None:
    model, _ = rewrite(network(), RandomKappa(0.05, 0.1, "site", "graph"))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("low", "high") and node.output[0].startswith("a1/"):
                attribute.f = 0.9 if attribute.name == "low" else 1.0
    report = verify(model, samples=1)
    failure = next(item for item in report.failures if item.check == "drawn kappa")
    assert failure.site == "act1"
    assert failure.expected == "a kappa in [0.05, 0.1]"


def test_a_site_that_always_draws_the_same_is_named() -> None:
    model, _ = rewrite(network(sites=1), RandomKappa(0.05, 0.5, "site", "graph"))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "high" and node.op_type == "RandomUniform":
                attribute.f = 0.05
    report = verify(model, samples=1)
    assert next(item for item in report.failures if item.check == "drawn kappa").found == "the same draw"


def test_a_network_that_draws_beyond_its_range_is_found() -> None:
    model, _ = rewrite(network(), RandomKappa(0.05, 0.1, "network", "graph"))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "RandomUniform" and attribute.name in ("low", "high"):
                attribute.f = 0.9 if attribute.name == "low" else 1.0
    report = verify(model, samples=2)
    assert next(item for item in report.failures if item.check == "drawn kappa").expected == "a kappa in [0.05, 0.1]"


def test_a_drawing_retrofit_that_does_not_load_is_a_failure() -> None:
    model, _ = rewrite(network(), RandomKappa(0.05, 0.5, "network", "graph"))
    for node in model.graph.node:
        if node.name == "head":
            node.op_type = "MatMulOfNobody"
    report = verify(model, original=network(), samples=1)
    assert "whole model" in failed(report)

"""The expressions of a recorded kappa map are tried within a time, and give what the plan itself gives."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
from pathlib import Path

import onnx
import pytest

from jr_onnx import provenance
from jr_onnx.errors import KappaError
from jr_onnx.kappa import KappaPlan
from jr_onnx.rewriter import rewrite
from jr_onnx.verifier import expressions, verify
from tests.verifier.nets import network, save

_CATASTROPHIC = r"^(\w+)+!$"  # exponential in the length of what it does not match


def test_gives_what_the_plan_gives() -> None:
    plan = KappaPlan(0.1, (("conv[12]", 0.2), (r"\Arelu\Z", 0.3), ("fc.*", 0.4)))
    ids = ["relu", "conv1", "conv3", "fc/relu", "ä"]
    assert expressions.recorded_kappas(plan, ids) == plan.for_sites(ids)


def test_a_map_of_ids_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    plan = KappaPlan.of({"a": 0.1, "b": 0.2}).settled(["a", "b"])
    assert not plan.has_expressions
    assert expressions.recorded_kappas(plan, ["a", "b"]) == {"a": 0.1, "b": 0.2}


def test_an_expression_that_takes_for_ever_is_given_up() -> None:
    plan = KappaPlan(0.1, ((_CATASTROPHIC, 0.2),))
    with pytest.raises(KappaError, match=r"take more than 1 s"):
        expressions.recorded_kappas(plan, ["a" * 60], most_seconds=1)


def test_verify_says_that_a_recorded_map_takes_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = network()
    for node in source.graph.node:
        node.name = f"{node.name}_{'a' * 60}"
    path, _ = rewrite(save(source, tmp_path), 0.06)
    model = onnx.load(path)
    record = provenance.read(model)
    assert record is not None
    provenance.remove(model)
    plan = dataclasses.replace(record.plan, by_site=((_CATASTROPHIC, 0.5),))
    provenance.write(model, dataclasses.replace(record, plan=plan))
    onnx.save(model, path)
    monkeypatch.setattr(
        "jr_onnx.verifier.subject.recorded_kappas", functools.partial(expressions.recorded_kappas, most_seconds=1)
    )
    report = verify(path, samples=2)
    assert not report
    assert any("take more than 1 s" in failure.message for failure in report.failures)

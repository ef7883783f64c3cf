"""A session computes what stands in the file's graph, whatever its provenance says."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from jr_onnx import provenance
from jr_onnx.errors import RefusalError
from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.provenance import Provenance
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime.saved import optimize
from jr_onnx.runtime.session import InferenceSession
from tests.runtime.exact_nets import KAPPA, convnet, images

CPU = ["CPUExecutionProvider"]


def with_record(model: onnx.ModelProto, change: Callable[[Provenance], Provenance]) -> bytes:
    """Return the model with only its provenance changed."""
    record = provenance.read(model)
    assert record is not None
    provenance.remove(model)
    provenance.write(model, change(record))
    return bytes(model.SerializeToString())


def plan_of(kappa: float) -> Callable[[Provenance], Provenance]:
    def change(record: Provenance) -> Provenance:
        sites = tuple(dataclasses.replace(site, kappa=kappa) for site in record.sites)
        return dataclasses.replace(record, plan=KappaPlan(kappa=kappa), sites=sites)

    return change


def alone(data: bytes) -> Any:
    return onnxruntime.InferenceSession(data, providers=CPU).run(None, images())[0]


@pytest.mark.parametrize("lowering", ["where", "thresholded", "custom"])
def test_a_changed_kappa_in_the_provenance_changes_nothing(lowering: str, caplog: pytest.LogCaptureFixture) -> None:
    data = with_record(rewrite(convnet(), KAPPA, lowering=lowering)[0], plan_of(50.0))
    with caplog.at_level(logging.WARNING, "jr_onnx.runtime"):
        session = InferenceSession(data, providers=CPU)
    assert session.retrofit.mode == "plain"
    assert "does not compute what its provenance says: site Relu_1" in session.retrofit.reason
    assert session.retrofit.mismatch
    assert "does not compute what its provenance says" in caplog.text
    np.testing.assert_array_equal(session.run(None, images())[0], alone(data))
    with pytest.raises(RefusalError, match="does not compute what its provenance says"):
        InferenceSession(data, providers=CPU, retrofit="optimised")


def test_it_is_named_where_the_plain_way_was_asked_for_too(caplog: pytest.LogCaptureFixture) -> None:
    data = with_record(rewrite(convnet(), KAPPA)[0], plan_of(50.0))
    with caplog.at_level(logging.WARNING, "jr_onnx.runtime"):
        session = InferenceSession(data, providers=CPU, retrofit="plain")
    assert session.retrofit.mismatch
    assert "runs its graph as it is" in caplog.text


def test_a_body_of_the_operator_that_is_not_ours_is_computed(caplog: pytest.LogCaptureFixture) -> None:
    """The op library's kernel would run in place of the definition in the file, with provenance and without."""
    model, _ = rewrite(convnet(), KAPPA, lowering="custom")
    body = next(function for function in model.functions if function.name == "JumpRelu")
    del body.node[:]
    body.node.append(onnx.helper.make_node("Abs", ["x"], ["y"]))
    data = bytes(model.SerializeToString())
    provenance.remove(model)
    for variant in (data, bytes(model.SerializeToString())):
        with caplog.at_level(logging.WARNING, "jr_onnx.runtime"):
            session = InferenceSession(variant, providers=CPU)
        assert session.retrofit.library is None
        np.testing.assert_array_equal(session.run(None, images())[0], alone(variant))
    assert "not one of this package's" in caplog.text


def test_the_image_is_never_taken_for_kappa() -> None:
    """A provenance that calls the image the random kappa input: nothing is drawn into it, nothing refuses the image."""

    def change(record: Provenance) -> Provenance:
        undo = dataclasses.replace(record.undo, inputs_added=("x",))
        return dataclasses.replace(record, plan=KappaPlan.of(RandomKappa(0.1, 0.2)), undo=undo)

    data = with_record(rewrite(convnet(), KAPPA)[0], change)
    session = InferenceSession(data, providers=CPU)
    assert session.retrofit.kappa_input is None
    np.testing.assert_array_equal(session.run(None, images())[0], alone(data))


def test_a_random_kappa_is_drawn_although_another_part_disagrees() -> None:
    plan = KappaPlan.of(RandomKappa(1.0, 9.0))

    def change(record: Provenance) -> Provenance:
        sites = (dataclasses.replace(record.sites[0], cap=7.0), *record.sites[1:])
        return dataclasses.replace(record, sites=sites)

    session = InferenceSession(with_record(rewrite(convnet(), plan)[0], change), providers=CPU)
    assert session.retrofit.mismatch
    assert session.retrofit.kappa_input == "jr_kappa"
    answers = {session.run(None, images())[0].tobytes() for _ in range(8)}
    assert len(answers) > 1


def test_only_what_agrees_is_optimised_to_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = tmp_path / "m.onnx", tmp_path / "fast.onnx"
    model, _ = rewrite(convnet(), KAPPA)
    source.write_bytes(model.SerializeToString())
    optimize(source, target)
    source.write_bytes(with_record(model, plan_of(50.0)))
    with pytest.raises(RefusalError, match="does not compute what its provenance says: site Relu_1"):
        optimize(source, target, force=True)
    assert not InferenceSession(target, providers=CPU).retrofit.mismatch
    for use_library in (True, False):
        for kappa in (KAPPA, 50.0):
            source.write_bytes(rewrite(convnet(), KAPPA)[0].SerializeToString())
            optimize(source, target, force=True, use_library=use_library)
            target.write_bytes(with_record(onnx.load(target), plan_of(kappa)))
            caplog.clear()
            session = InferenceSession(target, providers=CPU)
            assert session.retrofit.mode == "saved"
            assert bool(session.retrofit.mismatch) == (kappa != KAPPA)
            assert ("the kappas in the graph are 3" in caplog.text) == (kappa != KAPPA)


@pytest.mark.parametrize("per", ["network", "site"])
@pytest.mark.parametrize("source", ["op", "graph", "input"])
def test_an_optimised_file_with_a_random_kappa_agrees(per: Any, source: Any, tmp_path: Path) -> None:
    if (per, source) == ("site", "input"):
        return  # there is no such rewrite
    path, target = tmp_path / "m.onnx", tmp_path / "fast.onnx"
    model, _ = rewrite(convnet(), KappaPlan.of(RandomKappa(1.0, 3.0, per=per, source=source)))
    path.write_bytes(model.SerializeToString())
    optimize(path, target)
    assert not InferenceSession(target, providers=CPU).retrofit.mismatch
    if source == "input":
        return

    def change(record: Provenance) -> Provenance:
        return dataclasses.replace(record, plan=KappaPlan.of(RandomKappa(5.0, 6.0, per=per, source=source)))

    target.write_bytes(with_record(onnx.load(target), change))
    assert "draws kappa from 5 to 6" in InferenceSession(target, providers=CPU).retrofit.mismatch

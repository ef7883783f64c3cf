"""When a session runs the file as it is, and the reason that it gives."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from jr_onnx.errors import RefusalError
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime import opening
from jr_onnx.runtime.session import InferenceSession
from jr_onnx.semantics import jump_relu
from tests.runtime.exact_nets import KAPPA, ExactNet, convnet, images
from tests.runtime.support import CPU, assert_same_bits, options


def test_a_site_that_the_optimiser_computes_away_leads_to_the_plain_way(caplog: pytest.LogCaptureFixture) -> None:
    net = ExactNet(13)
    folded = net.relu(net.weight((16, 1, 1), 1.0))
    model = net.model([net.add("Add", [net.relu(net.conv("x", 3, 16)), folded])], ["N", 3, 8, 8])
    data = rewrite(model, 0.5)[0].SerializeToString()
    with caplog.at_level(logging.WARNING, logger="jr_onnx.runtime"):
        session = InferenceSession(data, options(), CPU)
    assert session.retrofit.mode == "plain"
    assert session.retrofit.reason.endswith("site Relu_0 stands in the graph 0 times, expected 1")
    assert session.retrofit.reason in caplog.text
    assert_same_bits(session, InferenceSession(data, options(), CPU, retrofit="plain"), images())
    with pytest.raises(RefusalError, match="stands in the graph 0 times"):
        InferenceSession(data, options(), CPU, retrofit="optimised")


def test_other_types_than_float32_run_the_plain_way() -> None:
    net = ExactNet(14)
    x = net.relu(net.add("Cast", ["x"], to=TensorProto.DOUBLE))
    model = net.model([net.add("Cast", [x], to=TensorProto.FLOAT)], ["N", 3, 8, 8])
    session = InferenceSession(rewrite(model, 1.0)[0].SerializeToString(), options(), CPU)
    assert session.retrofit.reason == "site Relu_1 is float64, and ONNX Runtime's CPU kernels fuse float32 only"
    np.testing.assert_array_equal(session.run(None, images())[0], jump_relu(images()["x"], 1.0))


def test_disabled_optimisation_is_respected() -> None:
    wanted = options(graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    session = InferenceSession(rewrite(convnet(), KAPPA)[0].SerializeToString(), wanted, CPU)
    assert session.retrofit.mode == "plain"
    assert session.retrofit.reason == "the session options disable optimisation"


def test_an_edited_retrofit_runs_the_plain_way() -> None:
    model = rewrite(convnet(), KAPPA, lowering="where")[0]
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = name.replace("Relu_1", "renamed")
        for index, name in enumerate(node.input):
            node.input[index] = name.replace("Relu_1", "renamed")
    session = InferenceSession(model.SerializeToString(), options(), CPU)
    assert session.retrofit.mode == "plain"
    assert "is not where the rewrite left it" in session.retrofit.reason


def test_a_failing_optimiser_leads_to_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.memfd_create", lambda *_: (_ for _ in ()).throw(OSError("no memory files")))
    session = InferenceSession(rewrite(convnet(), KAPPA)[0].SerializeToString(), options(), CPU)
    assert session.retrofit.mode == "plain"
    assert "no memory files" in session.retrofit.reason


def test_an_optimised_model_that_does_not_open_leads_to_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    real = opening.optimise

    def broken(*arguments: Any, **keywords: Any) -> Any:
        result = real(*arguments, **keywords)
        result.proto.graph.node[-1].op_type = "Nonsense"
        return result

    monkeypatch.setattr(opening, "optimise", broken)
    session = InferenceSession(rewrite(convnet(), KAPPA)[0].SerializeToString(), options(), CPU)
    assert session.retrofit.mode == "plain"
    assert "ONNX Runtime cannot open the optimised model" in session.retrofit.reason
    assert np.any(session.run(None, images())[0])

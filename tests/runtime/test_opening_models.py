"""Opening untrusted models: the reason of a failure, the class of the session, and where it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from jr_onnx.errors import InputError, ModelError, OpLibraryError
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime.running import open_model, quiet_options
from jr_onnx.runtime.session import InferenceSession


def model(op_type: str = "Relu", element: int = TensorProto.FLOAT) -> Any:
    values = [helper.make_tensor_value_info(name, element, ["N", 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(op_type, ["x"], ["y"])], "net", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_class_of_the_session_is_chosen() -> None:
    source = rewrite(model(), 0.5)[0].SerializeToString()
    plain, own = open_model(source, "net"), open_model(source, "net", retrofit="plain")
    assert type(plain) is onnxruntime.InferenceSession
    assert isinstance(own, InferenceSession)
    x = np.array([[0.4, 0.6, -1.0]], np.float32)
    for session in (plain, own):
        assert session.run(None, {"x": x})[0].tolist() == [[0.0, np.float32(0.6), 0.0]]


def test_a_model_that_does_not_open_is_named_with_the_reason(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=r"^ONNX Runtime cannot open net: .*NoSuchOperator") as caught:
        open_model(model("NoSuchOperator").SerializeToString(), "net")
    assert caught.value.__cause__ is not None
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_kernel_has_a_remedy() -> None:
    with pytest.raises(ModelError, match=r"NOT_IMPLEMENTED.*Export the model in float32"):
        open_model(model("Softplus", TensorProto.DOUBLE).SerializeToString(), "net", options=quiet_options())


def test_another_error_can_be_raised() -> None:
    with pytest.raises(OpLibraryError, match=r"^own words$"):
        open_model(b"nonsense", "net", failure=lambda _: OpLibraryError("own words"))


def test_a_session_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["CPUExecutionProvider"])
    providers = [("CPUExecutionProvider", {})]
    assert open_model(model().SerializeToString(), "net", providers=providers)
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["OtherExecutionProvider"])
    with pytest.raises(InputError, match=r"^net runs on OtherExecutionProvider, although CPUExecutionProvider was"):
        open_model(model().SerializeToString(), "net", providers=providers)
    assert open_model(model().SerializeToString(), "net", providers=providers, may_fall_back=True)


def test_optimisation_and_threads_are_options() -> None:
    options = quiet_options(threads=2, optimised=False)
    assert options.intra_op_num_threads == 2
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert quiet_options().graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL

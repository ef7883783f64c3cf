"""What clients and the log are told of errors."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from jr_onnx.errors import PrintableFormatter
from jr_onnx.serve import faults
from jr_onnx.serve.faults import BadRequestError, InternalError, detached, engine_message, reported


def _failure() -> Exception:
    """Return what ONNX Runtime says of a Reshape that cannot be done, in a node named like a path."""
    shape = numpy_helper.from_array(np.array([3, 7], np.int64), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], name="/body/Reshape.h:1")
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["A", "B"]),
    ]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    with pytest.raises(Fail) as failed:
        session.run(None, {"x": np.zeros(5, np.float32)})
    return failed.value


def test_the_engines_message_names_the_node_and_no_folder() -> None:
    message = engine_message(_failure())
    assert "Name:'/body/Reshape.h:1'" in message
    assert "Input shape:{5}, requested shape:{3,7}" in message
    assert " reshape_helper.h:" in message
    assert "onnxruntime/core" not in message


def test_an_error_that_is_kept_holds_no_frame_and_names_where_it_came_from() -> None:
    with pytest.raises(BadRequestError) as refused:
        raise BadRequestError("no") from ValueError("why")
    kept = detached(refused.value)
    assert kept is refused.value
    assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)
    with pytest.raises(KeyError) as failed:
        _ = {}["a"]
    internal = detached(failed.value)
    assert isinstance(internal, InternalError)
    assert internal.origin.startswith("KeyError: 'a' at ")
    assert "test_faults.py:" in internal.origin
    assert str(internal) == "internal error. See the server's log"
    assert reported(internal, "rest") is internal


def test_failures_are_logged_on_a_line_each_without_escapes_and_at_a_bounded_rate(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(faults.time, "monotonic", lambda: now)
    monkeypatch.setattr(faults, "_LINES_LEFT", faults._Lines())
    for number in range(50):
        reported(ValueError(f"{number}\n\x1b[2J"), "REST")
    assert len(caplog.records) == 20
    now += 1.0
    reported(KeyError("after a second"), "REST")
    assert len(caplog.records) == 21
    assert caplog.messages[-1].endswith(" (30 such lines were left out)")
    reported(KeyError("at once"), "REST")
    reported(BadRequestError("a client's fault"), "REST")
    assert len(caplog.records) == 21
    lines = [PrintableFormatter("%(message)s").format(record) for record in caplog.records]
    assert all(line.isprintable() and len(line) < 1100 for line in lines), lines
    assert all(record.levelno == logging.ERROR for record in caplog.records)

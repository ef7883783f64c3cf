"""The proof of a conversion finds a conversion that is wrong, and says what it cannot compare."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, version_converter

from jr_onnx.errors import MissingExtraError, RefusalError
from jr_onnx.modelfile import from_proto
from jr_onnx.verifier import prove_conversion
from jr_onnx.verifier.evaluators.legacy_operators import align
from tests.verifier.nets import network


def changed(edit: str) -> onnx.ModelProto:
    model = network()
    if edit == "weights":
        tensor = next(item for item in model.graph.initializer if len(item.dims) > 1)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.001), tensor.name))
    elif edit == "output":
        last = model.graph.node[-1]
        model.graph.output[0].name = last.output[0] = "renamed"
    else:
        model.graph.node[-1].op_type = "Gone"
    return model


def test_the_same_model_is_proved() -> None:
    assert "the largest difference 0 is rounding" in prove_conversion(from_proto(network()), from_proto(network()))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("weights", "computes something else: output"),
        ("output", "changed the outputs"),
        ("operator", "cannot be proved: ONNX Runtime cannot load the converted model"),
    ],
)
def test_a_wrong_conversion_is_refused(edit: str, said: str) -> None:
    with pytest.raises(RefusalError, match=said):
        prove_conversion(from_proto(network()), from_proto(changed(edit)))


def test_what_onnx_does_to_a_legacy_broadcast_is_found_out() -> None:
    """Its converter gives the second input three new axes, whatever `axis` says."""
    node = helper.make_node("Add", ["x", "b"], ["h"], broadcast=1, axis=1)
    graph = helper.make_graph(
        [node, helper.make_node("Relu", ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [3, 3, 2, 2])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray([1, 2, 3], np.float32), "b")],
    )
    graph.input.append(helper.make_tensor_value_info("b", 1, [3]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)], ir_version=3)
    with pytest.raises(RefusalError):
        prove_conversion(from_proto(model), from_proto(version_converter.convert_version(model, 7)))


def test_a_model_that_draws_is_not_compared() -> None:
    model = network()
    model.graph.node.append(helper.make_node("RandomNormalLike", [model.graph.output[0].name], ["noise"]))
    model.graph.output.append(helper.make_tensor_value_info("noise", 1, None))
    with pytest.raises(RefusalError, match="draws random numbers by itself"):
        prove_conversion(from_proto(model), from_proto(model))


def test_without_onnxruntime_the_reference_evaluator_proves(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise MissingExtraError("this needs the Python module 'onnxruntime', which is not installed")

    monkeypatch.setattr("jr_onnx.verifier.whole_model.conversion.OrtSession", missing)
    assert "because onnxruntime is not installed" in prove_conversion(from_proto(network()), from_proto(network()))
    with pytest.raises(RefusalError, match="computes something else"):
        prove_conversion(from_proto(network()), from_proto(changed("weights")))


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [((3,), 1, (3, 1, 1)), ((3, 4), 1, (3, 4, 1)), ((5,), 3, (5,)), ((4,), -2, (4, 1)), ((5,), None, (5,))],
)
def test_the_axis_of_an_old_broadcast_aligns(
    shape: tuple[int, ...], axis: int | None, expected: tuple[int, ...]
) -> None:
    """The examples of ONNX's operators.md for Add of opset 6, with a of shape (2, 3, 4, 5)."""
    a = np.zeros((2, 3, 4, 5))
    assert align(a, np.zeros(shape), broadcast=True, axis=axis).shape == expected

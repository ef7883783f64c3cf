"""Older operator forms and ONNX Runtime's own operators: value for value what ONNX Runtime computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.torchnet.harness import evaluate, to_tensor
from tests.torchnet.runtime_cases import CASES, Case

ort = pytest.importorskip("onnxruntime")

# Both sides sum at most a few hundred float32 products of order one in another order: the error of a sum of n terms
# is below n * 2**-24 * sum|terms|, and random signs make it far less. Transcendental functions differ by a few units.
_TOLERANCE = 2e-5


@pytest.mark.parametrize("case", CASES, ids=str)
def test_node_equals_onnx_runtime(case: Case) -> None:
    model = case.model()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    first = case.inputs[0]
    assert first is not None
    expected = session.run(None, {"i0": first})
    tensor = to_tensor(first, model.graph.input[0].type.tensor_type.elem_type)
    assert tensor is not None
    found = evaluate(model, {"i0": tensor})
    for mine, theirs in zip(found, expected, strict=True):
        assert tuple(mine.shape) == np.shape(theirs)
        reference = torch.from_numpy(np.array(theirs)).double().numpy()
        np.testing.assert_allclose(
            mine.double().numpy(), reference, rtol=_TOLERANCE, atol=max(_TOLERANCE, case.quantum)
        )


@pytest.mark.parametrize("case", [case for case in CASES if case.quantum], ids=str)
def test_few_quantised_values_are_a_step_off(case: Case) -> None:
    model = case.model()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    first = case.inputs[0]
    assert first is not None
    expected = session.run(None, {"i0": first})[0].astype(np.float64)
    tensor = to_tensor(first, model.graph.input[0].type.tensor_type.elem_type)
    assert tensor is not None
    found = evaluate(model, {"i0": tensor})[0].double().numpy()
    # Only a value within rounding of half a step may fall on either side: 1e-6 of the steps, so none in small data,
    # but one is granted.
    assert np.count_nonzero(found != expected) <= 1

"""`graph.jump_relu(x, kappa)`: a network built with onnx-graphsurgeon computes J."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from jr_onnx.errors import KappaError, RefusalError
from jr_onnx.semantics import jump_relu, round_kappa

gs = pytest.importorskip("onnx_graphsurgeon")
pytest.importorskip("jr_onnx.rewriter.surgeon")


def _built(opset: int, dtype: type[np.generic], kappa: float) -> onnx.ModelProto:
    graph = gs.Graph(opset=opset, inputs=[gs.Variable("x", dtype=dtype, shape=("N",))])
    graph.outputs = [graph.jump_relu(graph.inputs[0], kappa)]
    model = gs.export_onnx(graph)
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize(("opset", "dtype"), [(9, np.float32), (13, np.float32), (13, np.float64), (17, np.float16)])
def test_the_node_computes_j(opset: int, dtype: type[np.generic]) -> None:
    kappa = np.asarray(round_kappa(0.3, np.dtype(dtype).name), dtype)
    x = np.asarray([-1, 0, 0.1, np.nextafter(kappa, -kappa), kappa, np.nextafter(kappa, 2 * kappa), 7], dtype)
    found = ReferenceEvaluator(_built(opset, dtype, 0.3)).run(None, {"x": x})[0]
    assert np.array_equal(found, jump_relu(x, float(kappa)))
    assert found.dtype == x.dtype


def test_what_no_opset_can_write_is_refused() -> None:
    with pytest.raises(RefusalError, match="cannot be written for float32 at opset 8"):
        _built(8, np.float32, 0.3)
    with pytest.raises(KappaError):
        _built(13, np.float32, -0.3)

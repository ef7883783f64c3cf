"""The entrance for onnx-graphsurgeon: retrofit a Graph, or build one with `graph.jump_relu(x, kappa=0.06)`.

A round trip through onnx-graphsurgeon loses metadata and doc strings (its own behaviour), the provenance among them;
rewrite files or protos where that matters.
"""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs

from jr_onnx.errors import RefusalError
from jr_onnx.rewriter.lowering.thresholded import thresholded_allowed
from jr_onnx.rewriter.lowering.where import where_allowed
from jr_onnx.semantics import round_kappa


def to_model(graph: gs.Graph) -> onnx.ModelProto:
    """Return the model of a Graph.

    Raises:
        TypeError: It is not a Graph.
    """
    if not isinstance(graph, gs.Graph):
        raise TypeError(f"expected a path, a ModelProto or a graphsurgeon Graph, found {type(graph).__name__}")
    model: onnx.ModelProto = gs.export_onnx(graph)
    return model


def to_graph(model: onnx.ModelProto) -> gs.Graph:
    """Return a Graph of a model."""
    return gs.import_onnx(model)


@gs.Graph.register()  # type: ignore[untyped-decorator] # graphsurgeon has no type information
def jump_relu(self: gs.Graph, operand: gs.Tensor, kappa: float) -> gs.Tensor:
    """Append J(operand) to a graph and return its tensor, of the operand's dtype and shape.

    Written as ThresholdedRelu for float and float16 from opset 10 on, as Sub, Greater and Where from opset 9 on.

    Raises:
        KappaError: kappa is invalid or overflows the operand's dtype.
        RefusalError: The graph's opset has neither form for the operand's dtype.
    """
    import numpy as np

    dtype = np.dtype(operand.dtype).name if operand.dtype is not None else "float32"
    value = round_kappa(kappa, dtype)
    result = gs.Variable(f"{operand.name}_jump_relu", dtype=operand.dtype, shape=operand.shape)
    if dtype in ("float32", "float16") and thresholded_allowed(self.opset, dtype):
        self.layer(op="ThresholdedRelu", inputs=[operand], outputs=[result], attrs={"alpha": value})
        return result
    if not where_allowed(self.opset, dtype):
        raise RefusalError(f"JumpReLU cannot be written for {dtype} at opset {self.opset}", hint="Use opset 9 or newer")
    zero = np.zeros((), dtype=np.dtype(dtype))
    shifted = self.layer(
        op="Sub", inputs=[operand, np.asarray(value, dtype=np.dtype(dtype))], outputs=[f"{result.name}_shifted"]
    )[0]
    above = self.layer(op="Greater", inputs=[shifted, zero], outputs=[f"{result.name}_above"])[0]
    shifted.dtype, above.dtype = operand.dtype, np.dtype(bool)
    self.layer(op="Where", inputs=[above, operand, zero], outputs=[result])
    return result

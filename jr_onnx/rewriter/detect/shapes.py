"""The shapes of values as far as the model or ONNX's shape inference tells them; inferred once, and only if asked."""

from __future__ import annotations

from functools import cached_property

import onnx

from jr_onnx.rewriter.scopes import Scope, all_scopes

Dims = tuple[int | str | None, ...]


def shown(dims: Dims | None) -> str:
    """Return dimensions for people: `['N', 3, '?']`, or `unknown`."""
    return "unknown" if dims is None else str(["?" if extent is None else extent for extent in dims])


class Shapes:
    """Declared and inferred shapes of a model's values.

    Args:
        model: The model; large weights may be tokens.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._declared: dict[Scope, dict[str, Dims]] = {}

    def of(self, scope: Scope, name: str) -> Dims | None:
        """Return the dimensions of a value: numbers, symbols, None for those not known; None for an unknown rank."""
        if scope not in self._declared:
            self._declared[scope] = _shapes(scope.graph)
        declared = self._declared[scope].get(name)
        inferred = self._inferred.get((scope.path, name)) if declared is None or None in declared else None
        return inferred if inferred is not None else declared

    @cached_property
    def _inferred(self) -> dict[tuple[str, str], Dims]:
        try:
            model = onnx.shape_inference.infer_shapes(self._model, data_prop=True)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - onnx raises a dozen classes; without its answer the shapes are not known
            return {}
        found = {}
        for scope in all_scopes(model):
            found.update({(scope.path, name): dims for name, dims in _shapes(scope.graph).items()})
        return found


def _shapes(graph: onnx.GraphProto | None) -> dict[str, Dims]:
    found: dict[str, Dims] = {}
    if graph is None:
        return found
    for tensor in graph.initializer:
        found[tensor.name] = tuple(tensor.dims)
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            found[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
                for dim in value.type.tensor_type.shape.dim
            )
    return found

"""Read the thresholds of a jump that a model has itself, as the kappas that make J compute the same.

    z > t, z and t of one type           kappa = t
    z > t, z cast to a wider type        kappa = the largest number of z's type that is not above t
    z >= t                               kappa = the largest number of z's type below t
    behind a ReLU                        kappa = 0 where t is below 0

So J with kappa selects the same z, whichever number of its type z is. A kappa is neither negative nor infinite.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from jr_onnx.element_types import Array, numpy_dtype
from jr_onnx.errors import RefusalError
from jr_onnx.modelfile.wire import Payloads
from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter.constants import ConstantFinder, NotConstant
from jr_onnx.rewriter.detect.base import Threshold
from jr_onnx.rewriter.folding import fold
from jr_onnx.rewriter.scopes import Scope
from jr_onnx.rewriter.stored import NotStored, read_large
from jr_onnx.semantics import SiteKappa

MOST_THRESHOLDS = 1 << 24
_FAR = 8
_MOVING = {"Identity", "Cast", "CastLike", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}


class ThresholdReader:
    """Reads thresholds from a model.

    Args:
        constants: Finds definitions in it.
        payloads: What its tokens stand for.
    """

    def __init__(self, constants: ConstantFinder, payloads: Payloads) -> None:
        self.constants = constants
        self._payloads = payloads

    def kappas(self, threshold: Threshold, dtype: str) -> SiteKappa:
        """Return the kappa of a jump: one number if all its thresholds give the same.

        Args:
            threshold: Where they are.
            dtype: NumPy name of the site's element type.

        Raises:
            RefusalError: They cannot be read, or J has no such kappa; without the id of the site.
        """
        found = self.read(threshold.scope, threshold.name)
        if isinstance(found, str):
            raise RefusalError(f"its thresholds {threshold.name!r} cannot be read: {found}")
        if found.dtype.kind not in "fV" or threshold.count not in (1, found.size):
            raise RefusalError(f"its thresholds {threshold.name!r} are {found.size} values of type {found.dtype}")
        if not found.size:
            raise RefusalError(f"its thresholds {threshold.name!r} are an empty tensor")
        values = np.ravel(found).astype(np.float64)
        for problem, wrong in (("NaN", np.isnan(values)), ("infinite", np.isinf(values))):
            if wrong.any():
                raise RefusalError(f"{_counted(wrong)} of its thresholds {threshold.name!r} are {problem}")
        if threshold.clamped:
            values = np.maximum(values, 0.0)
        elif (values < 0).any():
            raise RefusalError(
                f"{_counted(values < 0)} of its thresholds {threshold.name!r} are below 0 (down to {values.min():g}), "
                "which lets negative values through; a JumpReLU does not"
            )
        kappas = _largest_below(values, dtype, strict=threshold.strict)
        if dtype == "float64" and (kappas.astype(np.float32).astype(np.float64) != kappas).any():
            raise RefusalError("its thresholds are doubles that no float32 is equal to; kappa is a float32 in ONNX")
        return float(kappas[0]) if (kappas == kappas[0]).all() else tuple(kappas.tolist())

    def read(self, scope: Scope, name: str, depth: int = 0) -> Array | str:
        """Return the array of a constant of any size, or why it is not known."""
        small = self.constants.value(scope, name)
        if not isinstance(small, NotConstant):
            return small
        found = self.constants.definition(scope, name)
        if isinstance(found, NotConstant) or depth > _FAR:
            return small.reason
        holder, item = found
        if item is None:
            return small.reason
        if isinstance(item, onnx.TensorProto):
            return self._stored(item)
        if item.op_type == "Constant" and not normal_domain(item.domain):
            tensor = next((one.t for one in item.attribute if one.name == "value"), None)
            return self._stored(tensor) if tensor is not None else small.reason
        if item.op_type not in _MOVING or normal_domain(item.domain):
            return (
                f"{item.op_type} computes them when the model runs, and the last bit of its result may differ between "
                "machines; fold constants first, as torch.onnx.export(..., dynamo=True) does"
            )
        arguments = []
        for source in item.input:
            argument = self.read(holder, source, depth + 1)
            if isinstance(argument, str):
                return argument
            arguments.append(argument)
        folded = arguments[0] if item.op_type == "Identity" else fold(item, holder.opset, arguments, MOST_THRESHOLDS)
        return small.reason if folded is None else folded

    def _stored(self, tensor: onnx.TensorProto) -> Array | str:
        found = read_large(tensor, self.constants.folder, self._payloads, MOST_THRESHOLDS)
        return f"{tensor.name!r} {found.reason}" if isinstance(found, NotStored) else found


def _counted(wrong: npt.NDArray[np.bool_]) -> str:
    return f"{int(wrong.sum())} of {wrong.size}"


def _largest_below(values: npt.NDArray[np.float64], dtype: str, *, strict: bool) -> npt.NDArray[np.float64]:
    """Return, for each value, the largest number of a type that is not above it; unless `strict`, that is below it.

    Args:
        values: Finite and not negative. 0 stays 0: J treats 0 and any threshold below it alike.
        dtype: NumPy name of the type.
        strict: Whether the comparison is z > threshold, so that the threshold itself is wanted; else z >= threshold.
    """
    kind = numpy_dtype(dtype)
    with np.errstate(over="ignore", under="ignore"):
        # By way of float32, as ml_dtypes rounds to bfloat16; rounding twice may end on either neighbour, never beyond.
        rounded = (values.astype(np.float32) if dtype == "bfloat16" else values).astype(kind)
    wide = rounded.astype(np.float64)
    above = (wide > values) if strict else (wide >= values)
    unsigned = np.dtype(f"u{kind.itemsize}")
    bits: Array = rounded.view(unsigned) - (above & (wide > 0)).astype(unsigned)
    kappas: npt.NDArray[np.float64] = bits.view(kind).astype(np.float64) + 0.0  # -0.0 becomes 0.0
    return kappas

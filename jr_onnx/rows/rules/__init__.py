"""What is known of each operator, one file per family. Importing this package fills the registry."""

from __future__ import annotations

from jr_onnx.rows.rules import (
    attention,
    classical,
    control,
    elementwise,
    linear,
    normalise,
    quantise,
    recurrent,
    select,
    shape,
    spatial,
)

__all__ = [
    "attention",
    "classical",
    "control",
    "elementwise",
    "linear",
    "normalise",
    "quantise",
    "recurrent",
    "select",
    "shape",
    "spatial",
]

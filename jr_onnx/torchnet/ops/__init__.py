"""The operators, by family; importing this package fills the table in `registry`."""

from jr_onnx.torchnet.ops import (
    activation,
    constant,
    conv,
    elementwise,
    index,
    linear,
    microsoft,
    norm,
    pool,
    quantize,
    random,
    reduce,
    resize,
    shape,
)

__all__ = [
    "activation",
    "constant",
    "conv",
    "elementwise",
    "index",
    "linear",
    "microsoft",
    "norm",
    "pool",
    "quantize",
    "random",
    "reduce",
    "resize",
    "shape",
]

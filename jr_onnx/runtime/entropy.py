"""Draw kappa from the operating system's entropy, and check a kappa that a caller feeds."""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt

from jr_onnx.errors import KappaError
from jr_onnx.kappa import RandomKappa
from jr_onnx.semantics import validate_kappa

_BITS = 53  # what a double holds of a number in [0, 1)


def draw(random: RandomKappa) -> npt.NDArray[np.float32]:
    """Draw kappa ~ U[low, high) as the scalar that a model's kappa input takes.

    The operating system's generator is asked again for every draw: earlier draws, which an attacker may infer from
    outputs, tell nothing about the next.
    """
    while True:
        unit = secrets.randbits(_BITS) / (1 << _BITS)
        value = np.float32(random.low + unit * (random.high - random.low))
        if value < random.high:  # rounding to float32 can reach the end that is excluded
            return np.asarray(value, dtype=np.float32)


def checked(value: object, name: str) -> npt.NDArray[np.float32]:
    """Return a kappa that a caller feeds as a float32 scalar.

    Raises:
        KappaError: It is not a single finite number >= 0 that float32 can hold.
    """
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiu":
        raise KappaError(
            f"input {name!r} is an array of shape {list(array.shape)} and type {array.dtype}, expected one number >= 0"
        )
    number = validate_kappa(array.reshape(()).item(), f"input {name!r}")
    if number > float(np.finfo(np.float32).max):
        raise KappaError(f"input {name!r} is {number}, more than float32 can hold")
    return np.asarray(number, dtype=np.float32)

"""Try whether a batch gives each row what it gets alone: a second check besides the proof.

A row is run alone and in a batch with another of a different size; the answers may differ by rounding alone. Where a
value happens to lie on a jump or at the edge of a quantisation step, rounding moves it across; so three draws are
made, and only rows that differ in all of them contradict. A trial can show that rows depend on each other, never that
they do not: a dependence may need other inputs to show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from jr_onnx.element_types import Array

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]

_DRAWS: Final = 3
_IMAGE_RANK: Final = 4
_IMAGE_SIDE: Final = 224
_OTHER_SIZE: Final = 8
_LARGEST: Final = 1 << 24  # elements; a larger input is not tried out

_TOLERANCE: Final = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-9}
"""Part of an output's size, that of its largest finite entry. Kernels add in another order for another batch: sums of
n terms differ by about sqrt(n) roundings, 2e-6 of the size for float32 at n = 1000, some tens of layers deep. Rows that
see each other differ by far more, because the second row is three times as large as the first."""


@dataclass(frozen=True, slots=True)
class TrialInput:
    """An input that is drawn for the trial.

    Attributes:
        name: Its name.
        dims: Its sizes, the batch first, -1 where open.
        dtype: NumPy's element type; object for strings.
    """

    name: str
    dims: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row with its batch axis; open sizes of an image are 224, all others 8."""
        is_image = len(self.dims) == _IMAGE_RANK
        sizes = [
            size if size > 0 else (_IMAGE_SIDE if is_image and axis > 1 else _OTHER_SIZE)
            for axis, size in enumerate(self.dims)
        ]
        return (1, *sizes[1:])

    @property
    def is_too_large(self) -> bool:
        """Whether a row is larger than what is drawn for a trial."""
        return int(np.prod(self.row_shape, dtype=object)) > _LARGEST

    @property
    def row_bytes(self) -> int:
        """Size of one row in bytes; of strings, of the references to them."""
        return int(np.prod(self.row_shape, dtype=object)) * self.dtype.itemsize

    def draw(self, generator: np.random.Generator, size: float = 1.0) -> Array:
        """Draw one row: normal numbers of the given size, or 0 and 1 for integers."""
        if self.dtype.kind == "O":
            return np.full(self.row_shape, "a", dtype=object)
        if self.dtype.kind == "f":
            return (size * generator.standard_normal(self.row_shape)).astype(self.dtype)
        return generator.integers(0, 2, self.row_shape).astype(self.dtype)


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What the trial says.

    Attributes:
        ran: It could be run.
        reason: What it found against joining, or why it could not be run; empty where batch and rows agree.
    """

    ran: bool
    reason: str = ""

    @property
    def contradicts(self) -> bool:
        """Whether rows were seen to depend on each other."""
        return self.ran and bool(self.reason)


def try_rows(run: Run, inputs: Iterable[TrialInput]) -> TrialResult:
    """Run two rows alone and together.

    Args:
        run: Computes the outputs of a feed.
        inputs: What to feed.
    """
    wanted = list(inputs)
    if any(item.is_too_large for item in wanted):
        return TrialResult(ran=False, reason="its inputs are too large")
    generator = np.random.default_rng(0)
    reason = ""
    for _ in range(_DRAWS):
        first = {item.name: item.draw(generator) for item in wanted}
        second = {item.name: item.draw(generator, 3.0) for item in wanted}
        try:
            together = run({name: np.concatenate([first[name], second[name]]) for name in first})
            apart = [run(first), run(second)]
        except Exception:  # noqa: BLE001 - whatever the model does with these inputs, it tells that they do not fit
            return TrialResult(ran=False, reason="it cannot be run on drawn inputs")
        reason = _difference(together, apart)
        if not reason:
            return TrialResult(ran=True)
    return TrialResult(ran=True, reason=reason)


def _difference(together: Mapping[str, Array], apart: Sequence[Mapping[str, Array]]) -> str:
    for name, joined in together.items():
        alone = [answer[name] for answer in apart]
        if any(array.shape[:1] != (1,) for array in alone) or joined.shape[:1] != (2,):
            return f"output {name!r} has not one row for each row of the inputs"
        both = np.concatenate(alone)
        if joined.shape != both.shape:
            return f"output {name!r} has another shape in a batch"
        if not all(close(joined[row : row + 1], both[row : row + 1]) for row in range(len(both))):
            return f"output {name!r} of a row depends on the other rows of its batch"
    return ""


def close(one: Array, other: Array) -> bool:
    """Whether two answers differ by rounding alone: finite entries within the tolerance, all others the same."""
    if other.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    finite = np.isfinite(other)
    if not np.array_equal(finite, np.isfinite(one)) or not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return False
    mine, theirs = one[finite].astype(np.float64), other[finite].astype(np.float64)
    size = float(np.max(np.abs(theirs), initial=0.0))
    tolerance = _TOLERANCE.get(other.dtype.name, 0.0) * size
    return bool(np.all(np.abs(mine - theirs) <= tolerance))

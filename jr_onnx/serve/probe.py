"""May requests to this model be joined, and does it pay? Tried out when it is loaded.

May they: does a batch give each row what it gets alone?

A model whose rows see each other (a reduction over the batch, a scale taken from all of it, a random operator) must
not be batched, whatever its shapes say. A row is run alone and in a batch with another of a different size; the
answers may differ by rounding alone. Where a row happens to lie on a jump, rounding moves it across; so three draws
are made, and one that agrees is proof enough, because rows that see each other never agree.

Does it pay: a layer that reads large weights reads them once for a batch; a convolution whose image fits into the
cache is slower when a batch of them does not. So batches are timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np

from jr_onnx.serve.tensors import Array, TensorSpec

_DRAWS: Final = 3
_IMAGE_RANK: Final = 4
_IMAGE_SIDE: Final = 224
_OTHER_SIZE: Final = 8
_LARGEST: Final = 1 << 24  # elements; a larger input is not tried out

_TRIAL_SECONDS: Final = 1.0  # of timing batches, in all
_TIMED_RUNS: Final = 3
_WORTH: Final = 0.95  # a larger batch must cost less than this part of the best so far, row by row

_TOLERANCE: Final = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-9}
"""Part of an output's size. Kernels add in another order for another batch: sums of n terms differ by about
sqrt(n) roundings, 2e-6 of the size for float32 at n = 1000, some tens of layers deep. Rows that see each other differ
by far more, because the second row is three times as large as the first."""


def rows_are_independent(run: Callable[[Mapping[str, Array]], dict[str, Array]], specs: Iterable[TensorSpec]) -> str:
    """Try whether a batch gives each row what it gets alone, and return why not, "" where it does."""
    inputs = list(specs)
    shapes = {spec.name: _row_shape(spec) for spec in inputs}
    if any(int(np.prod(shape)) > _LARGEST for shape in shapes.values()):
        return "its inputs are too large to try it"
    generator = np.random.default_rng(0)
    reason = ""
    for _ in range(_DRAWS):
        first = {spec.name: _row(spec, shapes[spec.name], generator, 1.0) for spec in inputs}
        second = {spec.name: _row(spec, shapes[spec.name], generator, 3.0) for spec in inputs}
        try:
            together = run({name: np.concatenate([first[name], second[name]]) for name in first})
            apart = [run(first), run(second)]
        except Exception:  # noqa: BLE001 - whatever the model does with these inputs, it tells that they do not fit
            return "it cannot be run on drawn inputs to try it"
        reason = _difference(together, apart)
        if not reason:
            return ""
    return reason


def best_rows(
    run: Callable[[Mapping[str, Array]], dict[str, Array]],
    specs: Iterable[TensorSpec],
    most: int,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Return the size of the batch that costs the least per row, among the powers of 2 up to `most`, and `most`.

    Sizes that would take too long to try are left out; the larger one is chosen only where it is clearly better.
    """
    inputs = list(specs)
    generator = np.random.default_rng(0)
    row = {spec.name: _row(spec, _row_shape(spec), generator, 1.0) for spec in inputs}
    best, best_cost, last_cost = 1, float("inf"), 0.0
    left = _TRIAL_SECONDS
    for size in sorted({*(1 << power for power in range(most.bit_length())), most}):
        if size * last_cost * _TIMED_RUNS > left:
            break
        feed = {name: np.repeat(array, size, axis=0) for name, array in row.items()}
        times = [_timed(run, feed, clock) for _ in range(_TIMED_RUNS)]
        left -= sum(times)
        last_cost = min(times) / size
        if last_cost < _WORTH * best_cost:
            best, best_cost = size, last_cost
    return best


def _timed(
    run: Callable[[Mapping[str, Array]], dict[str, Array]], feed: Mapping[str, Array], clock: Callable[[], float]
) -> float:
    started = clock()
    run(feed)
    return clock() - started


def _difference(together: Mapping[str, Array], apart: list[dict[str, Array]]) -> str:
    for name, joined in together.items():
        alone = [answer[name] for answer in apart]
        if any(array.shape[:1] != (1,) for array in alone) or joined.shape[:1] != (2,):
            return f"output {name!r} has not one row for each row of the inputs"
        both = np.concatenate(alone)
        if joined.shape != both.shape:
            return f"output {name!r} has another shape in a batch"
        if not _close(joined, both):
            return f"output {name!r} of a row depends on the other rows of its batch"
    return ""


def _close(joined: Array, both: Array) -> bool:
    if joined.dtype.kind != "f":
        return bool(np.array_equal(joined, both))
    for one, other in zip(joined, both, strict=True):
        scale = float(np.max(np.abs(other), initial=0.0))
        tolerance = _TOLERANCE.get(other.dtype.name, 0.0) * scale
        if not np.allclose(one, other, rtol=0.0, atol=tolerance, equal_nan=True):
            return False
    return True


def _row_shape(spec: TensorSpec) -> tuple[int, ...]:
    dims = spec.dims or ()
    is_image = len(dims) == _IMAGE_RANK
    sizes = [
        size if size > 0 else (_IMAGE_SIDE if is_image and axis > 1 else _OTHER_SIZE) for axis, size in enumerate(dims)
    ]
    return (1, *sizes[1:])


def _row(spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator, scale: float) -> Array:
    if spec.is_bytes:
        return np.full(shape, "a", dtype=object)
    if spec.dtype.kind == "f":
        return (scale * generator.standard_normal(shape)).astype(spec.dtype)
    return generator.integers(0, 2, shape).astype(spec.dtype)

"""Inputs for whole-model runs: random ones that fit the model's inputs, or real images.

Random floats alternate between a standard normal and U[0, 1): pixels, normalised pixels and features. Bytes take their
whole range, other integers 0 to 9 (indices and counts are small), booleans both values. A dynamic axis is the batch
size if it comes first or is named like one, else the first of a few usual sizes with which the *original* runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx

from jr_onnx.data import ModelInput, required_inputs
from jr_onnx.element_types import NUMBERS, Array, numpy_dtype
from jr_onnx.errors import DataError, InputError
from jr_onnx.verifier.evaluators.errors import CannotRunError

Sample = dict[str, Array]
GivenInputs = Mapping[str, Array] | Sequence[Mapping[str, Array]]
"""Inputs that the caller brings: of one run, or of several."""

_BATCH_NAMES = ("batch", "batch_size", "n", "bs", "none", "unk__")
_FREE_SIZES: Final = (64, 32, 224, 128, 512, 16, 8, 1)
_LARGEST_INDEX = 9
_RANK_UNKNOWN: Final = 4
_MOST_ELEMENTS: Final = 1 << 31  # of one input: 16 GiB while random values are drawn in float64


class InputsError(InputError):
    """The original does not run on the inputs, so nothing can be said about the retrofit."""

    exit_code = 8


@dataclass(frozen=True)
class InputOptions:
    """What the caller says about inputs.

    Attributes:
        shapes: Input name -> whole shape.
        values: Input name -> one value for all elements.
        batch: Size used for dynamic batch axes.
        data: Name of a data set, see `jr_onnx.data`; None for random inputs.
        preprocessing: Preset or description for `data`.
        seed: Random seed.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    batch: int = 1
    data: str | None = None
    preprocessing: str = "none"
    seed: int = 0


@dataclass(frozen=True)
class Inputs:
    """Samples and where they came from."""

    samples: list[Sample]
    description: str


def _tensor_inputs(model: onnx.ModelProto, skip: Sequence[str] = ()) -> list[ModelInput]:
    """Return the inputs that have to be fed.

    Raises:
        InputsError: An input is not a tensor.
    """
    found = [item for item in required_inputs(model) if item.name not in skip]
    names = {item.name for item in found}
    for value in model.graph.input:
        if value.name in names and not value.type.HasField("tensor_type"):
            raise InputsError(
                f"the input {value.name!r} is not a tensor, so no random value can be made for it",
                hint="Use the Python function jr_onnx.verify with inputs=",
            )
    return found


def make_inputs(
    model: onnx.ModelProto,
    count: int,
    options: InputOptions,
    try_out: Callable[[Sample], None],
    skip: Sequence[str] = (),
) -> Inputs:
    """Return samples on which the original runs.

    Args:
        model: The original.
        count: How many samples.
        options: What the caller says.
        try_out: Runs the original on a sample; raises CannotRunError.
        skip: Inputs that are fed otherwise.

    Raises:
        InputsError: The original does not run on any inputs that were tried.
        DataError: The data does not fit the model.
        InputError: The options name an input that does not exist.
    """
    inputs = _tensor_inputs(model, skip)
    _check_names(inputs, options)
    if options.data is not None:
        return _real(inputs, count, options)
    reason = ""
    for free in _FREE_SIZES:
        generator = np.random.default_rng(options.seed)
        samples = [_random_sample(inputs, options, free, number, generator) for number in range(count)]
        try:
            try_out(samples[0])
        except CannotRunError as error:
            reason = reason or error.message
            if not _has_free_axis(inputs, options):
                break
        else:
            return Inputs(samples, f"random, seed {options.seed}")
    raise InputsError(f"the original does not run on random inputs: {reason}", hint="Give --data, --shape or --value")


def given_inputs(inputs: GivenInputs, most: int | None = None) -> Inputs:
    """Return the caller's inputs as samples.

    Args:
        inputs: One mapping of input names to arrays, or several.
        most: How many to take at most.

    Raises:
        InputError: There is none.
    """
    given = [inputs] if isinstance(inputs, Mapping) else list(inputs)
    if not given:
        raise InputError("the list of inputs is empty, expected one mapping of input names to arrays or more")
    return Inputs([dict(sample) for sample in given[:most]], "given")


def _check_names(inputs: Sequence[ModelInput], options: InputOptions) -> None:
    names = {item.name for item in inputs}
    for option, given in (("--shape", options.shapes), ("--value", options.values)):
        for name in given:
            if name not in names:
                raise InputError(
                    f"{option} names the input {name!r}, the model has {', '.join(sorted(names)) or 'no inputs'}"
                )
    if options.batch < 1:
        raise InputError(f"found the batch size {options.batch}, expected 1 or more")


def _has_free_axis(inputs: Sequence[ModelInput], options: InputOptions) -> bool:
    return any(
        item.name not in options.shapes and (item.shape is None or any(not isinstance(dim, int) for dim in item.shape))
        for item in inputs
    )


def _random_sample(
    inputs: Sequence[ModelInput], options: InputOptions, free: int, number: int, generator: np.random.Generator
) -> Sample:
    sizes: dict[str, int] = {}
    sample = {}
    for item in inputs:
        shape = options.shapes.get(item.name)
        if shape is None:
            shape = _shape(item, options.batch, free, sizes)
        if math.prod(shape) > _MOST_ELEMENTS:
            size = " x ".join(map(str, shape))
            raise InputsError(
                f"the input {item.name!r} has {size} elements, expected at most {_MOST_ELEMENTS}",
                hint="Give --shape",
            )
        if item.name in options.values:
            sample[item.name] = np.full(shape, options.values[item.name]).astype(_dtype(item))
        else:
            sample[item.name] = _random(item, shape, number, generator)
    return sample


def _shape(item: ModelInput, batch: int, free: int, sizes: dict[str, int]) -> tuple[int, ...]:
    if item.shape is None:
        return (batch, *[free] * (_RANK_UNKNOWN - 1))
    shape = []
    for axis, dim in enumerate(item.shape):
        if isinstance(dim, int):
            shape.append(dim)
            continue
        name = (dim or "").lower()
        is_batch = (axis == 0 and len(item.shape) > 1) or name.startswith(_BATCH_NAMES[:2]) or name in _BATCH_NAMES
        # An axis without a name in the middle of a state tensor is the batch as a rule.
        is_batch = is_batch or (not name and axis < len(item.shape) - 1)
        size = batch if is_batch else free
        shape.append(sizes.setdefault(name, size) if name else size)
    return tuple(shape)


def _dtype(item: ModelInput) -> np.dtype[np.generic]:
    if item.dtype not in NUMBERS:
        raise InputsError(f"the input {item.name!r} takes {item.dtype}, for which no values can be made")
    return numpy_dtype(item.dtype)


def _random(item: ModelInput, shape: tuple[int, ...], number: int, generator: np.random.Generator) -> Array:
    if item.dtype == "string":
        raise InputsError(f"the input {item.name!r} takes strings, random ones mean nothing", hint="Give --data")
    dtype = _dtype(item)
    if item.dtype in ("float16", "bfloat16", "float32", "float64"):
        drawn = generator.standard_normal(shape) if number % 2 == 0 else generator.random(shape)
        return np.asarray(drawn).astype(dtype)
    if dtype.kind == "b":
        # A lone condition is true: a loop that never runs shows nothing.
        return np.asarray(True) if shape == () else generator.random(shape) < 0.5
    if dtype.kind in "iu":
        narrow = dtype.itemsize == 1
        info = np.iinfo(item.dtype)
        low, high = (info.min, info.max) if narrow else (1 if shape == () else 0, _LARGEST_INDEX)
        return np.asarray(generator.integers(low, high, shape, endpoint=True)).astype(dtype)
    raise InputsError(f"the input {item.name!r} takes {item.dtype}, for which no values can be made")


def _real(inputs: Sequence[ModelInput], count: int, options: InputOptions) -> Inputs:
    """Return samples made of real images; the model has one image input."""
    from jr_onnx.data import FurtherInputs, InputAdapter, Preprocessing, load

    known = [ModelInput(item.name, item.dtype, options.shapes.get(item.name, item.shape)) for item in inputs]
    further = FurtherInputs(known, options.values)
    target = further.image
    wanted = target.shape[0] if target.shape and isinstance(target.shape[0], int) else options.batch
    batch = max(1, int(wanted or 1))
    chosen = Preprocessing.parse(options.preprocessing)
    images = load(options.data or "", split="test", limit=count * batch, preprocessing=chosen)
    adapter = InputAdapter(target, images.shape, images.restored(chosen))
    samples: list[Sample] = []
    for start in range(0, len(images) - batch + 1, batch):
        pixels = images.take(np.arange(start, start + batch)).images
        samples.append({target.name: adapter.to_model(pixels), **further.feed(batch)})
    if not samples:
        raise DataError(f"{images.name} holds {len(images)} images, the model takes {batch} at a time")
    return Inputs(samples, images.name)


def batch_of_images(model: onnx.ModelProto, options: InputOptions, count: int = 32) -> Array | None:
    """Return real images as one batch for the model's image input; None if no data was asked for.

    Raises:
        DataError: The data does not fit the model.
    """
    if options.data is None:
        return None
    samples = _real(_tensor_inputs(model), count, options).samples
    name = next(name for name in samples[0] if name not in options.values)
    return np.concatenate([sample[name] for sample in samples])

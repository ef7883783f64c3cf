"""Find out by trial what a file does not tell: where the logits are, and which batch sizes the graph can run."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from jr_onnx.errors import ModelError
from jr_onnx.torchnet.building import Builder, Compiled
from jr_onnx.torchnet.dtypes import FLOATS, name_of
from jr_onnx.torchnet.program import OpStep, Program, Values

LogitsFrom = Literal["pre_softmax", "output"]

_SPATIAL_GUESSES = (32, 28, 64, 224, 299, 8)
_PASSED_ON = ("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast")
_SOFTMAXES = ("Softmax", "LogSoftmax")
_MATRIX = 2


@dataclass(frozen=True)
class Findings:
    """What was found out.

    Attributes:
        compiled: The compilation to use; its result are the logits.
        softmax: Softmax or LogSoftmax where the logits are what goes into it, else "".
        num_classes: How many logits there are.
        static_batch: The only batch size the graph can run with, None where any will do.
        mappable: Whether several such batches can be run at once by `torch.vmap`.
        differentiable: Whether a gradient path leads from the logits to the input.
        notes: What a reader of results should know.
    """

    compiled: Compiled
    softmax: str
    num_classes: int
    static_batch: int | None
    mappable: bool
    differentiable: bool
    notes: tuple[str, ...]


def explore(builder: Builder, name: str, logits_from: LogitsFrom) -> Findings:
    """Compile an output, choose the logits and the batch mode.

    Raises:
        UnsupportedOpsError: Operators that cannot be evaluated.
        ModelError: The graph cannot be evaluated, or the output holds no logits.
    """
    notes: list[str] = []
    compiled = builder.compile(name)
    inputs, values = _first_run(builder, compiled)
    batch = inputs[0].shape[0]
    softmax = _final_softmax(compiled.program)
    if softmax is not None and logits_from == "output":
        notes.append(f"the output {name!r} is a softmax, whose gradients vanish where the model is sure")
        softmax = None
    if softmax is not None and _same_matrix(values[softmax.inputs[0]], values[compiled.result], batch):
        notes.append(f"logits are taken before the final softmax of {name!r}")
        compiled = compiled.ending_at(softmax.inputs[0])
    else:
        softmax = None
    logits: Tensor = values[compiled.result]
    if not _matrix(logits, batch):
        raise ModelError(
            f"the output {name!r} has the shape {list(logits.shape)} for {batch} sample(s), expected "
            "(samples, classes)",
            hint="Choose another output (--output NAME, in Python output=NAME)",
        )
    classes, differentiable, reference = logits.numel() // batch, logits.requires_grad, logits.detach()
    del values, logits
    compiled, static_batch = _batch_mode(builder, compiled, name, softmax is not None, inputs, reference)
    mappable = static_batch is not None and _mappable(compiled, inputs, reference)
    if static_batch is not None:
        how = "mapped over pieces of that size" if mappable else "cut into pieces of that size, one after the other"
        notes.append(f"the graph only runs with batches of {static_batch}; others are {how}")
    if builder.entry.element_type not in FLOATS:
        kind = name_of(builder.entry.element_type)
        notes.append(f"the input is of type {kind}; it is evaluated on floating values, so that there is a gradient")
    if not differentiable:
        notes.append("no gradient leads from the logits to the input (it is rounded or used as an index)")
    return Findings(
        compiled, softmax.op_type if softmax else "", classes, static_batch, mappable, differentiable, tuple(notes)
    )


def _first_run(builder: Builder, compiled: Compiled) -> tuple[tuple[Tensor, Tensor], Values]:
    """Return two inputs of the declared batch size, and all values for the first of them, with gradients.

    Free axes other than the batch are guessed so that the graph runs.
    """
    shape = builder.entry.shape
    generator = torch.Generator().manual_seed(0)
    last: ModelError | None = None
    for guess in _SPATIAL_GUESSES:
        sizes = [shape[0] or 1, *(guess if size is None else size for size in shape[1:])]
        pair = torch.rand((2, *sizes), generator=generator, dtype=torch.float64).to(compiled.dtype)
        try:
            with torch.enable_grad():
                return (pair[0], pair[1]), compiled.trial(pair[0].clone().requires_grad_())
        except ModelError as error:
            last = error
        if None not in shape[1:]:
            break
    raise last if last is not None else ModelError("the model has no input")


def _matrix(result: Tensor, batch: int) -> bool:
    """Tell whether a result is (batch, classes), axes of length one aside."""
    return (
        result.is_floating_point()
        and result.dim() >= _MATRIX
        and result.shape[0] == batch
        and sum(size > 1 for size in result.shape[1:]) <= 1
    )


def _same_matrix(before: Tensor, after: Tensor, batch: int) -> bool:
    return _matrix(before, batch) and before.numel() == after.numel()


def _final_softmax(program: Program) -> OpStep | None:
    """Return the softmax that the result comes from, None where there is none."""
    producers = {place: step for step in program.steps for place in step.outputs}
    place = program.results[0]
    while True:
        step = producers.get(place)
        if not isinstance(step, OpStep):
            return None
        if step.op_type in _SOFTMAXES:
            return step
        if step.op_type not in _PASSED_ON:
            return None
        place = step.inputs[0]


def _batch_mode(
    builder: Builder,
    compiled: Compiled,
    name: str,
    before_softmax: bool,
    inputs: tuple[Tensor, Tensor],
    first: Tensor,
) -> tuple[Compiled, int | None]:
    """Find out whether the graph treats a batch as its samples, if need be with its constants rewritten.

    Args:
        builder: Compiles again.
        compiled: The compilation as the file stands.
        name: The output.
        before_softmax: Whether the logits are what goes into the output's softmax.
        inputs: Two inputs of the declared batch size.
        first: The logits of the first.

    Returns:
        The compilation to use, and the only batch size it can run with, None where any will do.
    """
    second = _logits(compiled, inputs[1])
    if second is None:
        return compiled, inputs[0].shape[0]
    expected = torch.cat([first, second])
    if _same(_logits(compiled, torch.cat(inputs)), expected):
        return compiled, None
    size = inputs[0].shape[0]
    rewritten = builder.compile(name, size)
    softmax = _final_softmax(rewritten.program) if before_softmax else None
    if softmax is not None:
        rewritten = rewritten.ending_at(softmax.inputs[0])
    if _same(_logits(rewritten, torch.cat(inputs)), expected):
        return rewritten, None
    return compiled, size


def _mappable(compiled: Compiled, inputs: tuple[Tensor, Tensor], first: Tensor) -> bool:
    """Tell whether `torch.vmap` runs the graph, forward and backward, with the same result."""
    pair = torch.stack(inputs).requires_grad_()
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("error")  # torch warns where it would fall back to a slow loop
            mapped: Tensor = torch.vmap(lambda x: compiled.trial(x)[compiled.result])(pair)
            if mapped.requires_grad:
                torch.autograd.grad(mapped.sum(), pair)
    except (ModelError, RuntimeError, UserWarning):
        return False
    second = _logits(compiled, inputs[1])
    return second is not None and _same(mapped.detach(), torch.stack([first, second]))


def _logits(compiled: Compiled, x: Tensor) -> Tensor | None:
    """Return the result of one run, None where the graph does not run with this batch."""
    try:
        with torch.no_grad():
            result: Tensor = compiled.trial(x)[compiled.result]
    except ModelError:
        return None
    return result


def _same(found: Tensor | None, expected: Tensor) -> bool:
    """Tell whether two runs agree but for rounding.

    The order of summation may depend on the batch size; over the whole network that costs less than half of the
    digits, while samples that see each other (or a wrong reshape) change the leading ones.
    """
    if found is None or found.shape != expected.shape:
        return False
    limits = torch.finfo(expected.dtype)
    finite = expected[torch.isfinite(expected)]
    scale = finite.abs().max().item() if finite.numel() else 0.0
    tolerance = math.sqrt(limits.eps) * max(scale, limits.tiny)
    return bool(torch.allclose(found, expected, rtol=0.0, atol=tolerance, equal_nan=True))

"""Determine by trial what a file does not state: where the logits are, and which batch sizes the graph can run."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from jr_onnx.element_types import type_name
from jr_onnx.errors import ModelError
from jr_onnx.torchnet.building import Builder, Compiled
from jr_onnx.torchnet.dtypes import FLOATS
from jr_onnx.torchnet.program import DrawStep, Program, Values, draws
from jr_onnx.torchnet.tails import Tail, find_tail, is_matrix

LogitsFrom = Literal["pre_softmax", "output"]

_SPATIAL_GUESSES = (32, 28, 64, 224, 299, 8)
_SOFTMAXES = ("Softmax", "LogSoftmax")
_SQUASHING = (*_SOFTMAXES, "Sigmoid", "Tanh")


@dataclass(frozen=True)
class ProbingResult:
    """What was found out.

    Attributes:
        compiled: The compilation to use; its result are the logits.
        tail: Where the logits are, and the operators behind them.
        single: Whether the model gives one score, which is that of class 1 against class 0.
        num_classes: How many classes there are.
        static_batch: The only batch size the graph can run with, None where any will do.
        mappable: Whether several such batches can be run at once by `torch.vmap`.
        draws_apart: Whether the model draws random numbers, and different ones for every sample of a batch.
        differentiable: Whether a gradient path leads from the logits to the input.
        notes: What a reader of results should know.
    """

    compiled: Compiled
    tail: Tail
    single: bool
    num_classes: int
    static_batch: int | None
    mappable: bool
    draws_apart: bool
    differentiable: bool
    notes: tuple[str, ...]


def explore(builder: Builder, name: str, logits_from: LogitsFrom) -> ProbingResult:
    """Compile an output, choose the logits and the batch mode.

    Raises:
        UnsupportedOpsError: Operators that cannot be evaluated.
        ModelError: The graph cannot be evaluated, or the output holds no logits.
    """
    notes: list[str] = []
    compiled = builder.compile(name)
    inputs, values = _first_run(builder, compiled)
    batch = inputs[0].shape[0]
    scores: Tensor = values[compiled.result]
    if not is_matrix(scores, batch):
        raise ModelError(
            f"the output {name!r} has the shape {list(scores.shape)} for {batch} sample(s), expected "
            "(samples, classes)",
            hint="Name the value that holds the logits (--logits NAME, in Python output=NAME)",
        )
    tail = find_tail(compiled, values, batch)
    if tail.ops and logits_from == "output":
        if any(op in _SQUASHING for op in tail.ops):
            last = next(op for op in reversed(tail.ops) if op in _SQUASHING)
            notes.append(f"the output {name!r} comes from a {last}, whose gradients vanish where the model is sure")
        tail = Tail(compiled.result)
    elif tail.ops:
        notes.append(f"logits are taken before the final {_listed(tail.ops)} of {name!r}")
    else:
        tail = Tail(
            compiled.result
        )  # nothing is gained before what only moves elements, and the batch may lie elsewhere
    if tail.place != compiled.result:
        compiled = compiled.ending_at(tail.place)
    logits: Tensor = values[compiled.result]
    columns, differentiable, reference = logits.numel() // batch, logits.requires_grad, logits.detach()
    del values, scores, logits
    drawn = _needed_draws(compiled)
    compiled, static_batch = _batch_mode(builder, compiled, name, logits_from, inputs, reference)
    mappable = static_batch is not None and not drawn and _mappable(compiled, inputs, reference)
    apart = bool(drawn) and static_batch is None and _apart(compiled, _needed_draws(compiled), inputs)
    if drawn:
        listed = ", ".join(f"{step.name}: {step.op_type}" for step in drawn)
        notes.append(f"the model draws random numbers in every run ({listed})")
    if static_batch is not None:
        how = "mapped over pieces of that size" if mappable else "cut into pieces of that size, one after the other"
        notes.append(f"the graph only runs with batches of {static_batch}; others are {how}")
    if builder.entry.element_type not in FLOATS:
        kind = type_name(builder.entry.element_type)
        notes.append(f"the input is of type {kind}; it is evaluated on floating values, so that there is a gradient")
    if not differentiable:
        notes.append("no gradient leads from the logits to the input (it is rounded or used as an index)")
    return ProbingResult(
        compiled, tail, columns == 1, max(2, columns), static_batch, mappable, apart, differentiable, tuple(notes)
    )


def _apart(compiled: Compiled, drawn: list[DrawStep], inputs: tuple[Tensor, Tensor]) -> bool:
    """Return whether all that is drawn has a row per sample."""
    values, batch = compiled.trial(torch.cat(inputs)), 2 * inputs[0].shape[0]
    found = [values[step.outputs[0]] for step in drawn]
    return all(value.dim() > 0 and value.shape[0] == batch for value in found)


def _needed_draws(compiled: Compiled) -> list[DrawStep]:
    """Return the draws that the result depends on."""
    program = Program(list(compiled.program.steps), compiled.program.results)
    needed = set(program.results)
    for step in reversed(program.steps):
        if step.writes() & needed:
            needed |= step.reads()
    return [step for step in draws(program) if step.writes() & needed]


def logits_places(builder: Builder, compiled: Compiled) -> list[int]:
    """Return for every result of a compilation the place of the logits that it comes from.

    Raises:
        ModelError: The graph cannot be evaluated.
    """
    inputs, values = _first_run(builder, compiled)
    results = [compiled.ending_at(place) for place in compiled.program.results]
    return [find_tail(one, values, inputs[0].shape[0]).place for one in results]


def _listed(ops: tuple[str, ...]) -> str:
    """Return "softmax", or "Mul, softmax and Mul", in the order of the graph."""
    words = ["softmax" if op == "Softmax" else op for op in ops]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _first_run(builder: Builder, compiled: Compiled) -> tuple[tuple[Tensor, Tensor], Values]:
    """Return two inputs of the declared batch size, and all values for the first of them, with gradients.

    Dynamic axes other than the batch are guessed so that the graph runs.
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


def _batch_mode(
    builder: Builder,
    compiled: Compiled,
    name: str,
    logits_from: LogitsFrom,
    inputs: tuple[Tensor, Tensor],
    first: Tensor,
) -> tuple[Compiled, int | None]:
    """Find out whether the graph treats a batch as its samples, if need be with its constants rewritten.

    Args:
        builder: Compiles again.
        compiled: The compilation as the file stands.
        name: The output.
        logits_from: Whether to look for logits before the output.
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
    rewritten = builder.compile(name, lead=size)
    if logits_from != "output":
        try:
            rewritten = rewritten.ending_at(find_tail(rewritten, rewritten.trial(inputs[0]), size).place)
        except ModelError:
            return compiled, size
    if _same(_logits(rewritten, torch.cat(inputs)), expected):
        return rewritten, None
    return compiled, size


def _mappable(compiled: Compiled, inputs: tuple[Tensor, Tensor], first: Tensor) -> bool:
    """Return whether `torch.vmap` runs the graph, forward and backward, with the same result."""
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
    """Return whether two runs agree up to rounding.

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

"""What runs at a forward pass: a flat list of steps over a list of values.

A step knows the places of its inputs and outputs in the list, and which values are not needed after it. Steps hold no
weights and no site states: those come with the list and the context, so that several modules share one program.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from jr_onnx.errors import KappaError, ModelError
from jr_onnx.semantics import SiteKappa
from jr_onnx.torchnet.draw import Draw
from jr_onnx.torchnet.jump import LearnedKappa, SiteBackward, jump
from jr_onnx.torchnet.registry import Attribute, Function

_FRESH = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "Add", "Sub"})
"""Operators whose result is neither a view of another tensor nor needed by their own derivative."""

Values = list[Tensor]
ABSENT = torch.empty(0)
"""Stands where a value was not computed yet, or was released; no step reads it."""
Observer = Callable[[str, Tensor, Tensor], None]
"""Called with a site's id, its input and its output."""


@dataclass(slots=True)
class Context:
    """What a pass needs besides the values.

    Attributes:
        device: Where the data lives.
        kappas: The kappa of every site in this pass, by the site's number.
        backwards: How the derivative of every site is taken, by the site's number.
        ids: The id of every site, by its number.
        observer: Called at every site, or None.
        mapped: The pass is mapped over pieces, where a tensor does not show whether it needs a gradient.
        draw: Where random numbers come from.
    """

    device: torch.device
    kappas: Sequence[SiteKappa | LearnedKappa]
    backwards: Sequence[SiteBackward]
    ids: Sequence[str]
    observer: Observer | None = None
    mapped: bool = False
    draw: Draw = field(default_factory=Draw)


@dataclass(slots=True)
class Step:
    """Base of the steps.

    Attributes:
        name: The node's name, for messages.
        op_type: The node's operator.
        inputs: Places of the inputs, -1 for an absent one.
        outputs: Places of the outputs, -1 for an unused one.
        release: Places that are not read after this step.
    """

    name: str
    op_type: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    release: tuple[int, ...] = ()

    def run(self, values: Values, context: Context) -> None:
        """Read the inputs, write the outputs, drop what is released."""
        raise NotImplementedError

    def reads(self) -> set[int]:
        """Return every place this step reads, sub-programs included."""
        return {place for place in self.inputs if place >= 0}

    def writes(self) -> set[int]:
        """Return every place this step writes, sub-programs included."""
        return {place for place in self.outputs if place >= 0}


@dataclass(slots=True)
class OpStep(Step):
    """One operator.

    Attributes:
        function: Computes the outputs.
        domain: The operator's domain, "" for the standard one.
        opset: Version of that domain.
        attributes: The node's attributes.
    """

    function: Function = lambda *_: ()
    domain: str = ""
    opset: int = 0
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def number(self, name: str, default: float) -> float:
        """Return an attribute that is a number, or the default."""
        found: Any = self.attributes.get(name, default)
        return float(found)

    def run(self, values: Values, context: Context) -> None:
        """See `Step.run`."""
        del context
        result = self.function(*[values[place] if place >= 0 else None for place in self.inputs])
        for place, item in zip(self.outputs, (result,) if isinstance(result, Tensor) else result, strict=False):
            if place >= 0:
                values[place] = item
        for place in self.release:
            values[place] = ABSENT


@dataclass(slots=True)
class DrawStep(Step):
    """One operator that draws random numbers.

    Attributes:
        drawing: Computes the outputs, from the pass's `Draw` and the inputs.
    """

    drawing: Function = lambda *_: ()

    def run(self, values: Values, context: Context) -> None:
        """See `Step.run`."""
        result = self.drawing(context.draw, *[values[place] if place >= 0 else None for place in self.inputs])
        results = (result,) if isinstance(result, Tensor) else result
        for place, item in zip(self.outputs, results, strict=False):
            if place >= 0:
                values[place] = item.to(context.device)
        for place in self.release:
            values[place] = ABSENT


@dataclass(slots=True)
class SiteStep(Step):
    """One site: an optional linear part (of a fused node), then the jump.

    Attributes:
        site: The site's number.
        cap: Its upper bound, or None.
        linear: What comes before the jump.
        overwrite: The input is a tensor that no other step reads.
    """

    site: int = 0
    cap: float | None = None
    linear: Function | None = None
    overwrite: bool = False

    def run(self, values: Values, context: Context) -> None:
        """See `Step.run`."""
        if self.linear is None:
            z = values[self.inputs[0]]
        else:
            found = self.linear(*[values[place] if place >= 0 else None for place in self.inputs])
            z = found if isinstance(found, Tensor) else found[0]
        # An observer must see z itself.
        overwrite = self.overwrite and context.observer is None and not context.mapped
        kappa, backward = context.kappas[self.site], context.backwards[self.site]
        try:
            result = jump(z, kappa, self.cap, backward, overwrite=overwrite)
        except KappaError as error:
            raise KappaError(f"site {context.ids[self.site]!r}: {error.message}", hint=error.hint) from None
        if context.observer is not None:
            context.observer(context.ids[self.site], z, result)
        values[self.outputs[0]] = result
        for place in self.release:
            values[place] = ABSENT


@dataclass(slots=True)
class MoveStep(Step):
    """Bring a value that was computed on the host to the data's device."""

    def run(self, values: Values, context: Context) -> None:
        """See `Step.run`."""
        values[self.outputs[0]] = values[self.inputs[0]].to(context.device)
        for place in self.release:
            values[place] = ABSENT


@dataclass(slots=True)
class BranchStep(Step):
    """An If: run one of two sub-programs, then take its results."""

    branches: tuple[Program, Program] = field(default_factory=lambda: (Program(), Program()))

    def run(self, values: Values, context: Context) -> None:
        """See `Step.run`."""
        chosen = self.branches[0] if bool(values[self.inputs[0]].reshape(()).item()) else self.branches[1]
        execute(chosen.steps, values, context)
        for place, source in zip(self.outputs, chosen.results, strict=True):
            values[place] = values[source]
        for place in self.release:
            values[place] = ABSENT

    def reads(self) -> set[int]:
        """See `Step.reads`."""
        found = {self.inputs[0]}
        for branch in self.branches:
            found.update(branch.results)
            for step in branch.steps:
                found.update(step.reads())
        return found

    def writes(self) -> set[int]:
        """See `Step.writes`."""
        found = set(self.outputs)
        for branch in self.branches:
            for step in branch.steps:
                found.update(step.writes())
        return found


@dataclass(slots=True)
class Program:
    """Steps, and where their results lie."""

    steps: list[Step] = field(default_factory=list)
    results: tuple[int, ...] = ()


def execute(steps: Sequence[Step], values: Values, context: Context) -> None:
    """Run steps in order.

    Raises:
        ModelError: A step fails, for instance because the input's shape does not suit the model.
    """
    step = None
    try:
        for step in steps:
            step.run(values, context)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        if step is None or isinstance(error, torch.OutOfMemoryError) or "memory" in str(error).lower():
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"the node {step.name!r} ({step.op_type}) cannot be evaluated: {reason}") from error


def draws(program: Program) -> list[DrawStep]:
    """Return the steps that draw random numbers, those of branches included."""
    found = []
    for step in program.steps:
        if isinstance(step, DrawStep):
            found.append(step)
        elif isinstance(step, BranchStep):
            for branch in step.branches:
                found += draws(branch)
    return found


def prune(program: Program) -> None:
    """Drop steps whose outputs are not needed, and note where each value is read last."""
    _prune(program, None)


def mark_overwritable(program: Program) -> None:
    """Note at which sites of the main program the input may become the result."""
    makers = {place: step for step in program.steps for place in step.writes()}
    readers = Counter(place for step in program.steps for place in step.reads())
    for step in program.steps:
        if not isinstance(step, SiteStep) or step.linear is not None:
            continue
        place = step.inputs[0]
        maker = makers.get(place)
        alone = readers[place] == 1 and place not in program.results
        step.overwrite = alone and isinstance(maker, OpStep) and maker.op_type in _FRESH


def _prune(program: Program, own: set[int] | None) -> None:
    """Prune a program; a branch may only drop values it made itself (`own`), since the rest may be read after it."""
    needed = set(program.results)
    kept: list[Step] = []
    for step in reversed(program.steps):
        if step.writes() & needed:
            needed |= step.reads()
            kept.append(step)
            if isinstance(step, BranchStep):
                for branch in step.branches:
                    _prune(branch, set().union(*(inner.writes() for inner in branch.steps)))
    program.steps = kept[::-1]
    later = set(program.results)
    for step in reversed(program.steps):
        touched = step.reads() | step.writes()
        step.release = tuple(sorted(place for place in touched - later if own is None or place in own))
        later |= step.reads()

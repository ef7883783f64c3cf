"""Run models on all samples, and hold what the comparisons need of the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from jr_onnx.verifier.compare import Value, largest_difference
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError, LackingError
from jr_onnx.verifier.evaluators.ort import Feeds, Level, OrtSession, Runnable
from jr_onnx.verifier.inputs import Sample
from jr_onnx.verifier.report import Check, Failure
from jr_onnx.verifier.subject import Subject
from jr_onnx.verifier.whole_model.steps import StepEffects
from jr_onnx.verifier.whole_model.tolerance import Bound, nudge, rounding_bound, unit_roundoff

Outputs = Sequence[Sequence[Value]]
"""Sample -> output -> value."""


@dataclass
class CheckLog:
    """What has been compared so far."""

    checks: list[Check] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_loaded: str = ""
    broken: bool = False

    def add(self, check: Check, *failures: Failure) -> None:
        """Enter one comparison and its disagreements."""
        self.checks.append(check)
        self.failures.extend(failures)

    def not_loading(self, error: CannotLoadError) -> None:
        """Enter that ONNX Runtime does not load the original or the retrofit."""
        self.not_loaded = error.message
        self.broken = not isinstance(error, LackingError)

    def not_run(self, what: str, compared: str, reason: str) -> None:
        """Enter a comparison that could not be made."""
        self.checks.append(Check(what, compared, 0, 0.0, None, 0, "not run", reason))


@dataclass(frozen=True)
class Case:
    """Everything a whole-model comparison needs.

    Attributes:
        subject: What is verified.
        original: The original as a runnable model.
        samples: The inputs.
        names: The original's outputs, in order.
        plain: The original's outputs with optimisation off.
        optimised: With optimisation on; None if ONNX Runtime cannot optimise it.
        nudged: With optimisation off, on inputs moved by one rounding.
        library: Whether the op library is there.
        log: Where results are entered.
        seed: Seed of random numbers.
        steps: What quantisation steps do to the retrofit's outputs; false where it has none.
    """

    subject: Subject
    original: Runnable
    samples: list[Sample]
    names: list[str]
    plain: Outputs
    optimised: Outputs | None
    nudged: Outputs
    library: bool
    log: CheckLog
    seed: int
    steps: StepEffects

    @property
    def sees_float16(self) -> bool:
        """Whether a site is float16, which ONNX Runtime's CPU provider computes in float32.

        It casts around every node and then drops pairs of casts, even with optimisation off: between two nodes
        a value keeps its float32 bits, unless it is an output or a kernel takes float16. At some opsets it
        replaces a Relu without a kernel by its function body, whose Max runs in float32 where a lowering is rounded.
        """
        return any(site.dtype == "float16" for site in self.subject.record.sites)

    @property
    def working(self) -> str:
        """The coarsest type of a site."""
        return max((site.dtype for site in self.subject.record.sites), key=unit_roundoff)

    def bounds(self, *more: tuple[Outputs, Outputs]) -> list[Bound]:
        """Return the rounding bound of every output, from the original at both settings and on nudged inputs.

        Args:
            more: Further pairs of evaluations that differ by rounding alone.
        """
        pairs = [(self.plain, self.nudged), *more]
        if self.optimised is not None:
            pairs.append((self.plain, self.optimised))
        found = []
        for index in range(len(self.names)):
            controls = [
                (one[index], other[index]) for left, right in pairs for one, other in zip(left, right, strict=True)
            ]
            found.append(rounding_bound(controls, working=self.working))
        return found


def run_all(model: Runnable, level: Level, samples: Sequence[Feeds], outputs: Sequence[str] | None = None) -> Outputs:
    """Return the outputs of a model for all samples.

    Raises:
        CannotLoadError: ONNX Runtime cannot load the model.
        CannotRunError: It fails on a sample.
    """
    session = OrtSession(model, level)
    return [session.run(sample, outputs) for sample in samples]


def output_names(model: onnx.ModelProto) -> list[str]:
    """Return the names of a model's outputs."""
    return [value.name for value in model.graph.output]


def nudged_samples(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Return the samples with every float moved by one rounding."""
    generator = np.random.default_rng(seed)
    return [{name: nudge(value, generator) for name, value in sample.items()} for sample in samples]


def evaluate_original(original: Runnable, samples: list[Sample], seed: int) -> tuple[Outputs, Outputs | None, Outputs]:
    """Return the original's outputs plain, optimised (None if that fails) and on nudged inputs.

    Raises:
        CannotLoadError: ONNX Runtime cannot load it with optimisation off.
        CannotRunError: It fails on a sample.
    """
    session = OrtSession(original, "plain")
    plain = [session.run(sample) for sample in samples]
    nudged = [session.run(sample) for sample in nudged_samples(samples, seed)]
    del session
    optimised: Outputs | None
    try:
        optimised = run_all(original, "optimised", samples)
    except (CannotLoadError, CannotRunError):
        optimised = None
    return plain, optimised, nudged


def is_deterministic(original: Runnable, sample: Sample) -> bool:
    """Tell whether a second run gives the same values; a model that draws random numbers does not.

    Both are of one session: every new session of a process draws the same numbers again.
    """
    session = OrtSession(original, "plain")
    first, second = (session.run(sample) for _ in range(2))
    return all(largest_difference(one, other) == 0 for one, other in zip(first, second, strict=True))

"""Run a suite on both models, unit by unit: attack, replay through the served file, save.

A unit is one entry on one model and one block of consecutive samples. Random numbers are keyed by seed and sample, so
results depend neither on the batch size nor on which shard, or which run after an interruption, did the unit.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from jr_onnx.attack.base import GradientAttack
from jr_onnx.attack.judging import DECISION_DRAWS
from jr_onnx.attack.result import AttackResult
from jr_onnx.attack.suite.contender import Contender
from jr_onnx.attack.suite.crafted import judged
from jr_onnx.attack.suite.pace import Cost, Pace, expected_passes
from jr_onnx.attack.suite.plan import Entry
from jr_onnx.attack.target import Target
from jr_onnx.errors import InputError, RefusalError
from jr_onnx.evaluation.outcome import JsonLeaf, Outcome
from jr_onnx.evaluation.store import Store, unit_name

BLOCK = 100
"""Samples in a unit: small enough to lose little in an interruption, large enough for a full batch."""


@dataclass(frozen=True)
class Shard:
    """Which part of the blocks to do: the number-th of `of`, counted from 1."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "K/N".

        Raises:
            InputError: It is no such pair with 1 <= K <= N.
        """
        first, slash, second = text.partition("/")
        if slash and first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second):
            return cls(int(first), int(second))
        raise InputError(f"the shard is {text!r}, expected K/N with 1 <= K <= N, for instance 1/4")

    def takes(self, block: int) -> bool:
        """Return whether a block, counted from 0, belongs to this shard."""
        return block % self.of == self.number - 1


@dataclass(frozen=True)
class EvaluationJob:
    """Everything a run needs.

    Attributes:
        entries: The suite.
        contenders: The models, the original first.
        images: Pixels (N, C, H, W) float32 in [0, 1].
        labels: Classes (N,).
        batch: Samples in memory at once.
        shard: Which blocks to do.
        keep: Whether to save adversarial examples.
        block: Samples in a unit.
    """

    entries: Sequence[Entry]
    contenders: Sequence[Contender]
    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    batch: int = 256
    shard: Shard = Shard()
    keep: bool = False
    block: int = BLOCK


@dataclass(frozen=True)
class Progress:
    """How far a run is: before anything is done, and after each unit.

    Attributes:
        done: Units that are done, those of earlier runs included.
        total: All units.
        resumed: Units that earlier runs did.
        unit: The last one, "" before anything is done.
        left_s: Seconds that the rest takes, None while nothing is known.
    """

    done: int
    total: int
    resumed: int
    unit: str
    left_s: float | None = None


def run(work: EvaluationJob, store: Store, notify: Callable[[Progress], None] = lambda _: None) -> None:
    """Do all units that are not done yet.

    Args:
        work: What to do.
        store: Where results go; `store.open` has been called.
        notify: Called once before, and after every unit that is done here.
    """
    units = list(_units(work))
    names = [unit_name(contender.label, entry.name, start) for contender, entry, start in units]
    left = [place for place, name in enumerate(names) if not store.has(name)]
    resumed, block, runner = len(units) - len(left), -1, Runner(work, range(0))
    costs = _costs(work, units, left)
    pace = Pace(list(costs.values()))
    notify(Progress(resumed, len(units), resumed, ""))
    for done, place in enumerate(left, resumed + 1):
        contender, entry, start = units[place]
        began = time.monotonic()
        if not store.has(names[place]):  # another shard may have come to it in between
            if block != start:  # nothing is remembered beyond a block: memory stays bounded
                block, runner = start, Runner(work, range(start, min(start + work.block, len(work.labels))))
            outcome, adversarials = runner.outcome(contender, entry)
            store.put(names[place], outcome, adversarials if work.keep else None)
        pace.finished(costs[place], time.monotonic() - began)
        notify(Progress(done, len(units), resumed, names[place], pace.left_s))


def _costs(work: EvaluationJob, units: Sequence[tuple[Contender, Entry, int]], left: Sequence[int]) -> dict[int, Cost]:
    """Return what each of the units that are left is expected to cost; a twin of one before it costs nothing."""
    costs, seen = {}, set()
    for place in left:
        contender, entry, start = units[place]
        twin = _twin(contender, entry)
        passes = 0.0 if twin is not None and (twin, start) in seen else expected_passes(entry.attack)
        seen.add((twin, start))
        samples = min(work.block, len(work.labels) - start)
        costs[place] = Cost(f"{contender.label}/{entry.name}", samples, passes)
    return costs


def _units(work: EvaluationJob) -> Iterator[tuple[Contender, Entry, int]]:
    starts = range(0, len(work.labels), work.block)
    for block, start in enumerate(starts):
        if work.shard.takes(block):
            for entry in work.entries:
                for contender in work.contenders:
                    yield contender, entry, start


class Runner:
    """Attacks some samples, and computes nothing twice that must come out the same."""

    def __init__(self, work: EvaluationJob, indices: Sequence[int]) -> None:
        """Attack the samples of these global indices; a gray box needs consecutive ones."""
        self.work = work
        self.indices = np.asarray(indices, dtype=np.int64)
        self.images, self.labels = work.images[self.indices], work.labels[self.indices]
        self._clean: dict[str, npt.NDArray[np.bool_]] = {}
        keys = (_twin(contender, entry) for entry in work.entries for contender in work.contenders)
        self._uses = Counter(key for key in keys if key is not None)
        self._found: dict[str, AttackResult] = {}

    def outcome(self, contender: Contender, entry: Entry) -> tuple[Outcome, npt.NDArray[np.float32]]:
        """Attack, and replay the adversarial examples on the served file."""
        if contender.label not in self._clean:
            self._clean[contender.label] = ~contender.served.misclassifies(self.images, self.labels)
        result = self._attack(contender, entry)
        # Under paper units a pixel may leave [0, 1] (one range for all channels); the served file is asked the same.
        adversarials = result.adversarials.numpy().astype(np.float32)
        served = contender.served.misclassifies(adversarials, self.labels)
        return _outcome(contender, entry, result, self.labels, self._clean[contender.label], served), adversarials

    def _attack(self, contender: Contender, entry: Entry) -> AttackResult:
        if entry.view == "black_box":
            return self._run(entry, contender.served.target(), None)
        if contender.target is None:
            raise RefusalError(
                f"{entry.name} needs gradients, and the {contender.label} model cannot be evaluated in torch",
                hint="Use --black-box",
            )
        target = contender.target.in_units(entry.units)
        found = contender.source(entry.source_kappa, entry.source_jump)
        source = found.in_units(entry.units) if found is not None and found is not contender.target else None
        if contender.is_plain and contender.plain_source(entry.source_kappa, entry.source_jump):
            source = None  # it is the attacked network itself: one forward pass serves the verdict and the gradient
        if source is None or not entry.crafted_elsewhere:
            return self._shared(contender, entry, target, source)
        crafted = self._shared(contender, entry, source, None)
        return judged(crafted, target, self.images, self.labels, norm=entry.attack.norm, batch_size=self.work.batch)

    def _shared(self, contender: Contender, entry: Entry, target: Target, source: Target | None) -> AttackResult:
        key = _twin(contender, entry)
        if key is None:
            return self._run(entry, target, source)
        found = self._found.pop(key, None) or self._run(entry, target, source)
        self._uses[key] -= 1
        if self._uses[key] > 0:
            self._found[key] = found
        return found

    def _run(self, entry: Entry, target: Target, source: Target | None) -> AttackResult:
        return entry.attack.run(
            target, self.images, self.labels, source=source, indices=self.indices, batch_size=self.work.batch
        )


def _twin(contender: Contender, entry: Entry) -> str | None:
    """Name what an entry is equivalent to on a network without jumps, where all backward passes are that of ReLU.

    Entries of one name share one computation; their results are equal by construction. None where an entry has to be
    computed for itself.
    """
    if contender.target is None or entry.view == "black_box":
        return None
    if not (contender.is_plain or entry.crafted_elsewhere):
        return None
    if not contender.plain_source(entry.source_kappa, entry.source_jump):
        return None
    attack = entry.attack
    plain = replace(attack, backward="exact") if isinstance(attack, GradientAttack) else attack
    return f"{plain!r} in {entry.units} units on {contender.weights}"


def _outcome(
    contender: Contender,
    entry: Entry,
    result: AttackResult,
    labels: npt.NDArray[np.int64],
    served_correct: npt.NDArray[np.bool_],
    served_success: npt.NDArray[np.bool_],
) -> Outcome:
    norm = entry.attack.norm
    random = contender.target.is_random if contender.target is not None else contender.served.random
    return Outcome(
        model=contender.label,
        entry=entry.name,
        view=entry.view,
        threat=entry.threat,
        protocol=entry.protocol,
        norm=norm,
        eps=entry.eps,
        spec=spec_of(entry),
        draws=entry.attack.draws if random else 1,
        decided_by=DECISION_DRAWS if random else 1,
        indices=tuple(int(index) for index in result.indices),
        labels=tuple(int(label) for label in labels),
        correct=_booleans(result.correct.numpy()),
        success=_booleans(result.success.numpy()),
        served_correct=_booleans(served_correct),
        served_success=_booleans(served_success),
        distance=tuple(float(value) for value in result.distances[norm]),
        relative=tuple(float(value) for value in result.relative[norm]),
        iterations=_integers(result.iterations.numpy()),
        forward=_integers(result.forward.numpy()),
        backward=_integers(result.backward.numpy()),
        nonfinite=_integers(result.nonfinite.numpy()),
        zero_gradient=_integers(result.zero_gradient.numpy()),
    )


def spec_of(entry: Entry) -> dict[str, JsonLeaf]:
    """Return an entry's attack and how it is used, ready for JSON."""
    found = entry.attack.spec()
    found["units"] = entry.units
    if entry.source_kappa is not None:
        found["source_kappa_multiple"] = entry.source_kappa
    if entry.source_jump is not None:
        found["source_kappa"] = entry.source_jump
    return found


def _booleans(values: npt.NDArray[np.bool_]) -> tuple[bool, ...]:
    return tuple(bool(value) for value in values)


def _integers(values: npt.NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)

"""What one attack did to one model, sample by sample: the record that everything after the attack works on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from jr_onnx.errors import InputError
from jr_onnx.records import Record

View = Literal["exact", "surrogate", "transfer", "black_box"]
Threat = Literal["white_box", "gray_box", "transfer", "black_box"]
Protocol = Literal["paper", "adaptive"]
JsonLeaf = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Outcome(Record):
    """One attack on one model; one item per sample in every tuple, ordered by global index.

    Attributes:
        model: Which model was attacked, "original" or "retrofit" as a rule.
        entry: Name of the attack within its suite; the same for every model.
        view: Where the attack's knowledge of the model came from: its exact gradient, a surrogate backward pass,
            another network, or its outputs alone.
        threat: Threat model of the entry.
        protocol: "paper" for the authors' own protocol, which does not adapt to the defence.
        norm: linf, l2 or l1.
        eps: Budget in the units of the attack; None for an attack that minimises the perturbation.
        spec: Name and parameters of the attack.
        draws: Draws of a random model that each gradient averages; 1 for a fixed model.
        decided_by: Evaluations that decided about each success.
        indices: Global indices of the samples.
        labels: True classes.
        correct: Classified correctly before the attack, by the attacked model.
        success: Misclassified after it; true, at distance 0, where the clean image already was.
        served_correct: Classified correctly before the attack, by the served file in ONNX Runtime.
        served_success: The adversarial example, run again through the served file, is misclassified.
        distance: Size of the perturbation in `norm`.
        relative: That size over the size of the clean image (paper, eq. 12).
        iterations: Steps taken.
        forward: Forward passes.
        backward: Backward passes.
        nonfinite: Events with a NaN or an infinity.
        zero_gradient: Steps whose gradient was zero everywhere.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.attack_outcome/1"
    model: str
    entry: str
    view: View
    threat: Threat
    protocol: Protocol
    norm: str
    eps: float | None
    spec: dict[str, JsonLeaf]
    draws: int
    decided_by: int
    indices: tuple[int, ...]
    labels: tuple[int, ...]
    correct: tuple[bool, ...]
    success: tuple[bool, ...]
    served_correct: tuple[bool, ...]
    served_success: tuple[bool, ...]
    distance: tuple[float, ...]
    relative: tuple[float, ...]
    iterations: tuple[int, ...]
    forward: tuple[int, ...]
    backward: tuple[int, ...]
    nonfinite: tuple[int, ...]
    zero_gradient: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse columns of different lengths and repeated samples."""
        lengths = {name: len(getattr(self, name)) for name in COLUMNS}
        if len(set(lengths.values())) > 1:
            raise InputError(f"outcome {self.entry}: the columns differ in length: {lengths}")
        if len(set(self.indices)) != len(self.indices):
            raise InputError(f"outcome {self.entry}: a sample index appears twice")
        for name in ("indices", *_COUNTED):
            odd = next((value for value in getattr(self, name) if not 0 <= value <= _LARGEST), None)
            if odd is not None:
                raise InputError(f"outcome {self.entry}: {name} holds {odd}, expected 0 to {_LARGEST}")

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def attacked(self) -> npt.NDArray[np.bool_]:
        """Samples (N,) that were classified correctly and so were attacked at all."""
        return np.asarray(self.correct, dtype=bool)

    @property
    def fooled(self) -> npt.NDArray[np.bool_]:
        """Attacked samples (N,) on which the attack succeeded."""
        result: npt.NDArray[np.bool_] = self.attacked & np.asarray(self.success, dtype=bool)
        return result

    @property
    def served_robust(self) -> npt.NDArray[np.bool_]:
        """Samples (N,) that the served file classifies correctly, and still does after the attack."""
        before = np.asarray(self.served_correct, dtype=bool)
        result: npt.NDArray[np.bool_] = before & ~np.asarray(self.served_success, dtype=bool)
        return result

    def robust_within(self, eps: float | None) -> npt.NDArray[np.bool_]:
        """Return `served_robust` at a budget: a minimal attack counts only where its perturbation fits into it."""
        if self.eps is not None or eps is None:
            return self.served_robust
        result: npt.NDArray[np.bool_] = np.asarray(self.served_correct, dtype=bool) & ~(self.served_minimal <= eps)
        return result

    @property
    def disagreements(self) -> int:
        """Samples that the attacked torch model and the served file judge differently, before or after the attack."""
        before = np.asarray(self.correct, dtype=bool) != np.asarray(self.served_correct, dtype=bool)
        after = np.asarray(self.success, dtype=bool) != np.asarray(self.served_success, dtype=bool)
        return int(np.sum(before | after))

    @property
    def minimal(self) -> npt.NDArray[np.float64]:
        """Perturbation sizes (N,), infinity where the attack failed."""
        return np.where(np.asarray(self.success, dtype=bool), np.asarray(self.distance, dtype=np.float64), math.inf)

    @property
    def served_minimal(self) -> npt.NDArray[np.float64]:
        """Perturbation sizes (N,), infinity where the served file was not fooled."""
        fooled = np.asarray(self.served_success, dtype=bool)
        return np.where(fooled, np.asarray(self.distance, dtype=np.float64), math.inf)


Outcomes = Mapping[str, Mapping[str, Outcome]]
"""Of a run: model label -> entry -> outcome."""

_LARGEST = 2**62  # NumPy sums 64-bit integers
_COUNTED = ("iterations", "forward", "backward", "nonfinite", "zero_gradient")
COLUMNS = (
    "indices",
    "labels",
    "correct",
    "success",
    "served_correct",
    "served_success",
    "distance",
    "relative",
    "iterations",
    "forward",
    "backward",
    "nonfinite",
    "zero_gradient",
)


def merge(parts: Iterable[Outcome]) -> Outcome:
    """Put the outcomes of one entry on disjoint samples together, ordered by sample index.

    Raises:
        InputError: There is none, the parts are of different entries, or a sample is in two of them.
    """
    found = list(parts)
    if not found:
        raise InputError("there is no outcome to merge")
    heads = [{key: value for key, value in part.to_json().items() if key not in COLUMNS} for part in found]
    for head in heads[1:]:
        different = [key for key in head if head[key] != heads[0][key]]
        if different:
            raise InputError(
                f"outcomes of {found[0].entry} cannot be merged: {different[0]} is {heads[0][different[0]]!r} "
                f"and {head[different[0]]!r}"
            )
    indices = [index for part in found for index in part.indices]
    order = sorted(range(len(indices)), key=indices.__getitem__)
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        values = [value for part in found for value in getattr(part, name)]
        columns[name] = tuple(values[position] for position in order)
    return replace(found[0], **columns)


def select(outcome: Outcome, indices: AbstractSet[int]) -> Outcome:
    """Return the outcome of the samples with these global indices."""
    rows = [row for row, index in enumerate(outcome.indices) if index in indices]
    if len(rows) == len(outcome):
        return outcome
    columns: dict[str, Any] = {name: tuple(getattr(outcome, name)[row] for row in rows) for name in COLUMNS}
    return replace(outcome, **columns)


def common(outcomes: Sequence[Outcome]) -> None:
    """Check that outcomes speak of the same samples in the same order.

    Raises:
        InputError: They do not, so that a paired comparison is impossible.
    """
    for outcome in outcomes[1:]:
        if outcome.indices != outcomes[0].indices:
            raise InputError(
                f"{outcome.entry} and {outcomes[0].entry} were run on different samples, so they cannot be paired",
                hint="Merge all shards of the same run",
            )

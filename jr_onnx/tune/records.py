"""What tuning found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jr_onnx.records import Record
from jr_onnx.semantics import SiteKappa


@dataclass(frozen=True, slots=True)
class TunePoint(Record):
    """One setting of kappa on the validation split.

    Attributes:
        kappa: For all sites; None where the sites differ.
        kappas: Site id -> kappa, or one for each channel.
        clean: Clean accuracy.
        drop: Clean accuracy at kappa 0 minus `clean`.
        objective: Mean over the samples.
        gain: `objective` minus that at kappa 0, with a 95 % paired bootstrap interval.
        low: Lower end.
        high: Upper end.
        p_value: One-sided sign test that it is more than at kappa 0, on the same samples.
        allowed: Whether the drop is within the limit.
        name: Of the map that was given with these kappas, or "".
    """

    SCHEMA: ClassVar[str] = "jr_onnx.tune_point/1"
    kappa: float | None
    kappas: dict[str, SiteKappa]
    clean: float
    drop: float
    objective: float
    gain: float
    low: float
    high: float
    p_value: float
    allowed: bool
    name: str = ""

    @property
    def label(self) -> str:
        """Its kappa, the name of its map, or "per site"."""
        return f"{self.kappa:g}" if self.kappa is not None else self.name or "per site"

    @property
    def description(self) -> str:
        """The same as words of a sentence."""
        if self.kappa is not None:
            return f"kappa {self.kappa:g}"
        return f"the kappas of {self.name}" if self.name else "a kappa per site"


@dataclass(frozen=True, slots=True)
class TuneResult(Record):
    """The trade-off, and what to do.

    Attributes:
        model: File name.
        data: The validation split.
        data_sha256: Its digest.
        samples: Samples for clean accuracy.
        attacked: Samples, the first of these, for the objective.
        objective: adaptive, paper or black-box.
        measure: Description of what the objective measures.
        max_drop: Largest allowed drop of clean accuracy.
        points: The trade-off, kappa 0 first; a per-site search adds a point at the end.
        recommended: Position of the recommended point.
        reason: Why this one.
        logits: Description of the value taken for the logits.
        notes: What the reader should know.
        test_clean: Clean accuracy at kappa 0 on the test split; None where it was not looked at.
        seed: Random seed.
        versions: Package -> version.
        host: Machine.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.tune/1"
    model: str
    data: str
    data_sha256: str
    samples: int
    attacked: int
    objective: str
    measure: str
    max_drop: float
    points: tuple[TunePoint, ...]
    recommended: int
    reason: str
    seed: int
    versions: dict[str, str]
    host: str
    logits: str = ""
    notes: tuple[str, ...] = ()
    test_clean: float | None = None

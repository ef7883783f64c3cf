"""What a verification found: a record of checks; tables are made of it, never the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from jr_onnx.records import Record

Verdict = Literal["passed", "failed", "not run"]
Conclusion = Literal["verified", "failed", "model not run"]

_WHOLE_MODEL = (
    "kappa 0, ", "own thresholds, ", "kappa, ", "kappa given at run time", "sites in place", "between the sites",
    "reference run", "whole model",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check(Record):
    """One comparison.

    Attributes:
        what: What was checked, for instance "kappa 0, plain".
        compared: What with what.
        samples: How many runs, or how many values for sites.
        max_difference: The largest difference that was seen.
        bound: What was accepted as rounding; None where only equality passes.
        flips: Runs that were accepted because a pre-activation lay at the jump.
        verdict: passed, failed, or not run; what was not run proves nothing.
        detail: Why it was not run, what a flip was, how loose the bound is; "" if there is nothing to say.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.verify_check/1"
    what: str
    compared: str
    samples: int
    max_difference: float
    bound: float | None
    flips: int
    verdict: Verdict
    detail: str = ""

    @property
    def of_whole_model(self) -> bool:
        """Whether it passes only where the model itself ran; the others look at the file, or at single sites."""
        return self.what.startswith(_WHOLE_MODEL)


@dataclass(frozen=True, slots=True)
class Failure(Record):
    """One disagreement, in the detail that a repair needs.

    Attributes:
        check: The check that failed.
        site: The site's id; "" where the disagreement belongs to no site.
        given: The input: a value for a site, a sample for the whole model.
        expected: The value that was expected there.
        found: The value that was found.
        message: The rest, in words.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.verify_failure/1"
    check: str
    site: str
    given: str
    expected: str
    found: str
    message: str

    def __str__(self) -> str:
        """One line for people."""
        where = f"site {self.site}, " if self.site else ""
        values = f": expected {self.expected}, found {self.found}" if self.expected or self.found else ""
        given = f"{self.given}" if self.given else "any input"
        return f"{self.check}: {where}{given}{values}" + (f" ({self.message})" if self.message else "")


@dataclass(frozen=True, slots=True)
class VerifyReport(Record):
    """The result of a verification; true if every check that could be run passed.

    Attributes:
        model: File name of the verified model; "" for one in memory.
        sha256: Digest of the model file or of the serialised proto.
        original: Where the original came from: given, restored from the provenance, or the model itself.
        kappa: The plan, in words.
        sites: How many sites were verified.
        lowerings: The lowerings that were compared.
        refused_lowerings: Lowerings that are impossible for this model, and why.
        samples: How many inputs the whole model was run on.
        inputs: Where they came from, in words.
        seed: Seed of the random ones.
        backends: Versions of what evaluated, and the op library.
        checks: All comparisons.
        failures: The disagreements; empty if all passed.
        notes: What the reader should know.
        not_loaded: Why ONNX Runtime does not load the original or the retrofit; "" if it loads both.
        broken: Whether that is the fault of the file, not of what this ONNX Runtime lacks.
        conclusion: The verdict on everything: verified, failed, or model not run (the sites are proved, the model
            was not run); derived from the rest.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.verify_report/2"
    model: str
    sha256: str
    original: str
    kappa: str
    sites: int
    lowerings: tuple[str, ...]
    refused_lowerings: tuple[str, ...]
    samples: int
    inputs: str
    seed: int
    backends: tuple[str, ...]
    checks: tuple[Check, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    not_loaded: str
    broken: bool
    conclusion: Conclusion

    @property
    def passed(self) -> bool:
        """Whether the model ran, and no check failed."""
        return self.conclusion == "verified"

    @property
    def flips(self) -> int:
        """Accepted flips, over all checks."""
        return sum(check.flips for check in self.checks)

    @property
    def not_run(self) -> tuple[Check, ...]:
        """The checks that could not be run here."""
        return tuple(check for check in self.checks if check.verdict == "not run")

    @property
    def reason(self) -> str:
        """Why the model was not run; "" if it was."""
        if self.conclusion != "model not run":
            return ""
        missing = (check.detail for check in self.not_run if check.of_whole_model)
        return self.not_loaded or next(missing, "nothing could be compared")

    def __bool__(self) -> bool:
        """Whether the verification passed."""
        return self.passed


def conclude(checks: Sequence[Check], failures: Sequence[Failure], *, broken: bool) -> Conclusion:
    """Return the verdict on all checks.

    Args:
        checks: All comparisons.
        failures: The disagreements.
        broken: Whether ONNX Runtime refuses the file itself; nothing can verify it then.
    """
    if failures or any(check.verdict == "failed" for check in checks):
        return "failed"
    ran = any(check.of_whole_model and check.verdict == "passed" for check in checks)
    return "verified" if ran and not broken else "model not run"

"""The decision whether requests are joined, with its reason in words; the server and the packager take it here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jr_onnx.rows.proof import RowProof
from jr_onnx.rows.trial import Run, TrialInput, TrialResult, try_rows


@dataclass(frozen=True, slots=True)
class Joining:
    """Whether requests to a model may be joined into one run.

    Attributes:
        join: They may.
        reason: Why or why not, half a sentence that follows "because" or a colon.
        insisted: They are joined because the user said so.
    """

    join: bool
    reason: str
    insisted: bool = False


def decide(
    proof: RowProof, open_model: Callable[[], Run], inputs: Iterable[TrialInput], *, insist: str = ""
) -> Joining:
    """Join what is proved and not contradicted by a trial, or what the user insists on.

    Args:
        proof: What `prove_rows` says of the model.
        open_model: Returns what runs the model for the trial; it may fail, then there is none.
        inputs: The inputs that a request brings.
        insist: The option with which the user says that rows are independent; empty where they do not.
    """
    if not proof and not insist:
        return Joining(join=False, reason=f"the rows of a batch are not proved independent ({proof.why})")
    trial = _try(open_model, inputs)
    if proof and not trial.contradicts:
        tried = "and a trial agrees" if trial.ran else f"a trial was not possible: {trial.reason}"
        return Joining(join=True, reason=f"the rows of a batch are proved independent, {tried}")
    against = proof.why if not proof else "they are proved independent"
    if trial.contradicts:
        against += f"; a trial says: {trial.reason}"
    if insist:
        return Joining(join=True, insisted=True, reason=f"{insist} was given, although not proved ({against})")
    return Joining(join=False, reason=f"a trial contradicts the proof: {trial.reason}")


def _try(open_model: Callable[[], Run], inputs: Iterable[TrialInput]) -> TrialResult:
    try:
        run = open_model()
    except Exception:  # noqa: BLE001 - a model for another machine or server need not open here
        return TrialResult(ran=False, reason="the model cannot be opened here")
    return try_rows(run, inputs)

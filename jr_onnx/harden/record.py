"""What a hardened file says of itself, and what a run of `jr-onnx harden` reports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from jr_onnx import provenance
from jr_onnx.errors import JrError
from jr_onnx.evaluation.summary import Evaluation
from jr_onnx.harden.recipe import Recipe
from jr_onnx.harden.validation import EpochRow
from jr_onnx.modelfile import load
from jr_onnx.records import Record, dumps, loads
from jr_onnx.semantics import SiteKappa


@dataclass(frozen=True, slots=True)
class Hardening(Record):
    """The entry that training leaves in the metadata of a model.

    Attributes:
        version: Version of this package.
        source_name: File name of the model that was trained.
        source_sha256: Its digest; weights cannot be taken back, so who wants them needs that file.
        recipe: How it was trained.
        data: Name of the training images.
        data_sha256: Their digest.
        labels: data, or model: the original's own answers.
        trained: Names of the weights that were trained.
        surrogate: Derivative of the jump while training, and what it was chosen by; "" without a jump.
        rows: What was measured on validation images before training and after every epoch.
        best: Number of the epoch whose weights these are.
        stopped: Why the training ended before its last epoch, "" where it did not.
        kappas: Site id -> kappa that it was trained with, or one for each channel; empty without a jump.
        run: Digest of everything that decides the weights; "" in files of earlier versions.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.hardening/1"
    version: str
    source_name: str
    source_sha256: str
    recipe: Recipe
    data: str
    data_sha256: str
    labels: str
    trained: tuple[str, ...]
    surrogate: str
    rows: tuple[EpochRow, ...]
    best: int
    stopped: str
    kappas: dict[str, SiteKappa]
    run: str = ""

    def as_metadata(self) -> str:
        """Return the entry's text; without wall times, so that the same run gives the same file."""
        rows = tuple(replace(row, seconds=0.0) for row in self.rows)
        return dumps(replace(self, rows=rows), indent=None)


def earlier_result(path: Path) -> Hardening | None:
    """Return what a file says of its training; None where it is no hardened model, or says it otherwise."""
    try:
        metadata = {str(entry.key): str(entry.value) for entry in load(path).proto.metadata_props}
        return loads(Hardening, metadata[provenance.HARDENED_KEY])
    except (JrError, KeyError):
        return None


@dataclass(frozen=True, slots=True)
class Contest(Record):
    """Several files under one suite, on the same images, which training did not use.

    Attributes:
        names: Label -> file name.
        evaluations: Label of every file but the original -> its evaluation, with the original's.
        chosen: Label of the file to deploy.
        reason: Why.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.harden_contest/1"
    names: dict[str, str]
    evaluations: dict[str, Evaluation]
    chosen: str
    reason: str


@dataclass(frozen=True, slots=True)
class HardenResult(Record):
    """The result of `jr-onnx harden`.

    Attributes:
        output: Path of the hardened file.
        hardening: What the file says of itself.
        notes: What the reader should know.
        contest: Original against hardened; None where nothing was evaluated.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.harden_result/1"
    output: str
    hardening: Hardening
    notes: tuple[str, ...]
    contest: Contest | None = None

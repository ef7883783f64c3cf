"""Open MODEL and kappa as a pair: an original and its retrofit.

    MODEL                        original                retrofit
    a retrofit                   restored from it        MODEL itself
    an original, with kappa      MODEL itself            rewritten in memory
    an original, without kappa   MODEL itself            None

The file that is made of the two keeps the external data of the one that was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import onnx

from jr_onnx.errors import InputError, RefusalError
from jr_onnx.kappa import Kappa, KappaPlan
from jr_onnx.modelfile import ModelFile, check, copied, from_proto, load, place_external_data, save
from jr_onnx.provenance import Provenance
from jr_onnx.rewriter.agreement import Mismatch, disagreement, examine
from jr_onnx.rewriter.api import DEFAULT_SUFFIX
from jr_onnx.rewriter.lowering import RequestedLowering, Target
from jr_onnx.rewriter.options import Options
from jr_onnx.rewriter.retrofit import Retrofit, retrofit
from jr_onnx.rewriter.undo import undo

EXPLICIT_LOWERINGS: Final[tuple[RequestedLowering, ...]] = ("where", "thresholded", "custom")
"""The lowerings that a caller can ask for by name."""


@dataclass(frozen=True)
class ModelPair:
    """An original and its retrofit.

    Attributes:
        given: MODEL as it was read; it is one of the two.
        original: The model before the rewrite.
        retrofit: The model after it; None where MODEL is an original and no kappa was given.
        record: The retrofit's provenance.
        mismatches: Where the graph of a given retrofit contradicts its provenance; empty unless the caller asked for
            them instead of an error.
    """

    given: ModelFile
    original: ModelFile
    retrofit: ModelFile | None
    record: Provenance | None
    mismatches: tuple[Mismatch, ...] = ()

    @property
    def is_retrofit(self) -> bool:
        """Whether MODEL is the retrofit of the two."""
        return self.retrofit is self.given

    def plan(self, kappa: Kappa | None) -> KappaPlan:
        """Return the plan to rewrite the original with: the given kappa, else the retrofit's.

        Raises:
            InputError: There is neither.
        """
        if kappa is not None:
            return KappaPlan.of(kappa)
        if self.record is None:
            raise kappa_missing(self.given.name)
        return self.record.plan

    def save(self, folder: Path) -> tuple[Path, Path | None]:
        """Write the model that exists only in memory into a folder, with its external data.

        Returns:
            The paths of the original and of the retrofit (None if there is none). What was given stays where it is.

        Raises:
            InputError: The pair was opened from a model in memory.
            OutputError: The model cannot be written.
        """
        path = self.given.path
        if path is None:
            raise InputError("the model is in memory, expected a file", hint="Save it first, and give its path")
        if self.retrofit is None or self.record is None:
            return path, None
        made = folder / ("original.onnx" if self.is_retrofit else f"retrofit{DEFAULT_SUFFIX}")
        place_external_data(self.record.external_data, path.parent, made, "auto", force=True)
        save((self.original if self.is_retrofit else self.retrofit).proto, self.given.payloads, made)
        return (made, path) if self.is_retrofit else (path, made)


def open_pair(
    model: str | Path | onnx.ModelProto, kappa: Kappa | None = None, *, report_mismatches: bool = False
) -> ModelPair:
    """Open a model and, with its provenance or a kappa, the other one of the pair.

    Args:
        model: A retrofit or an original: a path or a ModelProto, which is not changed.
        kappa: The jump for an original; a retrofit has its own.
        report_mismatches: Return a retrofit whose graph contradicts its provenance with the list of mismatches,
            instead of refusing it.

    Raises:
        ModelError: It is not a usable model, or it is a retrofit that cannot be undone.
        InputError: A kappa is given for a retrofit.
        RefusalError: The graph of a retrofit does not compute what its provenance says, or a site cannot be rewritten.
        KappaError, NoSiteError: The original cannot be rewritten with this kappa.
    """
    given = read_model(model)
    found = examine(given.proto, given.payloads, given.folder)
    if found.record is None:
        if kappa is None:
            return ModelPair(given, given, None, None)
        done = retrofit(given, Options(KappaPlan.of(kappa)))
        return ModelPair(given, given, done.file, done.record)
    if kappa is not None:
        raise kappa_not_wanted(given.name)
    original = found.original
    if original is None:
        original = copied(given.proto)
        undo(original, found.record)
        if not found and not report_mismatches:
            raise disagreement(given.name or "the model", found.reason)
    restored = replace(given, proto=original, sha256=found.record.source_sha256)
    return ModelPair(given, restored, given, found.record, found.mismatches)


def read_model(model: str | Path | onnx.ModelProto) -> ModelFile:
    """Read a model without its weights, and check that its external data is there.

    Raises:
        ModelError: It is not a usable model.
    """
    found = from_proto(model) if isinstance(model, onnx.ModelProto) else load(model)
    if found.folder is not None:
        check(found.proto, found.folder)
    return found


def in_every_lowering(
    original: ModelFile,
    plan: KappaPlan,
    lowerings: Sequence[RequestedLowering] = EXPLICIT_LOWERINGS,
    target: Target = "portable",
) -> tuple[dict[RequestedLowering, Retrofit], dict[RequestedLowering, RefusalError]]:
    """Rewrite an original once with every lowering.

    Returns:
        The retrofits by lowering, and the refusal of every impossible lowering.

    Raises:
        KappaError, NoSiteError: The plan does not fit the model.
    """
    made: dict[RequestedLowering, Retrofit] = {}
    refused: dict[RequestedLowering, RefusalError] = {}
    for lowering in lowerings:
        try:
            made[lowering] = retrofit(original, Options(plan, lowering=lowering, target=target))
        except RefusalError as error:
            refused[lowering] = error
    return made, refused


def kappa_missing(name: str) -> InputError:
    """Return the error for an original whose retrofit is wanted, but no kappa is given."""
    return InputError(
        f"{name or 'the model'} is not a retrofit, and no kappa was given", hint="Give --kappa, for instance 0.06"
    )


def kappa_not_wanted(name: str) -> InputError:
    """Return the error for a retrofit that comes with a kappa."""
    return InputError(
        f"{name or 'the model'} is a retrofit and has its own kappa", hint="Leave --kappa out, or give the original"
    )

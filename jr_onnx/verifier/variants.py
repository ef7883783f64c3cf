"""Other ways to write the same retrofit: every lowering the original allows, at kappa 0 and at the given kappas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx

from jr_onnx.errors import InputError, JrError, NoSiteError, VerificationError
from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile import ModelFile
from jr_onnx.provenance import Provenance
from jr_onnx.rewriter.lowering import RequestedLowering
from jr_onnx.rewriter.pair import EXPLICIT_LOWERINGS, in_every_lowering
from jr_onnx.semantics import SiteKappa
from jr_onnx.verifier.evaluators.ort import Runnable
from jr_onnx.verifier.sites.groups import SiteGroup, site_groups


@dataclass(frozen=True)
class Variant:
    """One retrofit of the original.

    Attributes:
        name: For the report: "the file", or the lowering.
        runnable: The model.
        record: Its provenance.
        original: The model it was made from.
    """

    name: str
    runnable: Runnable
    record: Provenance
    original: onnx.ModelProto

    @property
    def proto(self) -> onnx.ModelProto:
        """The model; large weights may be tokens."""
        return self.runnable.file.proto

    @cached_property
    def groups(self) -> list[SiteGroup]:
        """The node groups of its sites.

        Raises:
            VerificationError: A site is not as the provenance says.
        """
        file = self.runnable.file
        return site_groups(self.proto, self.record, self.original, file.folder, file.payloads)

    @property
    def uses_custom(self) -> bool:
        """Whether the op library would change who computes it."""
        return any(site.lowering == "custom" for site in self.record.sites)

    def with_library(self) -> Variant:
        """Return the same model with the op library registered."""
        name = f"{self.name} + op library"
        runnable = Runnable(name, self.runnable.file, self.runnable.as_file, library=True)
        return Variant(name, runnable, self.record, self.original)


def control_kappas(record: Provenance) -> dict[str, SiteKappa]:
    """Return the kappas at which a retrofit computes its original: 0 at ReLUs, its own at its own jumps."""
    return {site.id: site.kappa if record.plan.own else 0.0 for site in record.sites}


def control_label(record: Provenance) -> str:
    """Return what a report calls the kappas of `control_kappas`."""
    return "own thresholds" if record.plan.own else "kappa 0"


def variants(
    original: ModelFile, plan: KappaPlan, lowerings: Sequence[RequestedLowering] = EXPLICIT_LOWERINGS
) -> tuple[list[Variant], list[str]]:
    """Rewrite the original with every lowering.

    Args:
        original: The model before.
        plan: The kappas; sites that it does not name stay.
        lowerings: The lowerings to try.

    Returns:
        The variants, and for every impossible lowering its name and the reason.

    Raises:
        VerificationError: A site of the plan is not in the original.
    """
    try:
        made, refused = in_every_lowering(original, plan, lowerings)
    except JrError as error:
        hint = "Give the very model that was rewritten, or none: it is restored from the retrofit then"
        raise VerificationError(
            f"the original cannot be rewritten like the retrofit: {error.message}",
            hint=hint if isinstance(error, InputError | NoSiteError) else "",
        ) from error
    found = []
    for done in made.values():
        names = "/".join(dict.fromkeys(site.lowering for site in done.record.sites))
        found.append(Variant(names, Runnable(names, done.file), done.record, original.proto))
    return found, [f"{lowering}: {error.message}" for lowering, error in refused.items()]

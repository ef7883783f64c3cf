"""Other ways to write the same retrofit: every lowering the original allows, at kappa 0 and at the given kappas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx

from jr_onnx import provenance
from jr_onnx.errors import InputError, JrError, NoSiteError, RefusalError, VerificationError
from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile import ModelFile
from jr_onnx.provenance import Provenance
from jr_onnx.rewriter.lowering import LoweringWish
from jr_onnx.rewriter.retrofit import Options, retrofit
from jr_onnx.verify.backends import Runnable
from jr_onnx.verify.groups import SiteGroup, site_groups

WISHES: tuple[LoweringWish, ...] = ("where", "thresholded", "custom")


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
        return site_groups(self.proto, self.record, self.original, self.runnable.file.folder)

    @property
    def uses_custom(self) -> bool:
        """Whether the op library would change who computes it."""
        return any(site.lowering == "custom" for site in self.record.sites)

    def with_library(self) -> Variant:
        """Return the same model with the op library registered."""
        name = f"{self.name} + op library"
        runnable = Runnable(name, self.runnable.file, self.runnable.as_file, library=True)
        return Variant(name, runnable, self.record, self.original)


def variants(
    original: ModelFile, kappas: dict[str, float], wishes: tuple[LoweringWish, ...] = WISHES
) -> tuple[list[Variant], list[str]]:
    """Rewrite the original with every lowering.

    Args:
        original: The model before.
        kappas: Site id -> kappa; other sites stay.
        wishes: The lowerings to try.

    Returns:
        The variants, and for every impossible lowering its name and the reason.
    """
    found: list[Variant] = []
    refused: list[str] = []
    for wish in wishes:
        try:
            found.append(variant(original, kappas, wish))
        except RefusalError as error:
            refused.append(f"{wish}: {error.message}")
    return found, refused


def variant(original: ModelFile, kappas: dict[str, float], lowering: LoweringWish) -> Variant:
    """Rewrite the original with one lowering and a kappa for every site.

    Raises:
        RefusalError: The lowering is impossible here.
        VerificationError: A site of the plan is not in the original.
    """
    wanted = Options(KappaPlan(by_site=tuple(kappas.items())), lowering=lowering, include=tuple(kappas))
    try:
        done = retrofit(original, wanted)
    except RefusalError:
        raise
    except (InputError, NoSiteError) as error:
        raise VerificationError(
            f"the original cannot be rewritten like the retrofit: {error.message}",
            hint="Give the very model that was rewritten, or none: it is restored from the retrofit then",
        ) from error
    except JrError as error:
        raise VerificationError(f"the original cannot be rewritten like the retrofit: {error.message}") from error
    record = provenance.read(done.model)
    if record is None:
        raise VerificationError("the rewrite left no provenance")
    names = "/".join(dict.fromkeys(site.lowering for site in record.sites))
    file = ModelFile(original.path, done.model, original.payloads, original.sha256, original.length_bytes)
    return Variant(names, Runnable(names, file), record, original.proto)

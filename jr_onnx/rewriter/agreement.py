"""Does the graph of a retrofit compute what its provenance says? If not, which site differs, and how?

    retrofit  --undo-->  original'  --rewrite as recorded-->  retrofit'        agreed: retrofit' is the retrofit

The graph is what every runtime computes; the provenance is only metadata, which anyone can edit, or which a tool keeps
while it changes the graph. So it is not trusted: the recorded rewrite is undone and done again, on a copy without
weights, and the result must be the file, node for node and record for record. A file that agrees computes J with the
recorded kappas at the recorded sites of the original that `restore` gives, and nothing else.

What no graph can prove has to be taken from the provenance: the range of a random kappa that a session draws into an
input (the graph holds only its middle), and where the source came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast, get_args

import onnx
from google.protobuf.message import EncodeError

from jr_onnx import provenance
from jr_onnx.errors import JrError, RefusalError, one_line
from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile import content_digest, copied, readable
from jr_onnx.modelfile.messages import same_message
from jr_onnx.modelfile.wire import Payloads, WireError, split
from jr_onnx.provenance import Provenance, SiteRecord
from jr_onnx.records import Record
from jr_onnx.rewriter.apply import apply
from jr_onnx.rewriter.differences import differences, render_node
from jr_onnx.rewriter.edit import Edit
from jr_onnx.rewriter.lowering import Lowering, Target
from jr_onnx.rewriter.lowering.custom import is_own_body
from jr_onnx.rewriter.optimised import is_optimised, optimised_mismatches
from jr_onnx.rewriter.options import Options
from jr_onnx.rewriter.scopes import all_scopes, function_key, scopes_by_path
from jr_onnx.rewriter.stored import expand_constants
from jr_onnx.rewriter.undo import undo
from jr_onnx.semantics import DRAW_OP_TYPE, OP_DOMAIN, OP_TYPE, channels_of, round_kappa, round_to

_SHOWN = 3
_TEXT_LIMIT = 300
# Names of values that only a lowering gives: `lowering.where`.
_LOWERED = ("/jr_shifted", "/jr_above", "/jr_jumped")


@dataclass(frozen=True, slots=True)
class Mismatch(Record):
    """One place where graph and provenance disagree.

    Attributes:
        site: Id of the site; "" where it is the model as a whole.
        message: What the graph holds and what the provenance says.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.mismatch/1"
    site: str
    message: str


@dataclass(frozen=True)
class Agreement:
    """What comparing a retrofit's graph with its provenance found; true where they agree.

    Attributes:
        record: The provenance; None for a model that is not a retrofit.
        original: The model before the rewrite, without its provenance, if graph and provenance agree; None otherwise,
            and for the result of `jr-onnx optimize`. Its large weights are tokens of `payloads`.
        payloads: What the tokens stand for.
        mismatches: Where graph and provenance disagree.
        has_foreign_body: The file defines an operator of the op library in another way than this package.
    """

    record: Provenance | None
    original: onnx.ModelProto | None
    payloads: Payloads
    mismatches: tuple[Mismatch, ...]
    has_foreign_body: bool = False

    def __bool__(self) -> bool:
        """Whether the graph computes what the provenance says."""
        return not self.mismatches

    @property
    def reason(self) -> str:
        """The first disagreement in words, and how many there are; "" where there is none."""
        if not self.mismatches:
            return ""
        first = self.mismatches[0]
        more = f" (and {len(self.mismatches) - 1} more)" if len(self.mismatches) > 1 else ""
        return f"{f'site {first.site}: ' if first.site else ''}{first.message}{more}"


def examine(model: onnx.ModelProto, payloads: Payloads | None = None, folder: Path | None = None) -> Agreement:
    """Compare a model's graph with its provenance.

    A model without provenance agrees, unless it defines a body of jr_onnx::JumpRelu or jr_onnx::DrawKappa that is not
    this package's own: the op library's kernel would run in its place and compute something else. Of the result of
    `jr-onnx optimize`, whose sites are joined with their neighbours, the kappas are compared.

    Args:
        model: The model, which stays as it is.
        payloads: What the tokens in it stand for; None for a model that holds its weights.
        folder: The folder that external data is relative to, or None.

    Raises:
        ModelError: The provenance cannot be understood, or the model is nested too deeply or holds names that are
            not text.
    """
    record = provenance.read(model)
    with readable("the model"):
        foreign = list(_foreign_bodies(model))
        if record is None or is_optimised(model):
            texts = optimised_mismatches(model, record, payloads) if record is not None else ()
            found = [Mismatch("", text) for text in texts]
            return Agreement(record, None, payloads or Payloads(), (*found, *foreign), bool(foreign))
        light, held = _light(model) if payloads is None else (copied(model), payloads)
        original = copied(light)
        try:
            undo(original, record)
            edit, again = _redo(original, record, folder, held)
            found = [*_in_records(record, edit), *_in_graph(light, again, record, held)]
            found = found or [*_unrecorded(original, held, record), *foreign]
        except JrError as error:
            found = [Mismatch("", error.message)]
        except (ValueError, TypeError, OverflowError) as error:
            # Errors of protobuf and the lowerings about values that no rewrite would have recorded.
            found = [Mismatch("", one_line(error))]
    return Agreement(record, None if found else original, held, tuple(found), bool(foreign))


def require_agreement(
    model: onnx.ModelProto, what: str, payloads: Payloads | None = None, folder: Path | None = None
) -> Agreement:
    """Compare a model's graph with its provenance and refuse one that does not agree; see `examine`.

    Args:
        model: The model.
        what: What to call it.
        payloads: What the tokens in it stand for.
        folder: The folder that external data is relative to, or None.

    Raises:
        ModelError: See `examine`.
        RefusalError: The graph does not compute what the provenance says.
    """
    found = examine(model, payloads, folder)
    if not found:
        raise disagreement(what, found.reason)
    return found


def restore_in_place(
    model: onnx.ModelProto, what: str, payloads: Payloads | None = None, folder: Path | None = None
) -> Provenance:
    """Put the original back, in place, after a proof that it is the one the graph was made from; return the provenance.

    Raises:
        ModelError: The model is not a retrofit, was optimised, or was changed so that a site is not where it was.
        RefusalError: The graph does not compute what the provenance says.
    """
    found = examine(model, payloads, folder)
    if found.original is None or payloads is None:  # without `payloads` the weights of `original` are tokens of its own
        record = undo(model, found.record)  # says by itself what is missing
        if not found:
            raise disagreement(what, found.reason)
        return record
    if found.record is None:
        raise RefusalError(f"{what} has an original and no provenance")
    model.CopyFrom(found.original)
    return found.record


def disagreement(what: str, reason: str) -> RefusalError:
    """Return the error for a file whose graph and provenance disagree."""
    return RefusalError(
        f"the graph of {what} does not compute what its provenance says: {reason}",
        hint="It was changed after the rewrite; rewrite the original model again",
    )


def _foreign_bodies(model: onnx.ModelProto) -> Iterator[Mismatch]:
    for function in model.functions:
        if function.domain == OP_DOMAIN and function.name in (OP_TYPE, DRAW_OP_TYPE) and not is_own_body(function):
            yield Mismatch(
                "", f"the body of function {function_key(function)} in the file is not one of this package's"
            )


def _light(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Payloads]:
    """Copy a model without its large weights."""
    try:
        data, payloads = split(model.SerializeToString())
    except (EncodeError, WireError, ValueError):
        return copied(model), Payloads()  # more than protobuf's 2 GB cannot be serialised
    light = onnx.ModelProto()
    light.ParseFromString(data)
    return light, payloads


def _redo(
    original: onnx.ModelProto, record: Provenance, folder: Path | None, payloads: Payloads
) -> tuple[Edit, onnx.ModelProto]:
    """Rewrite the restored original as the provenance says.

    Raises:
        RefusalError: The provenance names no rewrite of this model.
        KappaError: A recorded kappa is invalid.
    """
    sites = {site.id: site for site in record.sites}
    if len(sites) != len(record.sites):
        raise RefusalError("the provenance names a site twice")
    unknown = next((site for site in record.sites if site.lowering not in get_args(Lowering)), None)
    if unknown is not None:
        raise RefusalError(f"site {unknown.id} has the unknown lowering {unknown.lowering!r}")
    if record.target not in get_args(Target):
        raise RefusalError(f"the target is {record.target!r}, expected one of {', '.join(get_args(Target))}")
    options = Options(
        record.plan, target=cast(Target, record.target), demote_initializer_inputs=bool(record.undo.inputs_removed)
    )
    again = copied(original)
    return apply(again, options, folder, sites, payloads), again


def _in_records(record: Provenance, edit: Edit) -> Iterator[Mismatch]:
    """Compare what is recorded with what rewriting again records."""
    again = {site.id: site for site in edit.records}
    for site in record.sites:
        other = again[site.id]
        for name in (
            ()
            if site == other
            else ("form", "dtype", "scope", "output", "cap", "lowering", "nodes", "kappa", "rank", "original")
        ):
            said, found = getattr(site, name), getattr(other, name)
            if said != found:
                shown = "another node" if name == "original" else f"{said!r}, expected {found!r}"
                if name == "dtype":
                    shown += ": the model was converted after the rewrite; convert the original, and rewrite that"
                yield Mismatch(site.id, f"its {name} in the provenance is {shown}")
                break
        else:
            yield from _in_plan(record.plan, site)
    if [site.id for site in edit.records] != [site.id for site in record.sites]:
        yield Mismatch("", "the provenance names the sites in another order than the graph")
    if edit.undo != record.undo:
        yield Mismatch("", "what the provenance says of undoing the rewrite is not what this rewrite needs")


def _in_plan(plan: KappaPlan, site: SiteRecord) -> Iterator[Mismatch]:
    """Compare a site's kappa with the plan; a kappa map is not evaluated, because its expressions are untrusted."""
    wanted = plan.random.middle if plan.random is not None else plan.kappa
    if wanted is not None and not plan.by_site and round_kappa(wanted, site.dtype) != site.kappa:
        yield Mismatch(site.id, f"its kappa is {site.kappa!r} in the provenance, whose plan says {wanted!r}")


def _in_graph(
    model: onnx.ModelProto, again: onnx.ModelProto, record: Provenance, payloads: Payloads
) -> Iterator[Mismatch]:
    """Compare the graph with that of the rewrite done again, sites first, then everything else."""
    provenance.remove(model)
    for one in (model, again):
        for function in one.functions:
            if function_key(function) in record.undo.functions_added:
                function.doc_string = ""  # words to a reader, which another version may choose differently
    groups = _Groups(model)
    for site in record.sites:
        if isinstance(site.kappa, tuple):
            expand_constants(groups.of(site), payloads, len(site.kappa))
    if same_message(model, again):
        return
    others = _Groups(again)
    found = [item for site in record.sites for item in _at_site(groups.of(site), others.of(site), site)]
    if not found:
        lines = [line.replace(" -> ", " in the graph, by the provenance ") for line in differences(model, again)]
        found = [Mismatch("", line) for line in lines[:_SHOWN] or ["unknown fields differ"]]
    yield from found


def _at_site(here: Sequence[onnx.NodeProto], there: Sequence[onnx.NodeProto], site: SiteRecord) -> Iterator[Mismatch]:
    for found, said in zip(here, there, strict=False):
        if not same_message(found, said):
            yield Mismatch(site.id, f"the graph holds {_text(found)}, by the provenance it is {_text(said)}")
            return
    if len(here) != len(there):
        yield Mismatch(site.id, f"it has {len(here)} nodes in the graph, {len(there)} by the provenance")


class _Groups:
    """The nodes that replace the sites of a model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._scopes = scopes_by_path(model)
        self._ends: dict[str, dict[str, int]] = {}

    def of(self, site: SiteRecord) -> Sequence[onnx.NodeProto]:
        """Return the nodes of one site; none where it is not to be found."""
        scope = self._scopes.get(site.scope)
        if scope is None:
            return ()
        if site.scope not in self._ends:
            self._ends[site.scope] = {name: at for at, node in enumerate(scope.nodes) for name in node.output}
        end = self._ends[site.scope].get(site.output, -1)
        return scope.nodes[max(0, end - site.nodes + 1) : end + 1]


def _text(node: onnx.NodeProto) -> str:
    text = render_node(node)
    return text if len(text) <= _TEXT_LIMIT else f"{text[:_TEXT_LIMIT]} ..."


def _unrecorded(original: onnx.ModelProto, payloads: Payloads, record: Provenance) -> Iterator[Mismatch]:
    """Find jumps that a rewrite left in the graph and the provenance does not name, so that `restore` keeps them.

    A source may hold a ThresholdedRelu of its own; then the restored original has the source's digest.
    """
    kappas = {round_to(kappa, "float32") for site in record.sites for kappa in channels_of(site.kappa)}
    found = [scope.node_label(node) for scope in all_scopes(original) for node in scope.nodes if _is_jump(node, kappas)]
    if not found:
        return
    if content_digest(original, payloads)[0] != record.source_sha256:
        yield Mismatch(
            found[0], f"it computes a jump that the provenance does not name ({len(found)} such nodes in the graph)"
        )


def _is_jump(node: onnx.NodeProto, kappas: set[float]) -> bool:
    if node.op_type == "ThresholdedRelu":
        return any(item.name == "alpha" and item.f in kappas for item in node.attribute)
    if node.domain == OP_DOMAIN and node.op_type == OP_TYPE:
        return True
    return any(name.endswith(_LOWERED) for name in node.output)

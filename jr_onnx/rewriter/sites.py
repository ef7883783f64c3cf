"""Find every ReLU of a model: what can be rewritten (sites), what cannot and why (refusals), what resembles one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx

from jr_onnx.element_types import FLOAT_DTYPES, NAMES, type_name
from jr_onnx.errors import RefusalError
from jr_onnx.modelfile import load, readable, require_text
from jr_onnx.modelfile.wire import Payloads
from jr_onnx.opsets import normal_domain
from jr_onnx.records import Record
from jr_onnx.rewriter.constants import ConstantFinder
from jr_onnx.rewriter.detect import DETECTORS, PATTERNS, refuse
from jr_onnx.rewriter.detect.base import Context, Match, NotASite, Refused, Threshold
from jr_onnx.rewriter.detect.own_jump import ITSELF
from jr_onnx.rewriter.detect.role import Aside, set_aside
from jr_onnx.rewriter.detect.shapes import Shapes
from jr_onnx.rewriter.dtypes import ElementTypes
from jr_onnx.rewriter.expansion import MOST_ADDED
from jr_onnx.rewriter.scopes import Scope, function_key, top_scopes, unique, walk
from jr_onnx.rewriter.thresholds import ThresholdReader
from jr_onnx.semantics import DRAW_OP_TYPE, OP_DOMAIN, OP_TYPE, channels_of

_FEEDS_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Site(Record):
    """A ReLU that can become a JumpReLU.

    Attributes:
        id: Stable readable id: scope path and node name, or output name where the node has none.
        form: relu, clip, max, where, mask, abs, min, slope, thresholded, fused_conv, fused_gemm or nchwc_conv; for a
            jump that the model has itself, jump_where, jump_mask, jump_relu_where or jump_relu_mask.
        op_type: Operator of the node, with its domain unless it is the standard one.
        dtype: NumPy name of the element type.
        scope: Scope path, "" for the main graph.
        node_name: Name of the node, may be "".
        output: Name of the output tensor, which a rewrite keeps.
        cap: Upper bound of ReLU6 and similar activations, or None.
        feeds: What reads the output, "Conv conv2" or "output logits"; shortened after four.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.found_site/1"
    id: str
    form: str
    op_type: str
    dtype: str
    scope: str
    node_name: str
    output: str
    cap: float | None
    feeds: tuple[str, ...]

    @property
    def is_own_jump(self) -> bool:
        """Whether it is a jump that the model has itself, which `fuse` takes, rather than a ReLU."""
        return self.form.startswith("jump_")


@dataclass(frozen=True, slots=True)
class Refusal(Record):
    """A ReLU that does not become a JumpReLU, and why.

    Attributes:
        id: As a site's.
        op_type: Operator of the node.
        scope: Scope path, "" for the main graph.
        reason: Why, in words.
        kind: "refused" where it cannot be rewritten; "gate" or "clamp" where it is not an activation, "jump" where it
            is the ReLU inside a jump, and is rewritten only if its id is asked for (`include`).
    """

    SCHEMA: ClassVar[str] = "jr_onnx.refusal/1"
    id: str
    op_type: str
    scope: str
    reason: str
    kind: str = "refused"


@dataclass(frozen=True, slots=True)
class Other(Record):
    """A ReLU-like operator that is not a ReLU, and why."""

    SCHEMA: ClassVar[str] = "jr_onnx.not_a_site/1"
    id: str
    op_type: str
    scope: str
    reason: str


@dataclass(frozen=True, slots=True)
class OwnJump(Record):
    """A jump that the model has itself, as exported JumpReLU sparse autoencoders do; `fuse` makes it one operator.

    Attributes:
        id: As a site's.
        form: How it is written: jump_where, jump_mask, jump_relu_where or jump_relu_mask.
        op_type: Operator of its last node.
        dtype: NumPy name of the element type.
        scope: Scope path, "" for the main graph.
        output: Name of the output tensor.
        thresholds: How many there are: 1, or one for every entry of an axis.
        axis: That axis of the operand; None for one threshold.
        low: The smallest threshold; None where they were not read.
        high: The largest.
        feeds: What reads the output, as a site's.
        problem: Why it cannot be fused; "" if it can.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.own_jump/1"
    id: str
    form: str
    op_type: str
    dtype: str
    scope: str
    output: str
    thresholds: int
    axis: int | None
    low: float | None
    high: float | None
    feeds: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SiteTable(Record):
    """All of a model's sites, refusals, others, and jumps of its own, in graph order."""

    SCHEMA: ClassVar[str] = "jr_onnx.site_table/1"
    sites: tuple[Site, ...]
    refusals: tuple[Refusal, ...]
    others: tuple[Other, ...]
    jumps: tuple[OwnJump, ...] = ()


@dataclass(frozen=True)
class LocatedSite:
    """A site together with where it is in the proto; only valid until the proto is edited.

    Attributes:
        site: The site.
        scope: Where it is.
        index: Position of its node in the scope.
        match: What the detector found.
        is_aside: Whether it is not among the table's sites and is rewritten only on request: a gate, a clamp, a ReLU
            inside a jump, or a jump that the model has itself.
    """

    site: Site
    scope: Scope
    index: int
    match: Match
    is_aside: bool = False

    @property
    def node(self) -> onnx.NodeProto:
        """The site's node."""
        return self.scope.nodes[self.index]


@dataclass(frozen=True)
class Findings:
    """What `locate` returns.

    Attributes:
        located: The sites, and what is set aside, with their places.
        table: Everything that was found.
        tops: The scopes of the main graph and the functions.
        shapes: Knows the shapes of values.
        thresholds: Reads the thresholds of jumps.
    """

    located: tuple[LocatedSite, ...]
    table: SiteTable
    tops: Sequence[Scope]
    shapes: Shapes
    thresholds: ThresholdReader


def find_sites(model: onnx.ModelProto | str | Path, folder: Path | None = None) -> SiteTable:
    """List every ReLU of a model.

    Args:
        model: A ModelProto, or the path of a model file (weights and external data are not loaded).
        folder: For a ModelProto: the folder that external data is relative to, to read bounds that are stored there.

    Raises:
        ModelError: The file is not a usable model.
    """
    if not isinstance(model, onnx.ModelProto):
        source = load(model)
        return locate(source.proto, source.folder, payloads=source.payloads).table
    with readable("the model"):
        require_text(model)
    return locate(model, folder).table


def locate(
    model: onnx.ModelProto,
    folder: Path | None = None,
    most_added: int = MOST_ADDED,
    payloads: Payloads | None = None,
) -> Findings:
    """Find the sites of a proto, with their places in it.

    Args:
        model: The model; its names are text (`modelfile.require_text`), large weights may be tokens.
        folder: The folder that external data is relative to. Without it bounds that are stored there are not known, and
            the sites that need them are refused.
        most_added: How many nodes the calls of functions may expand to on top of those in the file.
        payloads: What tokens stand for; without them the thresholds of jumps that are tokens are not read.

    Raises:
        ModelError: The model is nested too deeply, recursive, or holds names that are not text.
    """
    with readable("the model"):
        return _locate(model, folder, most_added, payloads or Payloads())


def _locate(model: onnx.ModelProto, folder: Path | None, most_added: int, payloads: Payloads) -> Findings:
    tops = top_scopes(model)
    types = ElementTypes(tops, most_added)
    functions = {function_key(function) for function in model.functions}
    context = Context(model, ConstantFinder(model, folder), Shapes(model), functions)
    thresholds = ThresholdReader(context.constants, payloads)
    jumps: list[OwnJump] = []
    located: list[LocatedSite] = []
    refusals: list[Refusal] = []
    others: list[Other] = []
    taken: dict[str, int] = {}
    for scope in (scope for top in tops if not _is_own_function(top) for scope in walk(top)):
        readers = _Readers(scope, context)
        for index, node in enumerate(scope.nodes):
            verdict = _judge(context, scope, node)
            if verdict is None:
                continue
            label = scope.node_label(node)
            name = unique(f"{scope.path}/{label}" if scope.path else label, taken)
            shown = f"{node.domain}::{node.op_type}" if normal_domain(node.domain) else str(node.op_type)
            if isinstance(verdict, Match):
                verdict = _check_type(types, scope, verdict)
            if isinstance(verdict, Refused):
                refusals.append(Refusal(name, shown, scope.path, verdict.reason))
            elif isinstance(verdict, NotASite):
                others.append(Other(name, shown, scope.path, verdict.reason))
            else:
                output = str(node.output[0])
                site = Site(
                    name, verdict.form, shown, verdict.dtype, scope.path, str(node.name), output, verdict.cap,
                    readers.of(output),
                )  # fmt: skip
                if verdict.jump is not None:
                    jumps.append(_own_jump(site, verdict.jump, thresholds))
                    located.append(LocatedSite(site, scope, index, verdict, is_aside=True))
                    continue
                aside = _inside_jump(context, scope, node) or set_aside(
                    context, scope, verdict, output, context.consumers(scope)
                )
                if aside is not None:
                    refusals.append(Refusal(name, shown, scope.path, aside.reason, aside.kind))
                located.append(LocatedSite(site, scope, index, verdict, is_aside=aside is not None))
    sites = tuple(item.site for item in located if not item.is_aside)
    table = SiteTable(sites, tuple(refusals), tuple(others), tuple(jumps))
    return Findings(tuple(located), table, tops, context.shapes, thresholds)


def _own_jump(site: Site, jump: Threshold, thresholds: ThresholdReader) -> OwnJump:
    low: float | None = None
    high: float | None = None
    problem = ""
    try:
        kappas = thresholds.kappas(jump, site.dtype)
        low, high = min(channels_of(kappas)), max(channels_of(kappas))
    except RefusalError as error:
        problem = error.message
    return OwnJump(
        site.id, site.form, site.op_type, site.dtype, site.scope, site.output, jump.count, jump.axis, low, high,
        site.feeds, problem,
    )  # fmt: skip


def _inside_jump(context: Context, scope: Scope, node: onnx.NodeProto) -> Aside | None:
    """Return why a ReLU is left alone whose result nothing reads but jumps that begin with it."""
    output = str(node.output[0])
    readers = context.consumers(scope).get(output, [])
    if not readers or scope.children or output in scope.results:
        return None
    for reader in readers:
        verdict = _judge(context, scope, reader) if reader.op_type in ("Mul", "Where") else None
        if not (isinstance(verdict, Match) and verdict.jump is not None and verdict.jump.clamped):
            return None
    return Aside("jump", f"it is the ReLU inside the jump {scope.node_label(readers[0])}; jr-onnx fuse makes them one")


def _judge(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | NotASite | None:
    key = normal_domain(node.domain), node.op_type
    detector: Callable[..., Match | Refused | NotASite | None] | None = DETECTORS.get(key)
    pattern = PATTERNS.get(key) if detector is None else None
    if (detector or pattern) is not None:
        complete = bool(node.input and node.output and all(node.output))
        if detector is not None and not complete:
            return Refused(f"a {node.op_type} has inputs and a named output, found otherwise")
        if complete:
            detector = detector or pattern
    verdict = detector(context, scope, node) if detector is not None else None
    return verdict if verdict is not None else refuse(context, scope, node)


def _is_own_function(scope: Scope) -> bool:
    """Tell whether a scope is the body of JumpRelu or DrawKappa, which a rewrite adds."""
    function = scope.function
    return function is not None and function.domain == OP_DOMAIN and function.name in (OP_TYPE, DRAW_OP_TYPE)


def _check_type(types: ElementTypes, scope: Scope, match: Match) -> Match | Refused | NotASite:
    """Fill in the element type, or say why there is none to work with."""
    found = types.of(scope, match.typed_by)
    if not found:
        return NotASite("it stands in a function that nothing calls")
    if 0 in found:
        return Refused(
            f"the element type of {match.typed_by!r} is not known; add type information, for instance with "
            "onnx.shape_inference.infer_shapes, and try again"
        )
    if len(found) > 1:
        names = ", ".join(sorted(map(type_name, found)))
        return Refused(f"its function is called with several element types ({names}), and kappa is rounded to one")
    number = found.pop()
    name = type_name(number)
    if name in FLOAT_DTYPES and match.widened and not _widens(name, match.widened):
        return Refused(
            f"{ITSELF if match.jump is not None else 'it may be a ReLU'}, compared as {type_name(match.widened)}, to "
            f"which a Cast may round what is {name}"
        )
    if name in FLOAT_DTYPES:
        return match.with_dtype(name)
    if name.startswith(("int", "uint")) and match.jump is not None:
        return NotASite(f"it is a jump of integers ({name})")
    if name.startswith(("int", "uint")):
        return Refused(
            f"it is an integer ReLU ({name}), on which a kappa below 1 has no effect; only floating-point sites are "
            "rewritten"
        )
    return Refused(f"its element type is {name}, expected one of {', '.join(FLOAT_DTYPES)}")


def _widens(dtype: str, number: int) -> bool:
    """Tell whether every number of a floating type is one of another type, too."""
    return NAMES[number] in (dtype, "float64") or (NAMES[number] == "float32" and dtype != "float64")


class _Readers:
    """Who reads a value of a scope, sub-graphs included."""

    def __init__(self, scope: Scope, context: Context) -> None:
        self._scope = scope
        self._context = context
        self._by_name: dict[str, list[tuple[Scope, onnx.NodeProto]]] | None = None
        self._outputs = scope.results

    def of(self, name: str) -> tuple[str, ...]:
        if not self._scope.children_of:
            nodes = self._context.consumers(self._scope).get(name, ())
            return self._shown(name, [f"{node.op_type} {self._scope.node_label(node)}" for node in nodes])
        if self._by_name is None:
            self._by_name = {}
            for inner in walk(self._scope):
                for node in inner.nodes:
                    entry = inner, node
                    for read in node.input:
                        self._by_name.setdefault(read, []).append(entry)
        return self._shown(
            name, [f"{node.op_type} {inner.node_label(node)}" for inner, node in self._by_name.get(name, ())]
        )

    def _shown(self, name: str, readers: list[str]) -> tuple[str, ...]:
        if len(readers) == 1 and name not in self._outputs:
            return (readers[0],)
        found = list(dict.fromkeys([*readers, *([f"output {name}"] if name in self._outputs else ())]))
        if len(found) > _FEEDS_SHOWN:
            found[_FEEDS_SHOWN - 1 :] = [f"and {len(found) - _FEEDS_SHOWN + 1} more"]
        return tuple(found)

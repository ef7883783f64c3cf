"""The sites where they stand, in one run of the whole model, and the original's own nodes between them.

    1. In the retrofit every site is seen:          y_i = J(z_i), bit for bit, with NumPy's J.
    2. The original with its sites cut out is fed those y_i:   its z_i and its outputs equal the retrofit's.

Both on ONNX Runtime with optimisation off, so nothing rounds differently and nothing can flip. Together, from the
inputs to the outputs, they say: the retrofit is the original with NumPy's J at its sites, on these inputs, value for
value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jr_onnx.element_types import Array
from jr_onnx.provenance import SiteRecord
from jr_onnx.rewriter.lowering import KEEPS_NAN
from jr_onnx.semantics import SiteKappa, jump_relu, kappa_array, kappa_label, round_kappa
from jr_onnx.verifier.compare import NO_DIFFERENCE, difference
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError
from jr_onnx.verifier.evaluators.ort import OrtSession, Runnable
from jr_onnx.verifier.inputs import Sample
from jr_onnx.verifier.report import Check, Failure, Verdict
from jr_onnx.verifier.sites.check import compare_jump
from jr_onnx.verifier.sites.groups import SiteGroup
from jr_onnx.verifier.variants import Variant
from jr_onnx.verifier.whole_model.case import Case
from jr_onnx.verifier.whole_model.judged import exposed_runnable
from jr_onnx.verifier.whole_model.marked import CutSite, cut
from jr_onnx.verifier.whole_model.tolerance import nudge, rounding_bound

_IN_PLACE, _BETWEEN = "sites in place", "between the sites"
Values = dict[str, Array]


@dataclass(frozen=True)
class _Run:
    """One run of the retrofit with its sites exposed."""

    values: Values
    outputs: Sequence[Array]


def check_sites_in_place(case: Case, file: Variant, *, alone: str = "") -> None:
    """Check the sites in place, and the original between them.

    Args:
        case: The comparison's material.
        file: The retrofit.
        alone: Why the original between the sites cannot be compared; "" where it can.
    """
    groups = [group for group in file.groups if group.in_main_graph]
    compared = f"{file.name} with NumPy's J"
    hidden = len(file.groups) - len(groups)
    if not groups:
        reason = "all sites stand in functions or sub-graphs, whose values cannot be seen from outside"
        case.log.not_run(_IN_PLACE, compared, reason)
        case.log.not_run(_BETWEEN, "the original with its sites cut out", reason)
        return
    names = _names(groups)
    try:
        session = OrtSession(exposed_runnable(file, names), "plain")
        runs = [_run(session, case, names, sample) for sample in case.samples]
    except (CannotLoadError, CannotRunError) as error:
        case.log.not_run(_IN_PLACE, compared, error.message)
        case.log.not_run(_BETWEEN, "the original with its sites cut out", error.message)
        return
    del session
    _check_jumps(case, compared, groups, runs, hidden)
    _check_drawn(case, file, groups, runs)
    if alone:
        case.log.not_run(_BETWEEN, "the original with its sites cut out", alone)
        return
    if hidden:
        reason = f"{hidden} sites stand in functions or sub-graphs and cannot be cut out"
        case.log.not_run(_BETWEEN, "the original with its sites cut out", reason)
        return
    _check_between(case, file, groups, runs)


def _names(groups: Sequence[SiteGroup]) -> dict[str, str]:
    """Return what to expose: pre-activations, results, and kappas that are drawn or given at run time."""
    names: dict[str, str] = {}
    for group in groups:
        names[group.operand] = names[group.record.output] = group.record.dtype
        source = kappa_source(group)
        if source is not None:
            names[source] = "float32"
    return names


def kappa_source(group: SiteGroup) -> str | None:
    """Return the tensor that holds a site's run-time kappa, None for a fixed one or one inside a kernel."""
    if group.runtime is not None:
        return group.runtime
    drawn = [node for node in group.jump if node.op_type == "Squeeze"]
    return str(drawn[0].output[0]) if drawn and group.draws else None


def _run(session: OrtSession, case: Case, names: dict[str, str], sample: Sample) -> _Run:
    values = session.run(sample, [*names, *case.names])
    return _Run(dict(zip(names, values[: len(names)], strict=True)), values[len(names) :])


def _check_jumps(case: Case, compared: str, groups: Sequence[SiteGroup], runs: Sequence[_Run], hidden: int) -> None:
    failures: list[Failure] = []
    worst = 0.0
    elements = unrounded = 0
    for number, run in enumerate(runs):
        for group in groups:
            z, found = run.values[group.operand], run.values[group.record.output]
            elements += z.size
            kappa = _kappa(group, run.values)
            record = group.record
            if kappa is None:
                continue  # drawn inside the kernel; `draws` looks at these
            keeps_nan = record.lowering in KEEPS_NAN
            seen, size = compare_jump(z, found, kappa, record.cap, cast_mul=keeps_nan, rank=record.rank)
            if seen is not None and record.dtype == "float16" and _rounded_later(z, found, kappa, record):
                unrounded += 1
                continue
            worst = max(worst, size)
            if seen is not None:
                given, expected, value, rule = seen
                words = f"{rule}; kappa {kappa_label(kappa, '.9g')}"
                failures.append(Failure(_IN_PLACE, record.id, f"sample {number}, z = {given}", expected, value, words))
    verdict: Verdict = "failed" if failures else "passed"
    beside = f"; {hidden} more in functions or sub-graphs are not seen" if hidden else ""
    detail = f"{len(groups)} sites, {elements} pre-activations, bit for bit{beside}"
    if unrounded:
        detail += f"; {unrounded} times float16 was compared with kappa before ONNX Runtime rounded it"
    case.log.add(Check(_IN_PLACE, compared, len(runs), worst, None, 0, verdict, detail), *failures[:1])


def _check_drawn(case: Case, file: Variant, groups: Sequence[SiteGroup], runs: Sequence[_Run]) -> None:
    """Check that kappas drawn for the whole network lie in their range, and are new in every run."""
    random = file.record.plan.random
    if random is None or not file.record.undo.nodes_prepended:
        return
    source = next((group.runtime for group in groups if group.runtime is not None), None)
    drawn = [float(np.asarray(run.values[source]).reshape(())) for run in runs] if source is not None else []
    low, high = float(np.float32(random.low)), float(np.float32(random.high))
    outside = [kappa for kappa in drawn if not low <= kappa <= high]
    what, wanted = "drawn kappa", f"a kappa in [{low:g}, {high:g}]"
    failures = []
    if outside or not drawn:
        shown = f"{outside[0]:.9g}" if outside else "none"
        failures.append(Failure(what, "", "", wanted, shown, ""))
    elif len(drawn) > 1 and len(set(drawn)) == 1:
        failures.append(Failure(what, "", "", "different draws", f"{drawn[0]:.9g} in all {len(drawn)} runs", ""))
    verdict: Verdict = "failed" if failures else "passed"
    detail = "in its range; how it is drawn is not verified"
    case.log.add(Check(what, f"{file.name}: one for the network", len(drawn), 0.0, None, 0, verdict, detail), *failures)


def _rounded_later(z: Array, found: Array, kappa: SiteKappa, record: SiteRecord) -> bool:
    """Tell whether all that is wrong is that z was compared with kappa in float32, and rounded to kappa afterwards.

    ONNX Runtime's CPU provider computes float16 in float32 (see `Case.sees_float16`): z within half a step of kappa may
    then fall on either side, and its result is 0 or z all the same.
    """
    expected = jump_relu(z, kappa, record.cap, record.rank)
    wrong = expected != found
    other = np.where(expected == 0, jump_relu(z, -np.inf, record.cap), np.zeros((), z.dtype))
    jump = kappa_array(kappa, record.rank or z.ndim, z.dtype)
    near = np.abs(z.astype(np.float64) - jump.astype(np.float64)) <= np.spacing(jump).astype(np.float64)
    return bool(np.all(~wrong | (near & (found == other))))


def _kappa(group: SiteGroup, values: Values) -> SiteKappa | None:
    source = kappa_source(group)
    if source is not None:
        return round_kappa(float(np.asarray(values[source]).reshape(())), group.record.dtype)
    return None if group.draws else group.record.kappa


def _check_between(case: Case, file: Variant, groups: Sequence[SiteGroup], runs: Sequence[_Run]) -> None:
    compared = f"{file.name} with the original, its sites cut out"
    source = case.subject.original
    proto, cuts = cut(source.proto, {group.record.id for group in groups}, source.folder)
    model = replace(source, proto=proto)
    of_id = {group.record.id: group for group in groups}
    worst = NO_DIFFERENCE
    accepted = 0.0
    failures: list[Failure] = []
    try:
        session = _CutSession(
            OrtSession(Runnable("the original with its sites cut out", model), "plain"), cuts, case.names
        )
        for number, (sample, run) in enumerate(zip(case.samples, runs, strict=True)):
            found = session.run(sample, {item.output: run.values[item.output] for item in cuts})
            limits = _limits(session, sample, run, cuts, found, seed=case.seed) if case.sees_float16 else {}
            retrofitted = {item.operand: run.values[of_id[item.id].operand] for item in cuts}
            retrofitted.update(zip(case.names, run.outputs, strict=True))
            site_of = {item.operand: item.id for item in reversed(cuts)}
            for name, original in found.items():
                seen = difference(original, retrofitted[name])
                limit = limits.get(name, 0.0)
                worst, accepted = max(worst, seen, key=lambda item: item.size), max(accepted, limit)
                if seen.size > limit and not failures:
                    site = site_of.get(name, "")
                    what = "its pre-activation differs" if site else f"the output {name!r} differs"
                    given = f"sample {number}, element {list(seen.index)}"
                    failures.append(Failure(_BETWEEN, site, given, seen.one, seen.other, what))
    except (CannotLoadError, CannotRunError) as error:
        case.log.not_run(_BETWEEN, compared, error.message)
        return
    verdict: Verdict = "failed" if failures else "passed"
    detail = "pre-activations and outputs" + (", as ONNX Runtime rounds float16" if accepted else ", value for value")
    bound = accepted if case.sees_float16 else None
    case.log.add(Check(_BETWEEN, compared, len(runs), worst.size, bound, 0, verdict, detail), *failures)


class _CutSession:
    """The original with its sites cut out: pre-activations in graph order, then outputs, from the sites' results."""

    def __init__(self, session: OrtSession, cuts: Sequence[CutSite], outputs: Sequence[str]) -> None:
        self._session = session
        fed = {item.output for item in cuts}
        names = [*(item.operand for item in cuts), *outputs]
        self._names = [name for name in dict.fromkeys(names) if name not in fed]

    def run(self, sample: Sample, results: Values) -> dict[str, Any]:
        return dict(zip(self._names, self._session.run({**sample, **results}, self._names), strict=True))


def _limits(
    session: _CutSession, sample: Sample, run: _Run, cuts: Sequence[CutSite], found: dict[str, Any], *, seed: int
) -> dict[str, float]:
    """Return how far values may be off because sites were rounded to float16 to be seen, and are not when they are not.

    Measured: the same cut model, its results moved by one rounding, and its inputs too.
    """
    generator = np.random.default_rng(seed)
    moved = {item.output: nudge(run.values[item.output], generator) for item in cuts}
    inputs = {name: nudge(value, generator) for name, value in sample.items()}
    again = session.run(inputs, moved)
    return {name: rounding_bound([(value, again[name])], working="float16").value for name, value in found.items()}

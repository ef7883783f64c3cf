"""The sites where they stand, in one run of the whole model, and the original's own nodes between them.

    1. In the retrofit every site is seen:          y_i = J(z_i), bit for bit, with NumPy's J.
    2. The original with its sites cut out is fed those y_i:   its z_i and its outputs equal the retrofit's.

Both on ONNX Runtime with optimisation off, so nothing rounds differently and nothing can flip. Together, from the
inputs to the outputs, they say: the retrofit is the original with NumPy's J at its sites, on these inputs, value for
value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jr_onnx.modelfile import ModelFile
from jr_onnx.semantics import round_kappa
from jr_onnx.verify.backends import CannotLoadError, CannotRunError, OrtSession, Runnable
from jr_onnx.verify.compare import NO_DIFFERENCE, difference
from jr_onnx.verify.evaluate import Case
from jr_onnx.verify.groups import SiteGroup
from jr_onnx.verify.inputs import Sample
from jr_onnx.verify.marked import CutSite, cut
from jr_onnx.verify.report import Check, Failure, Verdict
from jr_onnx.verify.sites import compare_jump
from jr_onnx.verify.variants import Variant
from jr_onnx.verify.whole import exposed_runnable

_IN_PLACE, _BETWEEN = "sites in place", "between the sites"
Values = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Run:
    """One run of the retrofit with its sites exposed."""

    values: Values
    outputs: list[Any]


def check_in_situ(case: Case, file: Variant, feeds: Sequence[Sample] | None = None) -> None:
    """Check the sites in place, and the original between them.

    Args:
        case: The comparison's material.
        file: The retrofit.
        feeds: What the retrofit is fed instead of the samples, for instance with a run-time kappa.
    """
    groups = [group for group in file.groups if group.in_main_graph]
    compared = f"{file.name} with NumPy's J"
    hidden = len(file.groups) - len(groups)
    if not groups:
        reason = "all sites stand in functions or sub-graphs, whose values cannot be seen from outside"
        case.findings.not_run(_IN_PLACE, compared, reason)
        case.findings.not_run(_BETWEEN, "the original with its sites cut out", reason)
        return
    names = _names(groups)
    try:
        session = OrtSession(exposed_runnable(file, names), "plain")
        runs = [_run(session, case, names, sample) for sample in (feeds or case.samples)]
    except (CannotLoadError, CannotRunError) as error:
        case.findings.not_run(_IN_PLACE, compared, error.message)
        case.findings.not_run(_BETWEEN, "the original with its sites cut out", error.message)
        return
    del session
    _check_jumps(case, compared, groups, runs, hidden)
    if hidden:
        reason = f"{hidden} sites stand in functions or sub-graphs and cannot be cut out"
        case.findings.not_run(_BETWEEN, "the original with its sites cut out", reason)
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
    elements = 0
    for number, run in enumerate(runs):
        for group in groups:
            z, found = run.values[group.operand], run.values[group.record.output]
            elements += z.size
            kappa = _kappa(group, run.values)
            record = group.record
            if kappa is None:
                continue  # drawn inside the kernel; `draws` looks at these
            seen, size = compare_jump(z, found, kappa, record.cap, cast_mul=record.lowering == "cast_mul")
            worst = max(worst, size)
            if seen is not None:
                given, expected, value, rule = seen
                words = f"{rule}; kappa {kappa:.9g}"
                failures.append(Failure(_IN_PLACE, record.id, f"sample {number}, z = {given}", expected, value, words))
    verdict: Verdict = "failed" if failures else "passed"
    beside = f"; {hidden} more in functions or sub-graphs are not seen" if hidden else ""
    detail = f"{len(groups)} sites, {elements} pre-activations, bit for bit{beside}"
    case.findings.add(Check(_IN_PLACE, compared, len(runs), worst, None, 0, verdict, detail), *failures[:1])


def _kappa(group: SiteGroup, values: Values) -> float | None:
    source = kappa_source(group)
    if source is not None:
        return round_kappa(float(np.asarray(values[source]).reshape(())), group.record.dtype)
    return None if group.draws else group.record.kappa


def _check_between(case: Case, file: Variant, groups: Sequence[SiteGroup], runs: Sequence[_Run]) -> None:
    compared = f"{file.name} with the original, its sites cut out"
    source = case.subject.original
    proto, cuts = cut(source.proto, {group.record.id for group in groups})
    model = ModelFile(source.path, proto, source.payloads, source.sha256, source.length_bytes)
    fed = {item.output for item in cuts}
    of_id = {group.record.id: group for group in groups}
    worst = NO_DIFFERENCE
    failures: list[Failure] = []
    asked = [name for name in case.names if name not in fed]
    seen_names = [item.operand for item in cuts if item.operand not in fed]
    try:
        session = OrtSession(Runnable("the original with its sites cut out", model), "plain")
        for number, (sample, run) in enumerate(zip(case.samples, runs, strict=True)):
            feeds = {**sample, **{item.output: run.values[item.output] for item in cuts}}
            found = session.run(feeds, [*asked, *seen_names])
            outputs = dict(zip(case.names, run.outputs, strict=True))
            pairs = [("", outputs[name], value) for name, value in zip(asked, found, strict=False)]
            pairs += _operands(cuts, of_id, run.values, dict(zip(seen_names, found[len(asked) :], strict=True)))
            for site, retrofitted, original in pairs:
                seen = difference(original, retrofitted)
                worst = max(worst, seen, key=lambda item: item.size)
                if seen and not failures:
                    what = "its pre-activation differs" if site else "an output differs"
                    given = f"sample {number}, element {list(seen.index)}"
                    failures.append(Failure(_BETWEEN, site, given, seen.one, seen.other, what))
    except (CannotLoadError, CannotRunError) as error:
        case.findings.not_run(_BETWEEN, compared, error.message)
        return
    verdict: Verdict = "failed" if failures else "passed"
    detail = "pre-activations and outputs, value for value"
    case.findings.add(Check(_BETWEEN, compared, len(runs), worst.size, None, 0, verdict, detail), *failures)


def _operands(
    cuts: Sequence[CutSite], of_id: dict[str, SiteGroup], retrofitted: Values, original: Values
) -> list[tuple[str, Any, Any]]:
    """Pair the pre-activations of the retrofit with the original's, in graph order."""
    return [
        (item.id, retrofitted[of_id[item.id].operand], original[item.operand])
        for item in cuts
        if item.operand in original
    ]

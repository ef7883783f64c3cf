"""Random kappas and kappas given at run time: what can be said of a value that is new in every run.

    a scalar input      is fed other kappas; the file must equal a fixed retrofit with that kappa, value for value
    a draw per network  its tensor can be read: it lies in [low, high], and the sites in place use it (`insitu`)
    a draw per site     cannot be read from a kernel; it is bracketed: z below it give 0, z above it pass, and the
                        bracket meets [low, high]

How well the numbers are drawn is not what is verified here; RandomUniform is predictable whatever it draws.
"""

from __future__ import annotations

import numpy as np

from jr_onnx.element_types import Array, numpy_dtype
from jr_onnx.errors import JrError
from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile import from_proto
from jr_onnx.provenance import Provenance
from jr_onnx.semantics import channels_of, round_kappa
from jr_onnx.verifier.compare import NO_DIFFERENCE, difference
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError
from jr_onnx.verifier.evaluators.ort import OrtSession, Runnable
from jr_onnx.verifier.report import Check, Failure, Verdict
from jr_onnx.verifier.sites.groups import SiteGroup
from jr_onnx.verifier.sites.probe import OPERAND, probe_model, takes_branch
from jr_onnx.verifier.variants import Variant, variants
from jr_onnx.verifier.whole_model.case import Case, CheckLog, run_all

_RUNS = 32
_GRID = 2048
_DRAWS, _INPUT = "drawn kappa", "kappa given at run time"


def kappa_in_words(record: Provenance) -> str:
    """Return the plan for people."""
    plan = record.plan
    if plan.random is not None:
        return f"U[{plan.random.low:g}, {plan.random.high:g}] per {plan.random.per}, drawn by {plan.random.source}"
    values = sorted({kappa for site in record.sites for kappa in channels_of(site.kappa)})
    text = f"{values[0]:.9g}" if len(values) == 1 else f"{values[0]:.9g} to {values[-1]:.9g}"
    if any(isinstance(site.kappa, tuple) for site in record.sites):
        text += ", per channel"
    return f"{text}, default of the input {plan.input_name!r}" if plan.input_name else text


def check_draws(file: Variant, log: CheckLog) -> None:
    """Bracket the kappa that a site draws for itself, over many runs."""
    random = file.record.plan.random
    if random is None:
        return
    groups = [group for group in file.groups if group.draws]
    compared = f"{file.name}: {len(groups)} sites with U[{random.low:g}, {random.high:g}]"
    failures: list[Failure] = []
    seen: set[tuple[float, float]] = set()
    try:
        for group in groups:
            failures.extend(_bracket(file, group, random.low, random.high, seen))
    except (CannotLoadError, CannotRunError) as error:
        log.not_run(_DRAWS, compared, error.message)
        return
    if len(seen) < 2 and not failures:
        words = f"{len(groups)} sites and {_RUNS} runs of each gave one kappa"
        failures.append(Failure(_DRAWS, groups[0].record.id, "", "different draws", "the same draw", words))
    verdict: Verdict = "failed" if failures else "passed"
    detail = f"bracketed in {_RUNS} runs of every site; {len(seen)} different draws; how they are drawn is not verified"
    log.add(Check(_DRAWS, compared, _RUNS * len(groups), 0.0, None, 0, verdict, detail), *failures[:1])


def _bracket(file: Variant, group: SiteGroup, low: float, high: float, seen: set[tuple[float, float]]) -> list[Failure]:
    probe = probe_model(file.proto, group)
    session = OrtSession(Runnable(f"site {group.record.id}", from_proto(probe), library=file.runnable.library), "plain")
    dtype = numpy_dtype(group.record.dtype)
    margin = (high - low) / 2
    z = np.unique(np.linspace(max(low - margin, 0), high + margin, _GRID).astype(dtype))
    z = z[z > 0]
    feeds: dict[str, Array] = {OPERAND: z}
    take = takes_branch(probe)
    if take is not None:
        feeds[take] = np.asarray(True)
    for _ in range(_RUNS):
        y = np.asarray(session.run(feeds)[0])
        passes = y != 0
        first = int(passes.argmax()) if passes.any() else len(z)
        below = float(z[first - 1]) if first else 0.0
        above = float(z[first]) if first < len(z) else float("inf")
        seen.add((below, above))
        expected = np.where(np.arange(len(z)) >= first, z, np.zeros((), dtype))
        if group.record.cap is not None:
            expected = np.minimum(expected, np.asarray(group.record.cap, dtype=dtype))
        given = f"z from {float(z[0]):.9g} to {float(z[-1]):.9g}"
        if not np.array_equal(y, expected):
            return [Failure(_DRAWS, group.record.id, given, "0 up to a kappa, z above it", "something else", "")]
        if below > high or above < low:
            bracket = f"({below:.9g}, {above:.9g}]"
            return [Failure(_DRAWS, group.record.id, given, f"a kappa in [{low:g}, {high:g}]", bracket, "")]
    return []


def check_kappa_input(case: Case, file: Variant) -> None:
    """Feed other kappas and compare with fixed retrofits."""
    name = file.record.undo.inputs_added[0]
    for kappa in _kappas_to_feed(file.record):
        compared = f"{file.name} fed {kappa:g} with a fixed retrofit"
        fixed = {site.id: round_kappa(kappa, site.dtype) for site in file.record.sites}
        try:
            members, _ = variants(case.subject.original, KappaPlan(by_site=tuple(fixed.items())), ("where",))
            expected = run_all(members[0].runnable, "plain", case.samples)
            feeds = [{**sample, name: np.asarray(kappa, dtype=np.float32)} for sample in case.samples]
            found = run_all(file.runnable, "plain", feeds)
        except (JrError, IndexError) as error:
            case.log.not_run(_INPUT, compared, str(error))
            continue
        worst = NO_DIFFERENCE
        failures: list[Failure] = []
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            for left, right in zip(one, other, strict=True):
                seen = difference(left, right)
                worst = max(worst, seen, key=lambda item: item.size)
                if seen and not failures:
                    given = f"sample {number}, {name} = {kappa:g}, output element {list(seen.index)}"
                    failures.append(Failure(_INPUT, "", given, seen.one, seen.other, ""))
        verdict: Verdict = "failed" if failures else "passed"
        case.log.add(Check(_INPUT, compared, len(found), worst.size, None, 0, verdict), *failures)


def _kappas_to_feed(record: Provenance) -> list[float]:
    """Return kappas other than the default, exact in float32."""
    random = record.plan.random
    wanted = [random.low, random.high] if random is not None else [0.0, 2 * (record.plan.kappa or 0.0) + 0.5]
    return [float(np.float32(value)) for value in wanted]

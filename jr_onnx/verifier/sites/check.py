"""Level one: every distinct lowered site alone, tried with the jump, its neighbours and all special values.

Compared bit for bit with NumPy's J. `cast_mul` and `log_step` are the exceptions, documented with the lowerings: they
may give -0.0 where J gives +0.0, and keep NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from jr_onnx.element_types import Array
from jr_onnx.modelfile import from_proto
from jr_onnx.provenance import form_label
from jr_onnx.rewriter.lowering import KEEPS_NAN
from jr_onnx.semantics import SiteKappa, jump_relu, kappa_label, round_kappa
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError
from jr_onnx.verifier.evaluators.ort import LEVELS, Level, OrtSession, Runnable
from jr_onnx.verifier.evaluators.reference import OnnxEvaluator
from jr_onnx.verifier.report import Check, Failure, Verdict
from jr_onnx.verifier.sites.groups import SiteGroup
from jr_onnx.verifier.sites.probe import OPERAND, RUNTIME, kind_of, probe_model, signature, takes_branch
from jr_onnx.verifier.sites.values import channel_values, probe_values

_RANDOM_VALUES = 4096
_REFERENCE = "ONNX reference"


@dataclass(frozen=True)
class DistinctSite:
    """A site's nodes as a model of their own, and the sites of the file that have the same."""

    group: SiteGroup
    probe: onnx.ModelProto
    others: int

    @property
    def label(self) -> str:
        """Form, type, kappa, cap, lowering and kind of scope, for people."""
        record = self.group.record
        more = f" and {self.others} alike" if self.others else ""
        kind = kind_of(self.group)
        where = "" if kind == "main" else f" in a {kind}"
        return f"{form_label(record.form, record.cap)} {record.dtype}{where} ({record.id}{more})"


def distinct_sites(model: onnx.ModelProto, groups: Sequence[SiteGroup]) -> list[DistinctSite]:
    """Return one representative of all sites whose nodes differ in names alone."""
    first: dict[bytes, tuple[SiteGroup, onnx.ModelProto, int]] = {}
    for group in groups:
        probe = probe_model(model, group)
        record = group.record
        # The record belongs to the key: two equal groups with different recorded kappas are two sites.
        expected = f"{record.form}|{record.dtype}|{record.kappa!r}|{record.cap!r}|{record.lowering}".encode()
        key = signature(probe) + expected
        group_, probe_, count = first.get(key, (group, probe, -1))
        first[key] = (group_, probe_, count + 1)
    return [DistinctSite(group, probe, count) for group, probe, count in first.values()]


def check_sites(
    name: str, model: onnx.ModelProto, groups: Sequence[SiteGroup], *, library: bool, seed: int
) -> tuple[list[Check], list[Failure]]:
    """Try every distinct site of a retrofit on ONNX Runtime at both settings, or with the reference where it cannot.

    Args:
        name: What the model is called in the report.
        model: The retrofit.
        groups: Its sites, none of which draws its own kappa.
        library: Whether to register the op library.
        seed: Seed of the random values.
    """
    title = f"sites of {name}"
    tallies: dict[str, _Tally] = {}
    failures: list[Failure] = []
    for distinct in distinct_sites(model, groups):
        for level in LEVELS:
            where = f"ONNX Runtime {level}"
            try:
                values, failure, size = _try_ort(distinct, level, title, library=library, seed=seed)
            except (CannotLoadError, CannotRunError) as error:
                tally = tallies.setdefault(where, _Tally())
                tally.refused += 1
                tally.reason = f"{distinct.label}: {error.message}"
                if level == "plain":
                    values, failure, size = _try_reference(distinct, title, seed=seed)
                    if values:
                        tallies.setdefault(_REFERENCE, _Tally()).add(values, size, failure)
                    if failure is not None:
                        failures.append(failure)
                continue
            tallies.setdefault(where, _Tally()).add(values, size, failure)
            if failure is not None:
                failures.append(failure)
    return [check for where, tally in tallies.items() for check in tally.checks(title, where)], failures


@dataclass
class _Tally:
    """What one evaluator said of all distinct sites."""

    sites: int = 0
    values: int = 0
    worst: float = 0.0
    failed: int = 0
    refused: int = 0
    reason: str = ""

    def add(self, values: int, size: float, failure: Failure | None) -> None:
        self.sites += 1
        self.values += values
        self.worst = max(self.worst, size)
        self.failed += failure is not None

    def checks(self, title: str, where: str) -> list[Check]:
        found = []
        if self.sites:
            verdict: Verdict = "failed" if self.failed else "passed"
            detail = f"{self.sites} distinct sites" + (f", {self.failed} of them wrong" if self.failed else "")
            compared = f"{where} with NumPy's J, bit for bit"
            found.append(Check(title, compared, self.values, self.worst, None, 0, verdict, detail))
        if self.refused:
            detail = f"not run on ONNX Runtime: {self.reason}"
            found.append(Check(title, where, 0, 0.0, None, 0, "not run", detail))
        return found


def _try_ort(
    distinct: DistinctSite, level: Level, check: str, *, library: bool, seed: int
) -> tuple[int, Failure | None, float]:
    runnable = Runnable(f"site {distinct.group.record.id}", from_proto(distinct.probe), library=library)
    session = OrtSession(runnable, level)
    return _try(distinct, lambda feeds: session.run(feeds)[0], check, seed)


def _try_reference(distinct: DistinctSite, check: str, *, seed: int) -> tuple[int, Failure | None, float]:
    try:
        evaluator = OnnxEvaluator(distinct.probe)
        return _try(distinct, lambda feeds: evaluator.run(feeds)[0], check, seed)
    except (CannotLoadError, CannotRunError) as error:
        message = f"neither ONNX Runtime nor the reference evaluator can run it: {error.message}"
        return 0, Failure(check, distinct.group.record.id, "", "", "", message), 0.0


def _try(distinct: DistinctSite, run: Any, check: str, seed: int) -> tuple[int, Failure | None, float]:
    """Feed all values, for a run-time kappa with several kappas, and compare."""
    record, group = distinct.group.record, distinct.group
    generator = np.random.default_rng(seed)
    kappas: list[SiteKappa] = [record.kappa]
    if group.runtime is not None and not isinstance(record.kappa, tuple):
        kappas = [*_runtime_kappas(record.kappa, record.dtype)]
    count, worst = 0, 0.0
    for kappa in kappas:
        jump = kappa if group.runtime is None else round_kappa(kappa, record.dtype)
        if isinstance(jump, tuple):
            rank = record.rank or 0
            z = channel_values(record.dtype, jump, record.cap, rank, _RANDOM_VALUES, generator)
        else:
            marks = [jump] + ([record.cap] if record.cap is not None else [])
            z = probe_values(record.dtype, marks, _RANDOM_VALUES, generator)
        feeds: dict[str, Array] = {OPERAND: z}
        if group.runtime is not None:
            feeds[RUNTIME] = np.asarray(kappa, dtype=np.float32)
        take = takes_branch(distinct.probe)
        if take is not None:
            feeds[take] = np.asarray(True)
        found = np.asarray(run(feeds))
        failure, size = compare_jump(z, found, jump, record.cap, cast_mul=record.lowering in KEEPS_NAN)
        count += z.size
        worst = max(worst, size)
        if failure is not None:
            given, expected, value, rule = failure
            more = f"{rule}; kappa {kappa_label(jump, '.9g')}" + ("" if record.cap is None else f", cap {record.cap:g}")
            return count, Failure(check, record.id, f"z = {given}", expected, value, more), worst
    return count, None, worst


def _runtime_kappas(default: float, dtype: str) -> list[float]:
    """Return float32 kappas to feed a site whose kappa is a run-time scalar."""
    near = [float(np.nextafter(np.float32(default), np.float32(limit))) for limit in (0.0, 1e9)]
    return [default, 0.0, *near, 0.5, 1.0 if dtype == "bfloat16" else 3.0e-3, 7.0]


def compare_jump(
    z: Array, found: Array, kappa: SiteKappa, cap: float | None, *, cast_mul: bool = False, rank: int | None = None
) -> tuple[tuple[str, str, str, str] | None, float]:
    """Compare a site's result with NumPy's J, bit for bit.

    Args:
        z: What the site was given.
        found: What it gave.
        kappa: The jump, rounded to the type of `z`, or one for each channel, axis 1.
        cap: Upper bound or None.
        rank: As for `jump_relu`.
        cast_mul: Allow what that lowering documents: -0.0 for +0.0, and NaN where z is NaN.

    Returns:
        The first disagreement as texts (z, expected, found, rule) or None, and the largest difference.
    """
    expected = jump_relu(z, kappa, cap, rank)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        shapes = f"{expected.dtype}{list(expected.shape)}", f"{found.dtype}{list(found.shape)}"
        return ("all values", *shapes, "shape and type"), float("inf")
    z, found, expected = (np.atleast_1d(array) for array in (z, found, expected))  # a scalar has nothing to index
    wrong = _bits(found) != _bits(expected)
    if cast_mul:
        wrong &= ~((found == expected) & (expected == 0))
        wrong &= ~(np.isnan(z) & np.isnan(found))
    if not wrong.any():
        return None, 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(found.astype(np.float64) - expected.astype(np.float64))[wrong]
    place = int(np.flatnonzero(wrong.reshape(-1))[0])
    size = float(np.where(np.isnan(gap), np.inf, gap).max())
    texts = _text(z, place), _text(expected, place), _text(found, place), "bit for bit"
    return texts, size


def _bits(array: Array) -> Array:
    kinds: dict[int, Any] = {2: np.uint16, 4: np.uint32, 8: np.uint64}
    return np.ascontiguousarray(array).view(kinds[int(array.dtype.itemsize)])


def _text(array: Array, place: int) -> str:
    value = array.reshape(-1)[place]
    return f"{float(value)!r} ({array.dtype})"

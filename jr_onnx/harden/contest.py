"""Hold hardened files against their original: one adaptive suite, the same images, paired statistics, a recommendation.

The images are those of the test split, which training did not use. Every file is attacked by the same entries, judged
in ONNX Runtime, and compared with the original sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from jr_onnx import provenance
from jr_onnx.attack.norms import Norm
from jr_onnx.attack.suite.plan import SuiteName
from jr_onnx.attack.suite.run import Progress, run
from jr_onnx.attack.suite.setup import AttackRequest, prepare_files
from jr_onnx.data import ImageData
from jr_onnx.errors import require_choice
from jr_onnx.evaluation.numbers import points, points_interval
from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.statistics import mcnemar_one_sided
from jr_onnx.evaluation.store import Store, merged
from jr_onnx.evaluation.summary import (
    ALL_ATTACKS,
    ORIGINAL,
    RETROFIT,
    Comparison,
    Evaluation,
    ModelFigures,
    Share,
    evaluate,
    survivors,
)
from jr_onnx.harden.record import Contest
from jr_onnx.modelfile import load as load_file

HARDENED, WITH_JUMP = "hardened", "hardened with jump"
_LEVEL = 0.05


@dataclass(frozen=True)
class ContestRequest:
    """What is compared.

    Attributes:
        files: Label -> file; the original first.
        data: Images that training did not use.
        attack: Preprocessing, device, values, logits, seed, norm, eps and folder of the attacks; its model, plan and
            data are ignored.
    """

    files: Mapping[str, Path]
    data: ImageData
    attack: AttackRequest


def hold(request: ContestRequest, notify: Callable[[Progress], None] = lambda _: None) -> Contest:
    """Attack all files with one suite, and say which to deploy.

    Args:
        request: What is compared.
        notify: Called before and after every unit of work.

    Raises:
        InputError: Files, data and options do not fit together.
        VerificationError: A torch module does not compute what ONNX Runtime computes.
        OutputError: The folder holds another evaluation.
    """
    require_choice("the suite", request.attack.suite, get_args(SuiteName))
    require_choice("the norm", request.attack.norm, get_args(Norm))
    kappas, digests = {}, {}
    for label, path in request.files.items():
        file = load_file(path)
        digests[label] = file.sha256
        found = provenance.read(file.proto)
        sites = () if found is None else found.sites
        kappas[label] = {site.id: site.kappa for site in sites}
    prepared = prepare_files(
        replace(request.attack, data=request.data, force=True), request.files, digests, kappas, same_weights=False
    )
    store = Store(request.attack.out)
    store.open(prepared.record)
    run(prepared.work, store, notify)
    record, outcomes = merged([request.attack.out])
    evaluations = {}
    for label in request.files:
        if label == ORIGINAL:
            continue
        models = {ORIGINAL: record.models[ORIGINAL], RETROFIT: record.models[label]}
        pair = {ORIGINAL: outcomes[ORIGINAL], RETROFIT: _relabelled(outcomes[label])}
        evaluations[label] = evaluate(replace(record, models=models, kappas=kappas[label]), pair)
    chosen, reason = recommend(evaluations, outcomes)
    names = {label: path.name for label, path in request.files.items()}
    return Contest(names, evaluations, chosen, reason)


def _relabelled(outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    return {entry: replace(outcome, model=RETROFIT) for entry, outcome in outcomes.items()}


def worst_case(figures: ModelFigures) -> Share:
    """Return the robust accuracy of a model against all attacks together."""
    return next(item.robust for item in figures.worst if item.group == ALL_ATTACKS)


def gain_of(evaluation: Evaluation) -> Comparison:
    """Return the paired comparison of the robust accuracies against all attacks together."""
    return next(item for item in evaluation.comparisons if ALL_ATTACKS in item.what)


def recommend(evaluations: Mapping[str, Evaluation], outcomes: Mapping[str, Mapping[str, Outcome]]) -> tuple[str, str]:
    """Return the label of the file to deploy, and why.

    A file is preferred to the original only where a paired test shows it; a jump only where one shows that the same
    weights are more robust with it.
    """
    sure = {
        label: item
        for label, item in evaluations.items()
        if gain_of(item).difference > 0 and gain_of(item).p_value < _LEVEL
    }
    if not sure:
        return ORIGINAL, "no hardened file is significantly harder to fool than the original"
    best = max(sure, key=lambda label: worst_case(_figures(sure[label])).value)
    remark = ""
    if best == WITH_JUMP and HARDENED in evaluations:
        with_jump, without = (survivors(list(outcomes[label].values())) for label in (WITH_JUMP, HARDENED))
        p_value, difference = mcnemar_one_sided(with_jump, without)
        if p_value >= _LEVEL:
            remark = f"; the jump adds {points(difference)} points (p {p_value:.2g}), which is not significant"
            best = HARDENED if HARDENED in sure else best
    gain, clean = gain_of(evaluations[best]), evaluations[best].comparisons[0]
    text = (
        f"robust accuracy {points(gain.difference)} points (95% interval {points_interval(gain)}, p "
        f"{gain.p_value:.2g}) at {points(clean.difference)} points of clean accuracy"
    )
    return best, text + remark


def _figures(evaluation: Evaluation) -> ModelFigures:
    return next(item for item in evaluation.models if item.model == RETROFIT)

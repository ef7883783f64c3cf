"""Table 3: how well LID tells adversarial examples from clean and noisy images, ReLU against JumpReLU.

Both networks are judged on the same images: those that the attack fools on both. So the difference of the areas has a
paired interval, by resampling images.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from jr_onnx.attack.apgd import APGD
from jr_onnx.attack.suite.plan import Entry
from jr_onnx.detect.evaluate import LEAST_IMAGES, area, fitted_scores, noise_like, wins
from jr_onnx.detect.lid import LidFeatures
from jr_onnx.errors import require
from jr_onnx.kappa import KappaPlan
from jr_onnx.reproduce.attacks import COLUMNS, paper_entry
from jr_onnx.reproduce.measuring import Bench, Measured, measure
from jr_onnx.reproduce.networks import Checkpoint
from jr_onnx.reproduce.paper import ATTACKS, DETECTION
from jr_onnx.reproduce.result import Cell, ItemResult

RELU, JUMP = tuple(DETECTION)
DIFFERENCE = "JumpReLU minus ReLU"
ADAPTIVE = "APGD, adaptive"
REFERENCE, NEIGHBOURS, SEED = 100, 20, 0
_ROUNDS = 1000
Floats = npt.NDArray[np.float64]


def detection(bench: Bench, checkpoint: Checkpoint) -> ItemResult:
    """Measure table 3 on one network; the first `REFERENCE` images are the reference of LID and are not attacked on."""
    require("sklearn", "attack")
    network, cells, notes = checkpoint.network, [], []
    entries = {COLUMNS[name]: paper_entry(network, name) for name in bench.attacks}
    entries[ADAPTIVE] = Entry(
        "apgd", APGD(norm="linf", eps=2 * network.eps, backward="smooth:5"), "surrogate", "white_box"
    )
    printed = [COLUMNS[name] for name in ATTACKS]
    plans = {RELU: None, JUMP: KappaPlan(network.kappa)}
    limit = bench.at_most(bench.adaptive_limit)
    for column, entry in entries.items():
        found = measure(bench, checkpoint, f"detect-{column.partition(',')[0].lower()}", plans, [entry], limit=limit,
                        keep=True)  # fmt: skip
        chosen = _fooled_on_both(found, entry.name)
        if len(chosen) < 4 * LEAST_IMAGES:
            notes.append(
                f"{column}: not measured: the attack fools both networks on {len(chosen)} of {len(found.data)} images, "
                f"expected {4 * LEAST_IMAGES} (raise --adaptive-limit)"
            )
            continue
        place = printed.index(column) if column in printed else None
        cells += _column(found, entry.name, chosen, column, place)
    notes += [
        f"LID of {NEIGHBOURS} neighbours among {REFERENCE} reference images, a feature a layer; logistic regression on "
        "half of the images, area on the other half; images are split, not rows",
        "only images that the attack fools on both networks; noisy partners are as far away as the adversarial ones",
        "no attack knows the detector, so an area is what it is worth at most",
        "the paper names neither network, nor k, nor the noise, so its numbers are not a target",
    ]
    title = f"Table 3: detection by LID; {network.title}, {checkpoint.variant}, kappa {network.kappa:g}"
    return bench.result(f"table-3{network.letter}", title, "table", list(entries), cells, notes, [checkpoint])


def _fooled_on_both(found: Measured, entry: str) -> npt.NDArray[np.int64]:
    both = np.logical_and(*(outcomes[entry].fooled for outcomes in found.outcomes.values()))
    both[:REFERENCE] = False
    return np.flatnonzero(both)


def _column(found: Measured, entry: str, chosen: npt.NDArray[np.int64], column: str, place: int | None) -> list[Cell]:
    train = np.random.default_rng(SEED).random(len(chosen)) < 0.5
    scores = {label: _scores(found, label, entry, chosen, train) for label in found.outcomes}
    cells = []
    for label, rows in scores.items():
        auc, low, high = area(rows, SEED)
        paper = DETECTION[label][place] if place is not None else None
        cells.append(Cell(label, column, "auc", 100 * auc, 100 * low, 100 * high, len(rows), paper, column == ADAPTIVE))
    middle, low, high = _difference(scores)
    return [*cells, Cell(DIFFERENCE, column, "auc", middle, low, high, int((~train).sum()), None, column == ADAPTIVE)]


def _scores(
    found: Measured, label: str, entry: str, chosen: npt.NDArray[np.int64], train: npt.NDArray[np.bool_]
) -> Floats:
    target = found.contenders[label].target
    if target is None:
        raise TypeError("a contender has a target, or `measure` had refused it")
    images = found.data.images
    features = LidFeatures(target, images[:REFERENCE], neighbours=NEIGHBOURS)
    clean, adversarial = images[chosen], np.clip(found.adversarials(label, entry)[chosen], 0, 1)
    forms = (clean, noise_like(clean, adversarial, SEED), adversarial)
    return fitted_scores(np.stack([features(form) for form in forms], axis=1), train)


def _difference(scores: Mapping[str, Floats]) -> tuple[float, float, float]:
    """Return the difference of two areas on the same images, in per cent, with a 95 % bootstrap interval."""
    tables = [wins(scores[label]) for label in (JUMP, RELU)]
    count = len(tables[0])
    weights = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=_ROUNDS) / count
    drawn = [np.einsum("ri,ij,rj->r", weights, table, weights, optimize=True) for table in tables]
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    return 100 * float(tables[0].mean() - tables[1].mean()), 100 * float(low), 100 * float(high)

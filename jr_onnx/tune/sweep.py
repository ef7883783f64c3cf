"""The search, on validation data only: kappa over a grid, then site by site, against accuracy and an objective."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from jr_onnx.attack.classifier.request import ClassifierRequest
from jr_onnx.attack.classifier.served import ServedClassifier
from jr_onnx.attack.judging import DECISION_DRAWS
from jr_onnx.attack.torch_target import TorchTarget
from jr_onnx.data import ImageData
from jr_onnx.errors import InputError, KappaError
from jr_onnx.evaluation.numbers import points as in_points
from jr_onnx.evaluation.numbers import points_interval
from jr_onnx.evaluation.scores import predictions
from jr_onnx.evaluation.statistics import binomial_tail, paired_difference, wilson
from jr_onnx.evaluation.store import host, versions
from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile import load as load_model
from jr_onnx.quantised import is_quantised
from jr_onnx.rewriter import find_sites, rewrite
from jr_onnx.rewriter.pair import open_pair
from jr_onnx.semantics import SiteKappa, is_jump, validate_kappa
from jr_onnx.tune.clean import CleanAccuracy
from jr_onnx.tune.objective import Objective
from jr_onnx.tune.records import TunePoint, TuneResult
from jr_onnx.tune.site_search import SiteSearch

QUANTILES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""The default grid: these quantiles of the positive pre-activations, so that a kappa silences that share of them."""

LEVEL = 0.05
"""Significance level of a gain, divided by the number of kappas tried."""

_ROUNDS = 1000
_OBSERVED = 64

Floats = npt.NDArray[np.float64]
Notify = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class TuneRequest(ClassifierRequest):
    """What to tune: an original, or a retrofit, whose kappas are then ignored, on a validation split.

    Attributes:
        objective: What kappa is chosen for.
        attacked: How many of the samples the objective is measured on, from the front.
        grid: Kappas to try; empty for the default grid. 0 is always tried.
        candidates: Name -> map of sites (ids or regular expressions) to kappas, numbers or one for each channel, to
            measure as well as the grid; sites that a map does not name stay at 0.
        max_drop: Largest allowed drop of clean accuracy, as a share.
        per_site: Search site by site too.
        passes: How often that goes over all sites at most; it ends when a pass changes nothing.
        test: Some images of the test split, to notice a validation split that was trained on; never attacked.
    """

    objective: Objective = field(default_factory=Objective)
    attacked: int = 200
    grid: tuple[float, ...] = ()
    candidates: Mapping[str, Mapping[str, SiteKappa]] = field(default_factory=dict)
    max_drop: float = 0.01
    per_site: bool = False
    passes: int = 3
    test: ImageData | None = None

    def __post_init__(self) -> None:
        """Refuse an invalid grid or limit."""
        for kappa in self.grid:
            validate_kappa(kappa, "a kappa of the grid")
        if not 0 <= self.max_drop <= 1:
            raise InputError(f"the largest accuracy drop is {self.max_drop}, expected 0 to 1 (0 % to 100 %)")
        if self.passes < 1:
            raise InputError(f"the number of passes is {self.passes}, expected 1 or more")


def tune_kappa(request: TuneRequest, notify: Notify | None = None) -> TuneResult:
    """Measure the trade-off, and recommend a kappa, which may be 0.

    Args:
        request: What to tune.
        notify: Called after every setting, with how many are done, how many there are, and the setting.

    Raises:
        InputError: The model has no site.
        UnsupportedOpsError: torch cannot evaluate the model, so that there are no gradients.
        VerificationError: torch computes something else than ONNX Runtime.
    """
    with tempfile.TemporaryDirectory(prefix="jr-onnx-tune-") as folder:
        model, _ = open_pair(request.model).save(Path(folder))
        search = _Search(request, model, Path(folder), notify or (lambda *_: None))
        points = search.uniform()
        points += search.candidates()
        if request.per_site:
            found = search.by_site(points)
            points += [found] if found not in points else []
        test_clean = search.test_accuracy(points[0].clean)
    best, reason = recommend(points, request.max_drop, request.objective, tried=search.measured - 1)
    return TuneResult(
        model=request.model.name,
        data=request.data.name,
        data_sha256=request.data.digest,
        samples=len(request.data),
        attacked=min(request.attacked, len(request.data)),
        objective=request.objective.name,
        measure=request.objective.measure,
        max_drop=request.max_drop,
        points=tuple(points),
        recommended=best,
        reason=reason,
        logits=search.logits,
        notes=tuple(dict.fromkeys(search.notes)),
        test_clean=test_clean,
        seed=request.objective.seed,
        versions=versions(),
        host=host(),
    )


def recommend(points: Sequence[TunePoint], max_drop: float, objective: Objective, *, tried: int) -> tuple[int, str]:
    """Choose among points.

    Args:
        points: Kappa 0, then the others.
        max_drop: Largest allowed drop of clean accuracy.
        objective: What was measured.
        tried: How many settings were measured to find the points: the level of significance is divided by it.

    Returns:
        The position of the chosen point, and the reason.
    """
    tried = max(1, tried)
    allowed = [place for place, point in enumerate(points) if place and point.allowed]
    if not allowed:
        return 0, f"every kappa above 0 costs more than {max_drop:.1%} of clean accuracy"
    sure = [place for place in allowed if points[place].p_value * tried < LEVEL and points[place].gain > 0]
    if not sure:
        best = max(allowed, key=lambda place: points[place].gain)
        return 0, (
            f"no allowed kappa gains significantly over kappa 0: the largest gain is {_gain(points[best], tried)}"
        )
    best = max(sure, key=lambda place: (points[place].objective, points[place].clean))
    chosen = points[best]
    text = f"gains {_gain(chosen, tried)} at {in_points(-chosen.drop)} points of clean accuracy"
    if objective.name == "paper":
        text += "; under the paper's protocol, which does not adapt: check it with --objective adaptive"
    return best, text


def _gain(point: TunePoint, tried: int) -> str:
    return (
        f"{in_points(point.gain)} points (95% interval {points_interval(point)}, p "
        f"{min(1.0, point.p_value * tried):.2g} for {tried} tries)"
    )


class _Search:
    """Measures settings, each once."""

    def __init__(self, request: TuneRequest, model: Path, folder: Path, notify: Notify) -> None:
        self.request, self.notify = request, notify
        without_torch = request.objective.name == "black-box"
        opener = request.opener(batch=request.objective.batch, black_box=without_torch)
        self.target: TorchTarget | None = None
        if without_torch:
            served, _ = opener.open(model)
            self.sites = [site.id for site in find_sites(load_model(model).proto).sites]
        else:
            served, net = opener.open_in_torch(model)
            self.target, self.sites = TorchTarget(net, request.preprocessing), list(net.sites)
        self.logits, self.notes = opener.described, opener.notes
        if not self.sites:
            raise InputError(f"{request.model.name} has no site, so there is no kappa to choose")
        # Of a quantised model torch is a twin that may decide otherwise: what it finds is replayed.
        self._replays = is_quantised(load_model(model).proto)
        self._model, self._folder, self._served = model, folder, served
        self._opener = replace(opener, black_box=True, notes=[])
        self.clean = CleanAccuracy(
            model,
            folder,
            request.data,
            request.preprocessing,
            head=served.head,
            random=served.random,
            batch=request.objective.batch,
            values=request.values,
        )
        self.attacked = request.data.take(np.arange(min(request.attacked, len(request.data))))
        self._candidates = {name: self._on_sites(name, kappas) for name, kappas in request.candidates.items()}
        self.done, self.total, self.measured = 0, 0, 0
        self.base: tuple[float, Floats] | None = None

    def uniform(self) -> list[TunePoint]:
        """Measure the grid; clean accuracies come from one session."""
        wanted = self.request.grid
        if not wanted and self.target is None:
            raise InputError(
                "without torch no grid of kappas can be derived from the pre-activations", hint="Give --grid"
            )
        if not wanted and self.target is not None:
            wanted = default_grid(self.target, self.attacked)
        grid = sorted({0.0, *wanted})
        self.total = len(grid) + len(self._candidates) + (len(self.sites) * len(grid) if self.request.per_site else 0)
        hits = self.clean.sweep(grid)
        return [
            self._point(kappa, dict.fromkeys(self.sites, kappa), float(np.mean(right)))
            for kappa, right in zip(grid, hits, strict=True)
        ]

    def candidates(self) -> list[TunePoint]:
        """Measure the maps that were given."""
        return [
            self._point(None, kappas, self._accuracy(kappas), name, name=name)
            for name, kappas in self._candidates.items()
        ]

    def _on_sites(self, name: str, kappas: Mapping[str, SiteKappa]) -> dict[str, SiteKappa]:
        """Return site id -> kappa of a map.

        Raises:
            KappaError: A kappa is invalid, an entry names no site, or a site has another number of channels.
        """
        plan = KappaPlan.of(kappas)
        if lost := plan.unmatched(self.sites):
            raise KappaError(
                f"the map {name} has an entry for {lost[0]!r}, and the model has no such site",
                hint="jr-onnx inspect lists the sites",
            )
        found = {site: kappa or 0.0 for site, kappa in plan.for_sites(self.sites).items()}
        if self.target is not None:
            with torch.no_grad():  # one image: before anything is measured
                pixels = torch.from_numpy(self.request.data.images[:1]).to(self.target.device)
                self.target.with_kappa(found).logits(pixels)
        return found

    def by_site(self, points: Sequence[TunePoint]) -> TunePoint:
        """Improve one site's kappa at a time, from the best allowed of the points."""
        clean, grid = points[0].clean, [point.kappa for point in points if point.kappa is not None]
        search = SiteSearch(
            self.sites,
            grid,
            self.request.passes,
            lambda kappas, what: self._allowed(kappas, clean, what),
            self._count,
            self._extend,
        )
        return search.run(points)

    def _allowed(self, kappas: dict[str, SiteKappa], clean: float, what: str) -> TunePoint | None:
        """Measure a setting, unless it costs too much of the clean accuracy."""
        accuracy = self._accuracy(kappas)
        if clean - accuracy > self.request.max_drop:
            return None
        return self._point(None, kappas, accuracy, what)

    def _point(
        self, kappa: float | None, kappas: dict[str, SiteKappa], accuracy: float, what: str = "", *, name: str = ""
    ) -> TunePoint:
        scores = self._scores(kappas)
        if self.base is None:
            self.base = accuracy, scores
        before, reference = self.base
        low, high = _interval(scores, reference, self.request.objective.seed)
        more, less = int(np.sum(scores > reference)), int(np.sum(scores < reference))
        self.measured += 1
        self._count(what or f"kappa {kappa:g}")
        return TunePoint(
            kappa=kappa,
            kappas=kappas,
            clean=accuracy,
            drop=before - accuracy,
            objective=float(scores.mean()),
            gain=float(np.mean(scores - reference)),
            low=low,
            high=high,
            p_value=binomial_tail(more, more + less, 0.5),
            allowed=before - accuracy <= self.request.max_drop,
            name=name,
        )

    def test_accuracy(self, clean: float) -> float | None:
        """Return clean accuracy on test images, and note where validation images may have been trained on."""
        test, count = self.request.test, len(self.request.data)
        if test is None or not len(test):
            return None
        right = int((~self._served.misclassifies(test.images, test.labels)).sum())
        # Intervals that do not even touch: memory, not chance.
        if wilson(round(clean * count), count)[0] > wilson(right, len(test))[1]:
            self.notes.append(
                f"warning: {clean:.1%} of the validation images are classified correctly, of {len(test)} test images "
                f"{right / len(test):.1%}: the model may have been trained on the former, so that what is measured on "
                "them is too good"
            )
        return right / len(test)

    def _extend(self, steps: int) -> None:
        self.total += steps

    def _count(self, what: str) -> None:
        self.done += 1
        self.notify(self.done, self.total, what)

    def _scores(self, kappas: dict[str, SiteKappa]) -> Floats:
        objective, images, labels = self.request.objective, self.attacked.images, self.attacked.labels
        if self.target is None:
            return objective.scores_of_served(self._served_at(kappas).target(), images, labels)
        replay = self._served_at(kappas).misclassifies if self._replays else None
        return objective.scores(self.target, kappas, images, labels, replay=replay)

    def _served_at(self, kappas: dict[str, SiteKappa]) -> ServedClassifier:
        """Return the file that would be served with these kappas."""
        if not any(map(is_jump, kappas.values())):
            return self._served
        path = self._folder / "setting.jr.onnx"
        rewrite(self._model, KappaPlan(by_site=tuple(kappas.items())), output=path, force=True)
        served, _ = self._opener.open(path)
        return served

    def _accuracy(self, kappas: dict[str, SiteKappa]) -> float:
        """Return clean accuracy where sites differ, which the one run-time kappa cannot express."""
        if self.target is None:
            served = self._served_at(kappas)
            wrong = [served.misclassifies(*part) for part in self.request.data.batches(self.request.objective.batch)]
            return 1.0 - float(np.mean(np.concatenate(wrong)))
        target, right = self.target.with_kappa(kappas), 0
        with torch.no_grad():
            for images, labels in self.request.data.batches(self.request.objective.batch):
                pixels, hits = torch.from_numpy(images).to(target.device), np.zeros(len(labels))
                runs = DECISION_DRAWS if target.is_random else 1
                for _ in range(runs):
                    hits += predictions(target.logits(pixels).cpu().numpy()) == labels
                right += int((hits * 2 > runs).sum())
        return right / len(self.request.data)


def default_grid(target: TorchTarget, data: ImageData) -> tuple[float, ...]:
    """Return `QUANTILES` of the positive pre-activations of all sites, on a few images, to two digits."""
    seen: list[npt.NDArray[np.float32]] = []

    def note(_: str, z: torch.Tensor, __: torch.Tensor) -> None:
        seen.append(z[z > 0].float().cpu().numpy())

    plain = target.with_kappa(0.0)
    with torch.no_grad(), plain.observing(note):
        plain.logits(torch.from_numpy(data.images[:_OBSERVED]).to(plain.device))
    # A site with many units must not outvote one with few: the same number from each.
    generator = np.random.default_rng(0)
    parts = [generator.choice(values, 2000) for values in seen if len(values)]
    if not parts:
        raise InputError(
            "no site has a positive pre-activation on these images, so no grid can be derived", hint="Give --grid"
        )
    return tuple(float(f"{value:.2g}") for value in np.quantile(np.concatenate(parts), QUANTILES))


def _interval(scores: Floats, reference: Floats, seed: int) -> tuple[float, float]:
    """Return the 95% interval of the mean of paired differences: exact for yes and no, else by bootstrap."""
    if set(np.unique(np.concatenate([scores, reference]))) <= {0.0, 1.0}:
        _, low, high = paired_difference(scores > 0, reference > 0)
        return low, high
    differences = scores - reference
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, len(differences), size=(_ROUNDS, len(differences)))
    low, high = np.quantile(differences[rows].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)

"""Tuning measures what it says, on validation data, and recommends a jump only where a paired test shows a gain."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
import torch

from jr_onnx.attack import TorchTarget
from jr_onnx.data import ImageData
from jr_onnx.errors import InputError, KappaError
from jr_onnx.records import dumps, loads
from jr_onnx.rewriter import find_sites, rewrite
from jr_onnx.semantics import jump_relu
from jr_onnx.tune import Objective, TunePoint, TuneRequest, TuneResult, tune_kappa
from jr_onnx.tune.sweep import _Search, recommend
from tests.attack.planted import JumpNet
from tests.attack.suite import small
from tests.verifier.quantising import dynamically_quantised


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(small.network(), path)
    return path


def request(model: Path, **changes: object) -> TuneRequest:
    fields: dict[str, object] = {
        "model": model,
        "data": small.images(40),
        "objective": Objective(eps=0.05, steps=4),
        "attacked": 20,
        "grid": (0.2, 0.6),
        "max_drop": 1.0,
        "device": "cpu",
        **changes,
    }
    return TuneRequest(**fields)  # type: ignore[arg-type]


def accuracy(kappa: float) -> float:
    """The small network's clean accuracy in NumPy."""
    first, bias, second = small.weights()
    data = small.images(40)
    hidden = jump_relu(data.images.reshape(40, -1) @ first + bias, kappa)
    return float(np.mean((hidden @ second).argmax(1) == data.labels))


def test_clean_accuracies_are_numpys_through_one_session(model: Path) -> None:
    from jr_onnx.runtime.session import InferenceSession

    with mock.patch("jr_onnx.runtime.session.InferenceSession", wraps=InferenceSession) as opened:
        result = tune_kappa(request(model))
    assert opened.call_count == 2, "the model, and the file with the kappa input"
    assert [point.kappa for point in result.points] == [0.0, 0.2, 0.6]
    assert [point.clean for point in result.points] == pytest.approx([accuracy(kappa) for kappa in (0.0, 0.2, 0.6)])
    assert result.points[0].gain == 0
    assert result.attacked == 20
    assert loads(TuneResult, dumps(result)) == result


def test_a_map_with_a_kappa_per_channel_is_measured_beside_the_grid(model: Path) -> None:
    site = find_sites(model).sites[0].id
    width = small.weights()[0].shape[1]
    mixed = [0.6 if channel % 2 else 0.0 for channel in range(width)]
    maps = {"same": {site: [0.6] * width}, "mixed": {".": mixed}, "plain": {site: 0.2}}
    result = tune_kappa(request(model, candidates=maps))
    plain, low, high, *found = result.points
    assert [point.name for point in result.points] == ["", "", "", "same", "mixed", "plain"]
    assert [point.clean for point in found[::2]] == [high.clean, low.clean]
    assert [point.objective for point in found[::2]] == [high.objective, low.objective]
    assert found[1].kappas == {site: tuple(mixed)}
    hidden = small.images(40).images.reshape(40, -1) @ small.weights()[0] + small.weights()[1]
    hidden = np.where(hidden > np.float32(mixed), hidden, 0)
    right = (np.maximum(hidden, 0) @ small.weights()[2]).argmax(1) == small.images(40).labels
    assert found[1].clean == pytest.approx(float(np.mean(right)))
    assert plain.clean >= 0.5
    assert loads(TuneResult, dumps(result)) == result


def test_a_map_that_does_not_fit_is_refused_before_anything_is_measured(model: Path) -> None:
    site = find_sites(model).sites[0].id
    with pytest.raises(KappaError, match=r"the map odd has an entry for 'nowhere', and the model has no such site"):
        tune_kappa(request(model, candidates={"odd": {"nowhere": 0.1}}))
    with pytest.raises(KappaError, match=r"kappa has 2 values, one per channel"):
        tune_kappa(request(model, candidates={"short": {site: [0.1, 0.2]}}))


def test_a_retrofit_is_tuned_from_its_original(model: Path, tmp_path: Path) -> None:
    retrofit = tmp_path / "small.jr.onnx"
    rewrite(model, 0.4, output=retrofit)
    assert tune_kappa(request(retrofit)).points == tune_kappa(request(model)).points


def test_a_site_search_finds_what_no_common_kappa_has(tmp_path: Path) -> None:
    """Scores that are best at another kappa for each of two sites: the search finds both."""
    turned = (onnx.helper.make_node("Relu", ["z"], ["y"], name="second"),)
    path = tmp_path / "two.onnx"
    onnx.save(small.network(after=turned), path)
    first, second = (site.id for site in find_sites(path).sites)
    best = {first: 0.2, second: 0.6}

    def scores(self: Objective, target: object, kappas: dict[str, float], images: Any, labels: Any, **_: Any) -> Any:
        return np.full(len(labels), 1 - sum(abs(kappas[site] - best[site]) for site in best))

    with mock.patch.object(Objective, "scores", scores):
        result = tune_kappa(request(path, grid=(0.2, 0.6), per_site=True, max_drop=1.0))
    *uniform, found = result.points
    assert [point.kappa for point in uniform] == [0.0, 0.2, 0.6]
    assert found.kappa is None
    assert found.kappas == best
    assert found.objective == 1.0
    assert max(point.objective for point in uniform) == pytest.approx(0.6)


def test_the_default_grid_silences_the_stated_shares(model: Path) -> None:
    from jr_onnx.attack import TorchTarget
    from jr_onnx.torchnet import load
    from jr_onnx.tune.sweep import QUANTILES, default_grid

    net = load(model)
    grid = default_grid(TorchTarget(net), small.images(40))
    first, bias, _ = small.weights()
    z = small.images(40).images.reshape(40, -1) @ first + bias
    shares = [float(np.mean(z[z > 0] <= kappa)) for kappa in grid]
    # 2000 draws with replacement, and two digits: a share is off by a few standard deviations of 0.011 at most.
    assert shares == pytest.approx(QUANTILES, abs=0.06)


def test_the_adaptive_objective_sees_through_the_jump_and_the_papers_does_not() -> None:
    """On a planted network whose jump only hides gradients, the paper's score rises and the adaptive one does not."""

    class Evidence(torch.nn.Module):
        """Two classes; a class's evidence jumps from 0, so that its exact gradient is zero below the jump."""

        def __init__(self, site: torch.nn.Module) -> None:
            super().__init__()
            self.site = site

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = (x.flatten(1) - 0.5).mean(1) + 0.45
            return torch.stack([torch.full_like(z, 0.25), self.site(z)], dim=1)

    images = np.full((8, 1, 2, 2), 0.1, dtype=np.float32)  # z = 0.05, fooled from z > max(0.25, kappa) on
    labels = np.zeros(8, dtype=np.int64)
    target = TorchTarget(JumpNet(lambda site: Evidence(site()), 0.0))
    adaptive = Objective(eps=0.5, steps=20)
    paper = Objective("paper", paper_steps=10)
    assert adaptive.scores(target, {"site 0": 0.0}, images, labels).mean() == 0
    assert adaptive.scores(target, {"site 0": 0.3}, images, labels).mean() == 0, "the surrogate sees the jump's gain"
    exact_only = Objective(eps=0.5, steps=20)
    with (
        mock.patch("jr_onnx.tune.objective._BACKWARDS", ("exact",)),
        mock.patch("jr_onnx.tune.objective._SOURCE_FACTORS", ()),
    ):
        assert exact_only.scores(target, {"site 0": 0.3}, images, labels).mean() == 1, "the exact gradient is dead"
    assert paper.scores(target, {"site 0": 0.0}, images, labels).min() > 0


def point(gain: float, p_value: float, *, allowed: bool = True, kappa: float = 0.1) -> TunePoint:
    return TunePoint(kappa, {}, 0.9, 0.0, 0.5 + gain, gain, gain - 0.01, gain + 0.01, p_value, allowed)


def test_a_gain_within_the_limit_is_recommended() -> None:
    points = [point(0, 1), point(0.1, 1e-4), point(0.2, 1e-4), point(0.3, 1e-6, allowed=False)]
    best, reason = recommend(points, 0.01, Objective(), tried=3)
    assert best == 2
    assert "gains +20.0 points" in reason


def test_a_gain_by_chance_is_not() -> None:
    best, reason = recommend([point(0, 1), point(0.05, 0.03)], 0.01, Objective(), tried=5)
    assert best == 0
    assert "no allowed kappa gains significantly" in reason
    assert "p 0.15 for 5 tries" in reason


def test_a_cost_beyond_the_limit_leaves_kappa_zero() -> None:
    best, reason = recommend([point(0, 1), point(0.3, 1e-9, allowed=False)], 0.01, Objective(), tried=1)
    assert best == 0
    assert "costs more than 1.0%" in reason


def test_the_papers_objective_warns() -> None:
    assert "does not adapt" in recommend([point(0, 1), point(0.3, 1e-9)], 0.01, Objective("paper"), tried=1)[1]


def test_without_torch_a_kappa_is_chosen_by_square_against_the_served_file(model: Path) -> None:
    objective = Objective("black-box", eps=0.3, queries=20)
    with mock.patch("jr_onnx.attack.classifier.opener.load_torch", side_effect=AssertionError("torch is left out")):
        result = tune_kappa(request(model, objective=objective, per_site=True, passes=1))
    assert [point.clean for point in result.points[:3]] == pytest.approx([accuracy(kappa) for kappa in (0.0, 0.2, 0.6)])
    assert "black box" in result.measure
    assert all(point.objective <= float(np.mean(_right(model, point.kappas))) for point in result.points)
    with pytest.raises(InputError, match="no grid of kappas can be derived"):
        tune_kappa(request(model, objective=objective, grid=()))


def _right(model: Path, kappas: Any) -> Any:
    """Which of the attacked images the retrofit with these kappas classifies correctly."""
    first, bias, second = small.weights()
    data = small.images(40)
    (kappa,) = set(kappas.values())
    hidden = jump_relu(data.images[:20].reshape(20, -1) @ first + bias, kappa)
    return (hidden @ second).argmax(1) == data.labels[:20]


def test_the_attacks_on_a_quantised_model_count_as_replayed(tmp_path: Path) -> None:
    path = tmp_path / "quantised.onnx"
    onnx.save(small.network(), path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the quantiser says of itself
        dynamically_quantised(path, tmp_path / "q.onnx")
    seen: list[bool] = []

    def scores(*_: Any, replay: Any, **__: Any) -> Any:
        data = small.images(20)
        seen.append(bool(np.any(replay(data.images, (data.labels + 1) % 10))))
        return np.ones(20)

    with mock.patch.object(Objective, "scores", side_effect=scores):
        tune_kappa(request(tmp_path / "q.onnx"))
    assert seen == [True, True, True], "every setting has a served file that can be asked"


def test_only_what_fools_the_served_file_counts(model: Path) -> None:
    search = _Search(request(model), model, model.parent, lambda *_: None)
    data = small.images(20)
    kappas = dict.fromkeys(search.sites, 0.2)
    objective = Objective(eps=0.3, steps=4)
    assert search.target is not None
    plain = objective.scores(search.target, kappas, data.images, data.labels)
    assert plain.mean() < 1
    never = objective.scores(
        search.target, kappas, data.images, data.labels, replay=lambda images, _: np.zeros(len(images), bool)
    )
    assert never.mean() == 1
    served = search._served_at(kappas).misclassifies
    assert np.array_equal(plain, objective.scores(search.target, kappas, data.images, data.labels, replay=served))


def test_malformed_requests_are_refused(model: Path) -> None:
    with pytest.raises(KappaError, match="kappa of the grid"):
        request(model, grid=(-1.0,))
    with pytest.raises(InputError, match=r"largest accuracy drop is 1\.5"):
        request(model, max_drop=1.5)
    with pytest.raises(InputError, match="expected adaptive, paper or black-box"):
        Objective("best")  # type: ignore[arg-type]


def test_validation_images_that_were_trained_on_are_noticed(model: Path) -> None:
    good = small.images(60)
    first, bias, second = small.weights()
    answers = (np.maximum(good.images.reshape(60, -1) @ first + bias, 0) @ second).argmax(1)
    known = ImageData.from_arrays(good.images, answers, class_names=("a", "b", "c"))
    found = tune_kappa(request(model, data=known, test=small.images(80, seed=3)))
    assert found.test_clean == 0.75
    assert any("warning: 100.0% of the validation images" in note for note in found.notes)
    assert not any("warning" in note for note in tune_kappa(request(model, data=known, test=known)).notes)

"""Every attack against linear classifiers, whose boundary is known in closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jr_onnx.attack import (
    APGD,
    DDN,
    FGSM,
    FMN,
    PGD,
    DeepFool,
    IteratedFGSM,
    RescaledDeepFool,
    Square,
    TargetedAPGD,
    TorchTarget,
    TrustRegion,
)
from tests.attack.planted import binary, linear_distance, several

# The norm of the 16-pixel gradient of +-1 entries by which a margin turns into a distance.
PER_MARGIN = {"linf": 16.0, "l2": 4.0, "l1": 1.0}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_deepfool_steps_over_the_nearest_boundary_by_its_constants(norm: str) -> None:
    model, images, labels = several()
    result = DeepFool(norm=norm).run(TorchTarget(model), images, labels)
    exact = linear_distance(model, images, labels, norm)
    # One step of 1.02 (d + 1e-4) lands beyond the boundary; L2 divides by ||g|| + 1e-6, ||g|| > 0.5. Float32 pixels
    # around 0.5 are rounded by 3e-8 each.
    expected = 1.02 * (exact + 1e-4)
    assert bool(result.success.all())
    assert torch.allclose(result.distances[norm], expected, rtol=2e-6, atol=2e-7)
    assert bool((result.iterations == 1).all())


def test_deepfool_counts_one_backward_pass_a_class() -> None:
    model, images, labels = several(classes=5)
    result = DeepFool(classes=3).run(TorchTarget(model), images, labels)
    assert result.backward.tolist() == [3] * len(images)
    # More runners-up than there are cost nothing more than those there are.
    assert DeepFool(classes=9).run(TorchTarget(model), images, labels).backward.tolist() == [4] * len(images)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_trust_region_walks_in_short_steps_to_the_nearest_class(norm: str) -> None:
    model, images, labels = several()
    result = TrustRegion(norm=norm, trust_radius=0.01).run(TorchTarget(model), images, labels)
    exact = linear_distance(model, images, labels, norm)
    # Every step is at most 1.02 (0.01 + 1e-4) long and the last one overshoots by less than one step.
    longest = 1.02 * (0.01 + 1e-4)
    assert bool(result.success.all())
    assert bool((result.distances[norm] >= exact).all())
    assert bool((result.distances[norm] <= exact * 1.02 + longest).all())
    assert bool((result.iterations <= torch.ceil(exact / 0.01) + 1).all())


def test_the_papers_pgd_stops_at_the_first_step_beyond_the_boundary() -> None:
    model, images, labels, margins = binary()
    result = IteratedFGSM(eps=0.001, steps=200).run(TorchTarget(model), images, labels)
    steps = torch.ceil(margins / 16 / 0.001)
    assert bool(result.success.all())
    # A margin that is a multiple of the step to within float rounding may take one step more or less.
    assert bool(((result.iterations - steps).abs() <= 1).all())
    assert torch.allclose(result.distances["linf"], result.iterations.double() * 0.001, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("share", [0.99, 1.01])
def test_ball_attacks_succeed_exactly_beyond_the_known_distance(norm: str, share: float) -> None:
    model, images, labels, margins = binary()
    distance = margins / PER_MARGIN[norm]
    rows = 1 if norm == "l1" else 3  # the projection onto an L1 ball takes its time
    attacks = [PGD, APGD] + ([FGSM] if norm == "linf" else [])
    for row in range(rows):
        eps = share * float(distance[row])
        for attack in attacks:
            # A step of eps / 10 turns towards the best point of a sphere by a tenth of the angle: 100 are plenty.
            more = {"steps": 100, "step_size": eps / 10} if attack is PGD else {}
            result = attack(eps=eps, norm=norm, **more).run(
                TorchTarget(model), images[row : row + 1], labels[row : row + 1]
            )
            assert bool(result.success) == (share > 1), attack
            assert float(result.distances[norm]) <= eps


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted_apgd_finds_the_nearest_class(norm: str) -> None:
    model, images, labels = several(classes=6)
    exact = linear_distance(model, images, labels, norm)
    for row in range(4):
        one = slice(row, row + 1)
        near = TargetedAPGD(eps=0.99 * float(exact[row]), norm=norm, steps=30)
        far = TargetedAPGD(eps=1.02 * float(exact[row]), norm=norm, steps=30)
        assert not near.run(TorchTarget(model), images[one], labels[one]).success
        assert far.run(TorchTarget(model), images[one], labels[one]).success


@pytest.mark.parametrize(("attack", "norm"), [(DDN, "l2"), (FMN, "l2"), (FMN, "linf"), (FMN, "l1")])
def test_minimal_attacks_bisect_to_the_boundary(attack: type, norm: str) -> None:
    model, images, labels, margins = binary()
    result = attack(norm=norm, steps=60, bisections=16).run(TorchTarget(model), images, labels)
    exact = margins.double() / PER_MARGIN[norm]
    assert bool(result.success.all())
    # The gradient has one direction everywhere, so that the best point lies on the shortest segment (in L1 every
    # direction within the box does) and within 2^-16 of its length from the boundary, up to float rounding.
    assert bool((result.distances[norm] >= exact * (1 - 1e-5)).all())
    assert bool((result.distances[norm] <= exact * (1 + 2**-14) + 1e-6).all())


@pytest.mark.parametrize(("attack", "norm"), [(DDN, "l2"), (FMN, "l2"), (FMN, "linf")])
def test_minimal_attacks_come_close_among_several_classes(attack: type, norm: str) -> None:
    model, images, labels = several()
    result = attack(norm=norm, steps=300).run(TorchTarget(model), images, labels)
    exact = linear_distance(model, images, labels, norm)
    assert bool(result.success.all())
    # Sixteen products of float32 are off by up to 16 * 2^-24 of the logit, a millionth of a pixel here.
    assert bool((result.distances[norm] >= exact - 2e-6).all())
    # Budgets change by at least 0.1 per cent a step at the end, and the direction wavers with the last steps.
    assert float((result.distances[norm] / exact).median()) < 1.02


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_rescaling_finds_the_boundary_along_the_direction_of_the_source(norm: str) -> None:
    model, images, labels, margins = binary()
    result = RescaledDeepFool(norm=norm, bisections=16).run(TorchTarget(model), images, labels)
    assert bool(result.success.all())
    assert torch.allclose(result.distances[norm], margins.double() / PER_MARGIN[norm], rtol=2**-12, atol=1e-6)


@pytest.mark.parametrize(("norm", "factor"), [("linf", 1.2), ("l2", 2.5)])
def test_square_finds_what_random_search_can(norm: str, factor: float) -> None:
    model, images, labels, margins = binary()
    for row in range(2):
        one = slice(row, row + 1)
        distance = float(margins[row]) / PER_MARGIN[norm]
        far = Square(eps=factor * distance, norm=norm, queries=1500).run(TorchTarget(model), images[one], labels[one])
        near = Square(eps=0.99 * distance, norm=norm, queries=300).run(TorchTarget(model), images[one], labels[one])
        assert far.success
        assert not near.success
        assert float(far.distances[norm]) <= factor * distance
        assert int(far.backward) == 0


@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=1.0),
        PGD(eps=3.0, norm="l2", loss="margin"),
        APGD(eps=1.0),
        APGD(eps=1.0, loss="margin"),
        TargetedAPGD(eps=1.0),
        DeepFool(),
        DeepFool(norm="l2"),
        TrustRegion(trust_radius=0.1),
        IteratedFGSM(eps=0.05),
        DDN(steps=100),
        FMN(steps=100),
        Square(eps=1.0, queries=2000),
    ],
    ids=lambda attack: f"{attack.name}-{attack.norm}",
)
def test_targeted_attacks_reach_the_goal(attack) -> None:
    model, images, labels = several(count=8)
    goals = (labels + 1) % 5
    # Wide enough for every goal: the box reaches 0.4 beyond each pixel, and the logits are centred.
    result = attack.run(TorchTarget(model), images, labels, goals=goals)
    assert bool(result.success.all())
    assert torch.equal(model(result.adversarials).argmax(1), goals)


def test_a_targeted_success_is_the_goal_and_nothing_else() -> None:
    model, images, labels = several(count=8)
    goals = (labels + 1) % 5
    # FGSM away from the label may hit any class; here it goes towards the goal, by too little.
    result = FGSM(eps=1e-4).run(TorchTarget(model), images, labels, goals=goals)
    reached = model(result.adversarials).argmax(1) == goals
    assert torch.equal(result.success, reached)


def test_restarts_and_momentum_cost_a_linear_model_nothing() -> None:
    model, images, labels, margins = binary()
    eps = 1.001 * float((margins / 16).max())
    helped = PGD(eps=eps, steps=10, restarts=3, momentum=0.9).run(TorchTarget(model), images, labels)
    assert helped.success.all()
    # What round one has fooled takes no part in round two.
    assert int(helped.forward.max()) <= 3 * 12


class Ravine(torch.nn.Module):
    """Class 1 lies along the first pixel, behind a steep slope across: plain steps go to and fro across it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        along, across = images.flatten(1).unbind(1)
        height = 0.2 * (along - 0.6) - (across - 0.5).abs()
        return torch.stack([torch.zeros_like(height), height], dim=1)


def test_momentum_follows_a_ravine() -> None:
    """A plain step of 0.03 goes 0.03 * 0.2 / sqrt(1.04) along: 40 of them make 0.235 of the 0.3 that are needed."""
    images = torch.stack([torch.full((8,), 0.3), 0.5 + 0.01 * torch.tensor([-4, -3, -2, -1, 1, 2, 3, 4])], dim=1)
    images, labels = images.view(8, 1, 1, 2), torch.zeros(8, dtype=torch.int64)
    plain = PGD(eps=0.5, norm="l2", steps=40, step_size=0.03, random_start=False, loss="margin")
    assert not plain.run(TorchTarget(Ravine()), images, labels).success.any()
    assert replace(plain, momentum=0.9).run(TorchTarget(Ravine()), images, labels).success.all()


class Plateau(torch.nn.Module):
    """Class 1 only where the first pixel is above 0.8, and flat below: gradients lead nowhere, luck does."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = images.flatten(1)[:, 0]
        return torch.stack([torch.full_like(first, 0.5), 100 * torch.relu(first - 0.8)], dim=1)


def test_restarts_find_what_one_start_misses() -> None:
    """A start fools with probability 1/8 (0.8 to 0.9 of 0.1 to 0.9), so ten fool 1 - (7/8)^10 = 74 %."""
    images = torch.full((200, 1, 1, 1), 0.5)
    labels = torch.zeros(200, dtype=torch.int64)
    shares = [
        float(
            PGD(eps=0.4, steps=2, restarts=restarts).run(TorchTarget(Plateau()), images, labels).success.float().mean()
        )
        for restarts in (1, 10)
    ]
    deviation = (0.74 * 0.26 / 200) ** 0.5
    assert shares[0] < 0.3
    assert abs(shares[1] - 0.74) < 5 * deviation

"""What `Attack.run` promises for every attack: checks, counts, seeds, independence of the batch."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jr_onnx.attack import (
    APGD,
    DDN,
    FGSM,
    FMN,
    PGD,
    ArrayTarget,
    AttackResult,
    DeepFool,
    IteratedFGSM,
    RescaledDeepFool,
    Square,
    TargetedAPGD,
    TorchTarget,
    TrustRegion,
    adaptive_backwards,
    parse_backward,
)
from jr_onnx.attack.base import Attack, Problem
from jr_onnx.data import PRESETS, Preprocessing
from jr_onnx.errors import DataError, InputError, RefusalError
from tests.attack.planted import binary, grey, several

ATTACKS = [
    FGSM(eps=0.03),
    IteratedFGSM(eps=0.002, steps=20),
    PGD(eps=0.03, steps=8, restarts=2, momentum=0.5),
    PGD(eps=0.1, norm="l2", steps=8),
    PGD(eps=0.3, norm="l1", steps=8),
    APGD(eps=0.03, steps=12, restarts=2),
    APGD(eps=0.1, norm="l2", steps=12, loss="dlr"),
    APGD(eps=0.3, norm="l1", steps=12),
    TargetedAPGD(eps=0.03, steps=6),
    DeepFool(steps=5),
    DeepFool(norm="l2", steps=5),
    TrustRegion(steps=10, trust_radius=0.02),
    DDN(steps=12),
    FMN(steps=12),
    FMN(norm="linf", steps=12),
    FMN(norm="l1", steps=12),
    RescaledDeepFool(steps=5),
    Square(eps=0.05, queries=40),
    Square(eps=0.2, norm="l2", queries=40),
]
each = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.name}-{attack.norm}")


def same(first: AttackResult, second: AttackResult) -> None:
    for field in dataclasses.fields(AttackResult):
        left, right = getattr(first, field.name), getattr(second, field.name)
        if isinstance(left, dict):
            assert all(torch.equal(left[key], right[key]) for key in left), field.name
        elif isinstance(left, Tensor):
            assert torch.equal(left, right), field.name
        elif isinstance(left, np.ndarray):
            assert np.array_equal(left, right), field.name
        else:
            assert left == right, field.name


@each
def test_results_do_not_depend_on_batch_size_or_shards(attack: Attack) -> None:
    model, images, labels = several(count=13)
    target = TorchTarget(model)
    whole = attack.run(target, images, labels)
    same(whole, attack.run(target, images, labels, batch_size=4))
    keys = np.arange(13)
    shards = [attack.run(target, images[k::3], labels[k::3], indices=keys[k::3]) for k in range(3)]
    joined = AttackResult.join(shards)
    order = torch.from_numpy(np.argsort(joined.indices))
    assert torch.equal(joined.adversarials[order], whole.adversarials)
    assert torch.equal(joined.success[order], whole.success)
    assert torch.equal(joined.forward[order], whole.forward)


@each
def test_results_keep_to_the_box_the_ball_and_the_model(attack: Attack) -> None:
    model, images, labels = several(count=13)
    images = images.clone()
    images[0, 0, 0, 0], images[1, 0, 0, 0] = 0.0, 1.0
    labels = model(images).argmax(1)
    result = attack.run(TorchTarget(model), images, labels)
    assert result.adversarials.min() >= 0
    assert result.adversarials.max() <= 1
    assert torch.equal(result.success, model(result.adversarials).argmax(1) != labels)
    assert torch.equal(result.distances["linf"], (result.adversarials.double() - images.double()).abs().amax((1, 2, 3)))
    if attack.radius is not None:
        assert float(result.distances[attack.norm].max()) <= attack.radius
    assert torch.equal(result.minimal_distances(attack.norm).isinf(), ~result.success)


@each
def test_what_is_misclassified_already_is_not_attacked(attack: Attack) -> None:
    model, images, labels = several(count=6)
    wrong = (labels + 1) % 5
    mixed = torch.where(torch.arange(6) < 3, wrong, labels)
    result = attack.run(TorchTarget(model), images, mixed)
    assert result.correct.tolist() == [False] * 3 + [True] * 3
    assert result.success[:3].all()
    assert torch.equal(result.adversarials[:3], images[:3])
    assert not result.distances["l2"][:3].any()
    assert not result.forward[:3].any()
    assert result.forward[3:].all()
    assert result.clean_accuracy == 0.5


@each
def test_the_specification_is_json_and_rebuilds_the_attack(attack: Attack) -> None:
    spec = json.loads(json.dumps(attack.spec()))
    assert spec.pop("name") == attack.name
    assert type(attack)(**spec) == attack
    assert spec["norm"] == attack.norm


@each
def test_nothing_survives_of_a_model_that_breaks_down(attack: Attack) -> None:
    class Breaks(nn.Module):
        """Fine on the clean images; NaN as soon as anything moves."""

        def __init__(self, inner: nn.Module, images: Tensor) -> None:
            super().__init__()
            self.inner, self.clean = inner, {image.numpy().tobytes() for image in images}

        def forward(self, x: Tensor) -> Tensor:
            moved = torch.tensor([image.numpy().tobytes() not in self.clean for image in x.detach()])
            return torch.where(moved[:, None], torch.nan, self.inner(x))

    model, images, labels = several(count=5)
    result = attack.run(TorchTarget(Breaks(model, images)), images, labels)
    assert result.correct.all()
    assert not result.success.any()
    assert bool((result.nonfinite > 0).all())
    assert torch.isfinite(result.adversarials).all()
    assert torch.isfinite(result.distances["l2"]).all()


def test_a_clean_image_with_nan_logits_is_neither_correct_nor_a_success() -> None:
    model, images, labels = several(count=3)
    broken = TorchTarget(lambda x: torch.full((len(x), 5), torch.nan) + model(x) * 0)
    result = FGSM(eps=0.1).run(broken, images, labels)
    assert not result.correct.any()
    assert not result.success.any()
    assert result.nonfinite.tolist() == [1, 1, 1]


@pytest.mark.parametrize("attack", [PGD(eps=0.02, steps=3), Square(eps=0.05, queries=10), APGD(eps=0.02, steps=5)])
def test_the_seed_decides_the_noise(attack: Attack) -> None:
    model, images, labels = several()
    target = TorchTarget(model)
    same(attack.run(target, images, labels), attack.run(target, images, labels))
    other = dataclasses.replace(attack, seed=1).run(target, images, labels)
    assert not torch.equal(other.adversarials, attack.run(target, images, labels).adversarials)


def test_the_global_random_state_is_neither_used_nor_moved() -> None:
    model, images, labels = several()
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.random.get_rng_state()
    first = PGD(eps=0.02, steps=3).run(TorchTarget(model), images, labels)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(4)
    same(first, PGD(eps=0.02, steps=3).run(TorchTarget(model), images, labels))


def test_one_forward_pass_a_step_serves_verdict_and_gradient() -> None:
    model, images, labels, _ = binary()
    result = IteratedFGSM(eps=1e-6, steps=10).run(TorchTarget(model), images, labels)
    assert result.forward.tolist() == [10] * len(images)
    assert result.backward.tolist() == [10] * len(images)


def test_a_hook_cannot_report_a_success_it_did_not_have() -> None:
    class Boaster(Attack):
        name = "boaster"

        def _search(self, problem: Problem) -> Tensor:
            problem.iterations += 1
            return problem.images + 5.0

    model, images, labels, _ = binary()
    result = Boaster().run(TorchTarget(model), images, labels)
    assert result.adversarials.max() <= 1
    assert torch.equal(result.success, model(result.adversarials).argmax(1) != labels)


def test_a_zero_budget_leaves_the_image_alone() -> None:
    model, images, labels, _ = binary()
    for norm in ("linf", "l2", "l1"):
        for attack in (PGD, APGD):
            result = attack(eps=0.0, norm=norm, steps=3).run(TorchTarget(model), images, labels)
            assert torch.equal(result.adversarials, images)
            assert not result.success.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(3, 4, 4)}, r"the shape \(3, 4, 4\), expected \(N, C, H, W\)"),
        ({"images": torch.zeros(0, 1, 4, 4)}, r"the shape \(0, 1, 4, 4\), expected \(N, C, H, W\), none of them 0"),
        ({"images": torch.zeros(3, 1, 4, 4, dtype=torch.uint8)}, "torch.uint8, expected floating-point pixels"),
        ({"images": torch.full((3, 1, 4, 4), 1.5)}, r"range from 1.5 to 1.5, expected pixels in \[0, 1\]"),
        ({"images": torch.full((3, 1, 4, 4), torch.nan)}, r"range from nan to nan, expected pixels in \[0, 1\]"),
        ({"labels": torch.zeros(2, dtype=torch.int64)}, r"the labels have the shape \(2,\), expected \(3,\)"),
        ({"labels": torch.zeros(3)}, "the labels are torch.float32, expected integers"),
        ({"labels": torch.tensor([0, 1, -1])}, "the smallest label is -1, expected 0 or more"),
        ({"labels": torch.tensor([0, 1, 7])}, "the largest label is 7, the model has 2 classes"),
        ({"goals": torch.tensor([1, 1, 0])}, "the goal of sample 1 is its own label 1, expected another class"),
        ({"goals": torch.tensor([1, 0, 9])}, "the largest goal is 9, the model has 2 classes"),
        ({"indices": np.zeros(3)}, r"the indices are float64 \(3,\), expected 3 integers"),
        ({"batch_size": 0}, "the batch size is 0, expected at least 1"),
    ],
)
def test_malformed_arguments_are_refused(change: dict[str, object], message: str) -> None:
    model, _, _, _ = binary()
    arguments = {"images": grey(3), "labels": torch.tensor([0, 1, 1]), **change}
    with pytest.raises(InputError, match=message):
        FGSM(eps=0.1).run(TorchTarget(model), arguments.pop("images"), arguments.pop("labels"), **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PGD(eps=float("nan")), "eps of pgd is nan, expected a finite number"),
        (lambda: PGD(eps=-0.1), "eps of pgd is -0.1, expected a number >= 0"),
        (lambda: PGD(steps=0), "steps of pgd is 0, expected a number above 0"),
        (lambda: PGD(loss="hinge"), "the loss is 'hinge', expected one of ce, margin"),
        (lambda: PGD(backward="sharp"), "the backward pass is 'sharp', expected exact, straight-through or smooth:B"),
        (lambda: PGD(backward="smooth:-1"), "the backward pass is 'smooth:-1'"),
        (lambda: DDN(norm="linf"), "the norm is 'linf', expected one of l2"),
        (lambda: IteratedFGSM(clip="maybe"), "clip of paper-pgd is 'maybe', expected range or batch"),
    ],
)
def test_senseless_parameters_are_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_every_adaptive_backward_pass_is_readable() -> None:
    assert len({parse_backward(name) for name in adaptive_backwards()}) == 6


def test_dlr_needs_three_classes() -> None:
    model, images, labels, _ = binary()
    with pytest.raises(InputError, match="the DLR loss needs 3 classes, the model has 2"):
        APGD(loss="dlr").run(TorchTarget(model), images, labels)


def test_a_numpy_function_can_be_attacked_without_gradients() -> None:
    model, images, labels = several()
    seen = []

    def function(array: np.ndarray) -> np.ndarray:
        seen.append(array)
        return model(torch.from_numpy(array)).numpy()

    array = ArrayTarget(function, Preprocessing(layout="NHWC", range=(0.0, 255.0)))
    bare = ArrayTarget(lambda values: model(torch.from_numpy(values)).detach().numpy())
    model.requires_grad_(False)
    with pytest.raises(RefusalError, match="pgd needs gradients, and ArrayTarget has none"):
        PGD(eps=0.1).run(bare, images, labels)
    with pytest.raises(RefusalError, match="has no gradients, so no backward pass to replace"):
        bare.with_backward("straight-through")
    attack = Square(eps=0.05, queries=50)
    same(attack.run(bare, images, labels), attack.run(TorchTarget(model), images, labels))
    array.logits(images)
    assert seen[0].shape == (12, 4, 4, 1)
    assert np.allclose(seen[0][..., 0], images[:, 0].numpy() * 255)


def test_paper_units_attack_normalised_values() -> None:
    model, images, _, _ = binary()
    preset = PRESETS["mnist"]
    target = TorchTarget(model, preset)
    inside = target.in_units("paper")
    labels = target.logits(images).argmax(1)
    result = IteratedFGSM(eps=0.01, steps=3).run(inside, images, labels)
    assert inside.bounds == pytest.approx((-0.1307 / 0.3081, (1 - 0.1307) / 0.3081))
    # Three steps of 0.01 are 0.03 in the paper's units and 0.03 std in pixels.
    assert torch.allclose(result.distances["linf"], torch.full((12,), 0.03, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(
        (result.adversarials - images).abs().amax((1, 2, 3)), torch.full((12,), 0.03 * 0.3081), atol=1e-6
    )
    size = ((images - 0.1307) / 0.3081).abs().amax((1, 2, 3)).double()
    assert torch.allclose(result.relative["linf"], result.distances["linf"] / size, atol=1e-6)
    assert result.units == "paper"


def test_clipping_to_the_batch_is_what_the_authors_do() -> None:
    model, images, labels, _ = binary()
    target = TorchTarget(model)
    result = IteratedFGSM(eps=0.5, steps=1, clip="batch").run(target, images, labels)
    assert float(result.adversarials.max()) == float(images.max())
    assert float(result.adversarials.min()) == float(images.min())


def test_a_preprocessing_for_other_channels_is_refused() -> None:
    model, images, labels, _ = binary()
    with pytest.raises(DataError, match="for 3 channels, the images have 1"):
        FGSM().run(TorchTarget(model, PRESETS["cifar10"]), images, labels)


def test_a_model_without_logits_is_refused() -> None:
    with pytest.raises(InputError, match=r"the model gives \(1, 1, 4, 4\) for 1 images, expected logits \(1, K\)"):
        FGSM().run(TorchTarget(nn.Identity()), grey(3), torch.zeros(3, dtype=torch.int64))


def test_source_and_target_must_share_their_units() -> None:
    model, images, labels, _ = binary()
    target = TorchTarget(model, PRESETS["mnist"])
    with pytest.raises(InputError, match="the source works in paper units and the target in pixel"):
        FGSM().run(target, images, labels, source=target.in_units("paper"))

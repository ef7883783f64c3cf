"""BPDA and EOT find what the naive attack provably misses."""

from __future__ import annotations

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
    TorchTarget,
    TrustRegion,
    accelerator,
)
from jr_onnx.attack.base import Attack
from jr_onnx.attack.judging import DECISION_DRAWS
from jr_onnx.errors import InputError, RefusalError
from jr_onnx.kappa import RandomKappa
from tests.attack.planted import JumpNet, Masked, Shattered, binary, grey


def masked() -> tuple[TorchTarget, torch.Tensor, torch.Tensor, float]:
    model, images, _, _ = binary()
    target = TorchTarget(Masked(model))
    logits = target.logits(images)
    # The staircase rounds down by up to 1/64 in each pixel.
    return target, images, logits.argmax(1), 1.2 * float((logits[:, 0] - logits[:, 1]).abs().max()) / 16 + 2 / 64


@pytest.mark.parametrize("attack", [PGD(eps=1.0, random_start=False), FGSM(eps=1.0), IteratedFGSM(eps=0.05)])
def test_a_zero_gradient_stops_the_naive_attack_and_is_counted(attack) -> None:
    target, images, labels, _ = masked()
    result = attack.run(target, images, labels)
    assert not result.success.any()
    assert torch.equal(result.zero_gradient, result.backward)
    assert torch.equal(result.adversarials, images)


@pytest.mark.parametrize("attack", [PGD, APGD, FGSM])
def test_a_surrogate_backward_pass_sees_through_the_mask(attack: type) -> None:
    target, images, labels, eps = masked()
    result = attack(eps=eps, backward="straight-through").run(target, images, labels)
    assert result.success.all()
    assert not result.zero_gradient.any()


def test_a_minimal_attack_sees_through_the_mask_with_a_surrogate_alone() -> None:
    target, images, labels, _ = masked()
    for attack in (DDN, FMN):
        assert not attack(steps=20).run(target, images, labels).success.any()
        assert attack(steps=60, backward="smooth:5").run(target, images, labels).success.all()


def test_black_box_and_transfer_see_through_the_mask_too() -> None:
    target, images, labels, eps = masked()
    assert Square(eps=2 * eps, queries=500).run(target, images, labels).success.all()
    source = TorchTarget(target.model.inner)
    transferred = APGD(eps=eps).run(target, images, labels, source=source)
    assert transferred.success.all()
    assert not DeepFool().run(target, images, labels).success.any()
    # What the source gets wrong by itself has no direction there.
    agreed = source.logits(images).argmax(1) == labels
    assert agreed.sum() > 8
    assert torch.equal(RescaledDeepFool().run(target, images, labels, source=source).success, agreed)


def test_deepfool_without_any_slope_is_a_counted_failure_not_a_success() -> None:
    target, images, labels, _ = masked()
    for norm in ("linf", "l2"):
        result = DeepFool(norm=norm).run(target, images, labels)
        assert not result.success.any()
        assert result.nonfinite.tolist() == [1] * len(images)
        assert torch.equal(result.adversarials, images)


def shattered(jitter: float = 0.0) -> tuple[TorchTarget, torch.Tensor, torch.Tensor, float]:
    model, images, labels, margins = binary()
    net = Shattered(model, jitter=jitter)
    return TorchTarget(net, reseed=net.reseed), images, labels, 1.3 * float((margins / 16).max())


def test_a_random_gradient_stops_the_naive_attack() -> None:
    target, images, labels, eps = shattered()
    result = PGD(eps=eps, steps=20, random_start=False).run(target, images, labels)
    assert result.robust_accuracy > 0.5


@pytest.mark.parametrize("attack", [PGD, APGD])
def test_expectation_over_draws_sees_through_a_random_gradient(attack: type) -> None:
    target, images, labels, eps = shattered()
    # The mean of 64 signs has the standard deviation 0.125; 3 times it is far below the weights' 1.
    result = attack(eps=eps, steps=20, eot=64).run(target, images, labels)
    assert result.success.all()


def test_a_random_model_is_judged_by_the_majority_of_repeated_evaluations() -> None:
    # The jitter outweighs every margin, so that half of all single draws are wrong on the clean image already.
    target, images, labels, _ = shattered(jitter=100.0)
    result = FGSM(eps=0.0).run(target, images, labels)
    assert ((result.fooling_rate > 0.2) & (result.fooling_rate < 0.8)).all()
    assert torch.equal(result.success, result.fooling_rate >= 0.5)
    assert set((result.fooling_rate * DECISION_DRAWS).frac().tolist()) == {0.0}


def test_a_small_jitter_changes_no_majority() -> None:
    target, images, labels, _ = shattered(jitter=1e-6)
    result = FGSM(eps=0.0).run(target, images, labels)
    assert not result.success.any()
    assert result.correct.all()


def test_deepfool_refuses_to_average() -> None:
    with pytest.raises(InputError, match="eot of deepfool is 20, expected 1"):
        DeepFool(eot=20)


_PAPERS = [IteratedFGSM(eps=0.01, steps=60), DeepFool(), DeepFool(norm="l2"), TrustRegion(steps=200, trust_radius=0.02)]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("attack", _PAPERS, ids=repr)
def test_the_papers_attacks_go_on_until_every_draw_is_fooled(
    attack: Attack, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the draws are fooled long before the others: a single one does not end the attack."""
    monkeypatch.setattr(accelerator, "runs_apart", lambda _: apart)
    model, images, labels, _ = binary()
    net = Shattered(model, noise=0.0, jitter=0.5)
    result = attack.run(TorchTarget(net, reseed=net.reseed), images, labels)
    assert result.fooling_rate[result.correct].tolist() == [1.0] * int(result.correct.sum())
    assert int(result.correct.sum()) > 2
    # A sample stands still once every draw is fooled, so that none goes much farther than its last draw needs.
    logits = model(result.adversarials)
    beyond = logits.gather(1, 1 - labels[:, None]) - logits.gather(1, labels[:, None])
    assert (beyond[result.correct] < 0.5 + 16 * 0.02 * 1.1).all()


def test_a_step_without_a_direction_ends_an_attack_on_a_random_model() -> None:
    model, images, labels, _ = binary()
    target = TorchTarget(Masked(model), reseed=lambda _: None)
    assert target.is_random
    labels = target.draw(0).logits(images).argmax(1)
    result = DeepFool().run(target, images, labels)
    assert not result.success.any()
    assert result.nonfinite.tolist() == [1] * len(images)
    assert torch.equal(result.adversarials, images)


def jump_target(kappa: float = 0.5) -> TorchTarget:
    torch.manual_seed(0)
    net = JumpNet(
        lambda act: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), act(), torch.nn.Linear(8, 3)), kappa
    )
    return TorchTarget(net)


def test_random_kappa_draws_are_repeatable_and_in_range() -> None:
    random = RandomKappa(0.1, 0.9)
    target = jump_target().with_random_kappa(random)
    assert target.is_random
    images = grey(4)
    seen = set()
    for key in range(20):
        view = target.draw(key)
        assert not view.is_random
        first, second = view.logits(images), view.logits(images)
        assert torch.equal(first, second)
        (kappa,) = target.model.kappas_with(target.model.last.kappas).values()
        assert 0.1 <= kappa < 0.9
        seen.add(kappa)
    assert len(seen) == 20


def test_random_kappa_per_site_draws_for_every_site() -> None:
    net = JumpNet(lambda act: torch.nn.Sequential(torch.nn.Flatten(), act(), torch.nn.Linear(16, 3), act()), 0.5)
    random = TorchTarget(net).with_random_kappa(RandomKappa(0.1, 0.9, per="site"))
    drawn = {name: [random.draw(key).kappas()[name] for key in range(20)] for name in net.own}
    assert len(drawn) == 2
    for values in drawn.values():
        assert all(0.1 <= value < 0.9 for value in values)
        assert len(set(values)) == 20, "another draw, another kappa"
    assert all(first != second for first, second in zip(*drawn.values(), strict=True)), "a number for each site"
    shared = TorchTarget(net).with_random_kappa(RandomKappa(0.1, 0.9)).draw(3)
    assert len(set(shared.kappas().values())) == 1
    shared.logits(grey(2))
    assert net.passing["kappas"] == shared.kappas(), "what is drawn is what is used"


def test_a_random_kappa_attack_is_reproducible() -> None:
    target = jump_target().with_random_kappa(RandomKappa(0.1, 0.9))
    images = grey(6)
    labels = jump_target().logits(images).argmax(1)
    first = PGD(eps=0.3, eot=20, steps=5).run(target, images, labels)
    again = PGD(eps=0.3, eot=20, steps=5).run(target, images, labels)
    assert torch.equal(first.adversarials, again.adversarials)
    assert torch.equal(first.fooling_rate, again.fooling_rate)
    # Five steps and no more, each with 20 draws that serve the verdict and the gradient.
    assert int(first.forward.max()) == int(first.backward.max()) == 5 * 20


def test_views_of_one_model_do_not_disturb_each_other() -> None:
    target = jump_target(0.5)
    images = grey(4)
    own = target.logits(images)
    other = target.with_kappa(0.0)
    assert not torch.equal(other.logits(images), own)
    assert torch.equal(target.logits(images), own)
    assert torch.equal(target.with_scaled_kappa(0.0).logits(images), other.logits(images))
    assert torch.equal(other.with_kappa(None).logits(images), own)


def test_an_ability_that_the_model_lacks_is_refused_by_name() -> None:
    plain = TorchTarget(torch.nn.Flatten())
    with pytest.raises(RefusalError, match=r"Flatten takes no kappas .* the backward pass .* cannot be set"):
        plain.with_backward("straight-through")
    with pytest.raises(RefusalError, match="Flatten takes no kappas with a call, so another kappa cannot be set"):
        plain.with_kappa(0.5)
    with pytest.raises(RefusalError, match="Flatten takes no kappas with a call, so a random kappa cannot be set"):
        plain.with_random_kappa(RandomKappa(0.1, 0.2))
    assert plain.with_backward("exact").logits(grey(2)).shape == (2, 16)

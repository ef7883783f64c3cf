"""Each flag is raised by what it is for, and stays down on what a plain network shows."""

from __future__ import annotations

import dataclasses
import math

import pytest

from jr_onnx.evaluation.masking import HUGE_LINF, Flag, judge
from jr_onnx.evaluation.outcome import Outcome
from tests.evaluation.builders import first, outcome


def flags(*outcomes: Outcome) -> dict[str, Flag]:
    return {flag.name: flag for flag in judge(outcomes).flags}


def test_nothing_to_judge_by_is_said_and_not_passed_off_as_fine() -> None:
    found = judge([])
    assert [flag.raised for flag in found.flags] == [False] * 5
    assert [flag.least_effect for flag in found.flags] == [0.05, 0.05, 0.01, 0.1, 0.05]
    assert {flag.checked for flag in found.flags} == {False}
    assert all(flag.remedy for flag in found.flags)
    assert {flag.evidence for flag in found.flags} == {"no results to judge by in this suite"}
    assert found.model == ""


@pytest.mark.parametrize("view", ["surrogate", "transfer"])
def test_a_clear_gain_of_a_surrogate_raises(view) -> None:
    found = flags(outcome("apgd", first(35, 100)), outcome("smooth", first(60, 100), view=view))
    flag = found["surrogate-beats-exact"]
    assert flag.raised
    assert flag.effect == pytest.approx(0.25)
    assert flag.evidence.startswith(
        "a surrogate backward pass or another network's gradient (smooth) fools 25.0 points"
    )


def test_a_small_gain_does_not_however_significant() -> None:
    found = flags(outcome("apgd", first(3500, 10000)), outcome("smooth", first(3700, 10000), view="surrogate"))
    flag = found["surrogate-beats-exact"]
    assert flag.p_value < 1e-6
    assert not flag.raised


def test_a_gain_of_exactly_the_least_one_raises() -> None:
    def raised(count: int) -> bool:
        surrogate = outcome("smooth", first(count, 400), view="surrogate")
        return flags(outcome("apgd", first(100, 400)), surrogate)["surrogate-beats-exact"].raised

    assert raised(120)  # a gain of 20/400 = 5 %
    assert not raised(119)


def test_a_gain_on_a_handful_of_samples_does_not() -> None:
    assert not flags(outcome("apgd", first(3, 10)), outcome("s", first(5, 10), view="surrogate"))[
        "surrogate-beats-exact"
    ].raised


def test_all_exact_attacks_count_together() -> None:
    later = [not won for won in first(50, 100)]
    found = flags(outcome("a", first(50, 100)), outcome("b", later), outcome("s", first(90, 100), view="surrogate"))
    assert not found["surrogate-beats-exact"].raised


def test_another_budget_is_no_comparison() -> None:
    found = flags(outcome("a", first(10, 100)), outcome("s", first(90, 100), view="surrogate", eps=0.3))
    assert not found["surrogate-beats-exact"].checked


def test_many_surrogates_must_be_clearer() -> None:
    """One lucky attack among many is no evidence: the level is divided by their number."""
    lucky = outcome("lucky", first(58, 100), view="surrogate")
    one = flags(outcome("a", first(50, 100)), lucky)["surrogate-beats-exact"]
    dull = [outcome(f"dull{number}", first(40, 100), view="surrogate") for number in range(9)]
    ten = flags(outcome("a", first(50, 100)), lucky, *dull)["surrogate-beats-exact"]
    assert one.raised
    assert not ten.raised
    assert ten.p_value == pytest.approx(10 * one.p_value)


def minimal(entry: str, sizes: list[float], **changes: object) -> Outcome:
    won = [math.isfinite(size) for size in sizes]
    return outcome(entry, won, eps=None, norm="l2", distance=tuple(sizes), **changes)


def test_a_much_smaller_minimal_perturbation_raises() -> None:
    exact = minimal("ddn", [1.0] * 30)
    assert flags(exact, minimal("smooth", [0.8] * 30, view="surrogate"))["surrogate-beats-exact"].raised
    assert not flags(exact, minimal("smooth", [0.95] * 30, view="surrogate"))["surrogate-beats-exact"].raised


def test_a_black_box_that_wins_raises_and_one_that_loses_does_not() -> None:
    exact = outcome("apgd", first(20, 100))
    found = flags(exact, outcome("square", first(40, 100), view="black_box"))["black-box-beats-white-box"]
    assert found.raised
    assert found.evidence.startswith("an attack that sees outputs alone (square) fools 20.0 points more")
    assert not flags(exact, outcome("square", first(15, 100), view="black_box"))["black-box-beats-white-box"].raised


def test_each_attack_is_compared_and_the_clearest_result_is_told() -> None:
    exact = outcome("apgd", first(50, 100))
    elsewhere, worse, even, better = (
        outcome(name, first(count, 100), view="surrogate", eps=eps)
        for name, count, eps in (("elsewhere", 60, 0.3), ("worse", 40, 0.1), ("even", 50, 0.1), ("better", 51, 0.1))
    )
    for order in ([elsewhere, worse, even], [even, worse, elsewhere]):
        found = flags(exact, *order)["surrogate-beats-exact"]
        assert (found.checked, found.raised, found.p_value, found.effect) == (True, False, 1.0, 0.0)
        assert "(even)" in found.evidence
    assert "(better)" in flags(exact, worse, better, even)["surrogate-beats-exact"].evidence


def test_a_sure_but_small_gain_hides_no_clear_one() -> None:
    exact = outcome("apgd", first(500, 1000))
    small = outcome("small", first(545, 1000), view="surrogate")  # 45 more and none less
    large = outcome("large", [index >= 300 for index in range(1000)], view="surrogate")  # 500 more and 300 less
    assert not flags(exact, small)["surrogate-beats-exact"].raised
    for order in ([small, large], [large, small]):
        found = flags(exact, *order)["surrogate-beats-exact"]
        assert (found.raised, found.effect) == (True, pytest.approx(0.2))


def test_a_close_but_doubtful_surrogate_hides_no_clear_one() -> None:
    exact = minimal("ddn", [1.0] * 30)
    clear = minimal("clear", [0.7] * 30, view="surrogate")
    doubtful = minimal("doubtful", [0.5] * 16 + [1.2] * 14, view="surrogate")
    assert not flags(exact, doubtful)["surrogate-beats-exact"].raised
    for order in ([clear, doubtful], [doubtful, clear]):
        found = flags(exact, *order)["surrogate-beats-exact"]
        assert (found.raised, found.effect) == (True, pytest.approx(0.7))
    surer = minimal("surer", [0.5] * 24 + [1.2] * 6, view="surrogate")
    assert "(surer)" in flags(exact, doubtful, surer)["surrogate-beats-exact"].evidence, "of equally close ones"


def test_the_surrogate_that_comes_closest_is_told() -> None:
    exact = minimal("ddn", [1.0] * 30)
    close, closer = (minimal(name, [size] * 30, view="surrogate") for name, size in (("z", 0.7), ("y", 0.6)))
    far = minimal("a", [2.0] * 30, view="surrogate")
    for order in ([close, closer, far], [far, closer, close]):
        found = flags(exact, *order)["surrogate-beats-exact"]
        assert (found.raised, found.effect) == (True, pytest.approx(0.6))
        assert "(y)" in found.evidence
    assert flags(exact, far, far)["surrogate-beats-exact"].p_value == 1.0
    assert flags(exact, minimal("b", [0.9] * 30, view="surrogate"))["surrogate-beats-exact"].raised, "exactly 90 %"


def test_dead_gradients_count_where_the_sample_survives() -> None:
    some = outcome("a", first(50, 100), zero_gradient=(0,) * 40 + (1,) * 20 + (0,) * 40)
    found = flags(some)["dead-gradients"]
    assert (found.raised, found.effect) == (True, pytest.approx(0.10))
    few = outcome("a", first(0, 100), zero_gradient=(1,) * 2 + (0,) * 98)
    assert not flags(few)["dead-gradients"].raised, "2 of 100 where 1 is tolerated"
    one = outcome("a", [False], zero_gradient=(1,))
    assert flags(one)["dead-gradients"].effect == 1.0


def test_dead_gradients_need_survivors_in_every_exact_attack() -> None:
    dead = (1,) * 10 + (0,) * 90
    all_dead = outcome("a", first(0, 100), zero_gradient=dead), outcome("b", first(0, 100), nonfinite=dead)
    assert flags(*all_dead)["dead-gradients"].raised
    alive_elsewhere = outcome("a", first(0, 100), zero_gradient=dead), outcome("b", first(0, 100))
    assert not flags(*alive_elsewhere)["dead-gradients"].raised
    fooled_anyway = outcome("a", first(100, 100), zero_gradient=dead), outcome("b", first(0, 100), nonfinite=dead)
    assert not flags(*fooled_anyway)["dead-gradients"].raised


def test_a_budget_that_does_not_help_raises() -> None:
    def ladder(eps: float, count: int) -> Outcome:
        return outcome(f"pgd {eps}", first(count, 100), eps=eps, spec={"name": "pgd"})

    assert flags(ladder(0.1, 30), ladder(0.5, 31))["budget-does-not-help"].raised
    assert not flags(ladder(0.1, 30), ladder(0.5, 100))["budget-does-not-help"].raised
    assert not flags(ladder(0.1, 30), ladder(0.5, 60))["budget-does-not-help"].raised, "it still helps"
    assert not flags(ladder(0.1, 30), ladder(0.15, 31))["budget-does-not-help"].checked, "no ladder"


def test_surviving_a_multiple_of_a_tiny_budget_is_no_sign_of_masking() -> None:
    """A plain network survives l2 0.03 and l2 0.12 alike; only attacks that get through within 0.12 tell it apart."""

    def ladder(eps: float) -> Outcome:
        return outcome(f"pgd {eps}", [False] * 100, eps=eps, norm="l2", spec={"name": "pgd"})

    name = "budget-does-not-help"
    far = minimal("ddn", [0.8] * 100)
    assert not flags(ladder(0.03), ladder(0.12), far)[name].checked
    near = minimal("bpda", [0.1] * 60 + [0.8] * 40, view="surrogate")
    found = flags(ladder(0.03), ladder(0.12), far, near)[name]
    assert found.raised
    assert "60 of 100 samples survive eps 0.12, within which they can be fooled" in found.evidence
    other = outcome("fmn", [True] * 100, eps=None, norm="linf", distance=(0.01,) * 100)
    few = minimal("bpda", [0.1] * 11 + [0.8] * 89, view="surrogate")
    assert not flags(ladder(0.03), ladder(0.12), far, few)[name].raised
    assert not flags(ladder(0.03), ladder(0.12), other)[name].checked, "another norm"


def test_a_random_model_judged_by_one_draw_raises() -> None:
    careless = outcome("eot", first(50, 100), draws=20, decided_by=1)
    assert flags(careless)["single-draw"].raised
    single = outcome("pgd", first(20, 100), draws=1, decided_by=32)
    averaged = outcome("eot", first(60, 100), draws=20, decided_by=32)
    assert flags(single, averaged)["single-draw"].raised
    assert not flags(single, outcome("eot", first(21, 100), draws=20, decided_by=32))["single-draw"].raised
    assert not flags(outcome("pgd", first(20, 100)))["single-draw"].checked, "a fixed model has no draws"


def test_two_draws_are_an_average_and_two_evaluations_a_decision() -> None:
    assert flags(outcome("eot", first(50, 100), draws=2))["single-draw"].raised
    single, averaged = (
        outcome("pgd", first(20, 100), decided_by=2),
        outcome("eot", first(60, 100), draws=2, decided_by=2),
    )
    found = flags(single, averaged)["single-draw"]
    assert (found.raised, found.effect) == (True, pytest.approx(0.4))
    assert "eot (2 draws) against pgd" in found.evidence


def test_draws_are_compared_with_one_exact_draw_of_the_same_budget() -> None:
    averaged = outcome("eot", first(60, 100), draws=20, decided_by=32)
    for changes in ({"eps": 0.2}, {"norm": "l2"}, {"view": "surrogate"}, {"decided_by": 1}, {"draws": 20}):
        weak = outcome("pgd", first(20, 100), **{"decided_by": 32, **changes})
        assert not flags(weak, averaged)["single-draw"].checked, changes
    both = [minimal("ddn", [1.0] * 20 + [math.inf] * 80, decided_by=32), minimal("eot", [1.0] * 100, decided_by=32)]
    assert not flags(both[0], dataclasses.replace(both[1], draws=20))["single-draw"].checked, "no budget"


def test_a_plain_network_raises_nothing() -> None:
    found = judge(
        [
            outcome("apgd-ce", first(55, 100), spec={"name": "apgd"}),
            outcome("apgd-ce wide", first(100, 100), spec={"name": "apgd"}, eps=0.4),
            outcome("smooth", first(57, 100), view="surrogate"),
            outcome("transfer", first(50, 100), view="transfer"),
            outcome("square", first(40, 100), view="black_box"),
        ]
    )
    assert not found.masked
    assert [flag.name for flag in found.flags if not flag.checked] == ["single-draw"]


def test_a_model_that_classifies_nothing_is_not_judged() -> None:
    """All images count as fooled at distance 0, so that every comparison comes out even."""
    nothing = {"correct": (False,) * 50}
    found = flags(outcome("pgd", [True] * 50, **nothing), outcome("bpda", [True] * 50, view="surrogate", **nothing))
    assert [(flag.checked, flag.raised) for flag in found.values()] == [(False, False)] * 5
    careless = outcome("eot", [True] * 50, draws=20, **nothing)
    assert not flags(careless)["single-draw"].raised
    assert "no image was classified correctly" in found["surrogate-beats-exact"].evidence


def test_every_ladder_is_judged_and_the_worst_one_told() -> None:
    """Their number corrects the p-value; one that is no ladder, or out of reach, hides no other."""

    def ladder(name: str, least: int, most: int, *, norm: str = "linf", wide: float = 0.5) -> list[Outcome]:
        return [
            outcome(f"{name} {eps}", first(count, 100), eps=eps, norm=norm, spec={"name": name})
            for eps, count in ((0.1, least), (wide, most))
        ]

    name = "budget-does-not-help"
    (alone,) = (flags(*ladder("b", 70, 71))[name],)
    assert (alone.raised, alone.effect) == (True, pytest.approx(0.29))
    narrow, out_of_reach = ladder("a", 70, 71, wide=0.15), ladder("a", 0, 0, norm="l1")
    for more in (narrow, out_of_reach):
        assert flags(*more, *ladder("b", 70, 71))[name] == alone
    fine, worse = ladder("a", 0, 100), ladder("c", 60, 60)
    both = flags(*fine, *ladder("b", 70, 71))[name]
    assert both.p_value == pytest.approx(2 * alone.p_value)
    assert both.evidence == alone.evidence
    assert "c (linf): 40 of 100" in flags(*ladder("b", 70, 71), *worse, *fine)[name].evidence
    helpful = flags(*fine, *ladder("b", 50, 55))[name]
    assert (helpful.raised, helpful.p_value) == (False, 1.0)
    assert "b (linf): 45 of 100" in helpful.evidence, "of several that help, the one that leaves most"
    restarted = outcome("b 0.5 again", first(71, 100), eps=0.5, spec={"name": "b"})
    assert flags(restarted, *ladder("b", 70, 71))[name].effect == alone.effect
    one = [outcome(f"a {eps}", [False], eps=eps, spec={"name": "a"}) for eps in (0.1, 0.5)]
    assert flags(*one)[name].effect == 1.0


def test_at_a_huge_budget_in_linf_every_survivor_counts_and_in_another_norm_it_does_not() -> None:
    """Nothing was fooled at all: at linf 0.4 that is a sign by itself, at l2 0.4 it may be the truth."""

    def ladder(norm: str, eps: float) -> Outcome:
        return outcome(f"pgd {eps}", [False] * 100, eps=eps, norm=norm, spec={"name": "pgd"})

    name = "budget-does-not-help"
    assert flags(ladder("linf", 0.1), ladder("linf", HUGE_LINF))[name].raised
    assert not flags(ladder("linf", 0.1), ladder("linf", HUGE_LINF - 0.01))[name].checked
    assert not flags(ladder("l2", 0.1), ladder("l2", 5.0))[name].checked


def test_a_perturbation_of_exactly_the_budget_is_within_it() -> None:
    def ladder(eps: float) -> Outcome:
        return outcome(f"pgd {eps}", [False] * 100, eps=eps, norm="l2", spec={"name": "pgd"})

    name = "budget-does-not-help"
    assert flags(ladder(0.125), ladder(0.25), minimal("ddn", [0.25] * 100))[name].raised
    assert not flags(ladder(0.125), ladder(0.25), minimal("ddn", [math.nextafter(0.25, 1)] * 100))[name].checked


def test_only_an_adaptive_attack_with_gradients_can_give_the_all_clear() -> None:
    exact, square = outcome("apgd", first(60, 100)), outcome("square", first(40, 100), view="black_box")
    paper = outcome("paper/pgd", first(60, 100), protocol="paper")
    assert judge([exact, square]).not_judged == ""
    assert judge([exact, square]).headline == "no sign of masking"
    assert judge([paper]).not_judged == "this suite is not adaptive"
    assert judge([paper, square]).not_judged == "no attack had gradients, so none could be hidden from it"
    assert judge([paper, square]).headline.startswith("not judged: no attack had gradients")
    assert "no image was classified correctly" in judge([outcome("apgd", [True], correct=(False,))]).not_judged
    masked = judge([exact, outcome("square", first(90, 100), view="black_box"), paper])
    assert (masked.masked, masked.headline, masked.model) == (True, "GRADIENTS ARE MASKED", "retrofit")


def test_a_flag_says_how_much_was_found_and_how_much_it_takes() -> None:
    def ladder(eps: float, count: int) -> Outcome:
        return outcome(f"pgd {eps}", first(count, 100), eps=eps, spec={"name": "pgd"})

    dead = outcome("a", first(0, 100), zero_gradient=(1,) * 10 + (0,) * 90)
    raised = {
        "dead-gradients": (flags(dead), 0.10, 0.01),
        "budget-does-not-help": (flags(ladder(0.1, 30), ladder(0.5, 31)), 0.69, 0.10),
        "single-draw": (flags(outcome("eot", first(50, 100), draws=20)), 1.0, 0.05),
        "black-box-beats-white-box": (flags(dead, outcome("square", first(40, 100), view="black_box")), 0.4, 0.05),
        "surrogate-beats-exact": (
            flags(minimal("ddn", [1.0] * 30), minimal("smooth", [0.75] * 30, view="surrogate")), 0.75, 0.9,
        ),
    }  # fmt: skip
    for name, (found, effect, least_effect) in raised.items():
        flag = found[name]
        assert (flag.raised, flag.checked, flag.least_effect) == (True, True, least_effect), name
        assert flag.effect == pytest.approx(effect), name
        assert flag.p_value < 0.01, name
        assert flag.evidence, name
        assert flag.remedy, name
    unchecked = flags(outcome("a", [True], protocol="paper", view="transfer"))["dead-gradients"]
    assert (unchecked.p_value, unchecked.effect, unchecked.least_effect) == (1.0, 0.0, 0.01)


def test_a_gradient_that_lives_in_the_first_attack_is_alive() -> None:
    dead = (1,) * 10 + (0,) * 90
    found = flags(outcome("a", first(0, 100)), outcome("b", first(0, 100), zero_gradient=dead))["dead-gradients"]
    assert (found.checked, found.raised, found.effect) == (True, False, 0.0)


def test_samples_that_were_not_attacked_say_nothing_of_perturbations() -> None:
    correct = (True,) * 30 + (False,) * 70
    exact = minimal("ddn", [1.0] * 30 + [0.0] * 70, correct=correct)
    smooth = minimal("smooth", [0.8] * 30 + [0.0] * 70, correct=correct, view="surrogate")
    assert flags(exact, smooth)["surrogate-beats-exact"].raised


def test_smaller_perturbations_count_although_no_more_were_fooled_within_the_budget() -> None:
    even = [outcome("apgd", first(50, 100)), outcome("bpda", first(50, 100), view="surrogate")]
    exact = minimal("ddn", [1.0] * 100)
    found = flags(*even, exact, minimal("smooth", [0.8] * 100, view="surrogate"))["surrogate-beats-exact"]
    assert (found.raised, found.effect) == (True, pytest.approx(0.8))
    assert "smooth" in found.evidence
    found = flags(*even, exact, minimal("smooth", [1.0] * 100, view="surrogate"))["surrogate-beats-exact"]
    assert (found.raised, found.effect) == (False, 0.0)
    assert "bpda" in found.evidence


def test_a_ladder_is_of_one_attack_with_one_loss_and_begins_above_zero() -> None:
    def rung(eps: float, spec: dict[str, str], entry: str = "a") -> Outcome:
        return outcome(f"{entry} {eps}", [False] * 100, eps=eps, spec=spec)

    name = "budget-does-not-help"
    same = {"name": "apgd", "loss": "ce"}
    assert flags(rung(0.1, same), rung(0.5, same))[name].raised
    assert "apgd ce (linf)" in flags(rung(0.1, same), rung(0.5, same))[name].evidence
    assert not flags(rung(0.1, same), rung(0.5, {"name": "apgd", "loss": "dlr"}))[name].checked
    assert not flags(rung(0.1, {}), rung(0.5, {}))[name].checked, "entries without a name are attacks of their own"
    assert not flags(rung(0.0, same), rung(0.5, same))[name].checked
    assert flags(rung(1.0, same), rung(2.0, same))[name].checked, "twice the budget is enough, whatever it is"
    assert "pgd (linf)" in flags(rung(0.1, {"name": "pgd"}), rung(0.5, {"name": "pgd"}))[name].evidence

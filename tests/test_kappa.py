"""Kappa plans: which site gets which kappa, and what is refused before any model is touched."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jr_onnx.errors import InputError, KappaError
from jr_onnx.kappa import DEFAULT_INPUT_NAME, KappaPlan, RandomKappa, read_kappa_map
from jr_onnx.records import dumps, loads


def test_a_number_is_the_kappa_of_every_site() -> None:
    plan = KappaPlan.of(0.06)
    assert plan.for_site("anything") == 0.06
    assert plan.unmatched(["anything"]) == []


def test_an_exact_id_wins_over_an_expression_wherever_it_stands() -> None:
    plan = KappaPlan.of({"relu": 0.1, "block1/relu": 0.2, "block": 0.3})
    assert plan.for_site("block1/relu") == 0.2
    assert plan.for_site("block2/relu") == 0.1  # the first expression that is found in the id
    assert plan.for_site("block3/act") == 0.3
    assert plan.for_site("head") is None


def test_the_uniform_kappa_serves_what_the_map_does_not_name() -> None:
    plan = KappaPlan(kappa=0.5, by_site=(("conv", 0.1),))
    assert plan.for_site("conv1") == 0.1
    assert plan.for_site("fc") == 0.5


def test_a_site_id_that_is_no_expression_is_taken_literally() -> None:
    plan = KappaPlan.of({"relu[0": 0.1, "a(b": 0.2})
    assert plan.for_site("relu[0") == 0.1
    assert plan.for_site("x/a(b/y") == 0.2
    assert plan.unmatched(["x/a(b/y"]) == ["relu[0"]


def test_a_site_id_with_expression_characters_matches_itself() -> None:
    plan = KappaPlan.of({"a.b+c": 0.1})
    assert plan.unmatched(["a.b+c"]) == []
    assert plan.for_site("a.b+c") == 0.1


def test_entries_that_name_no_site_are_reported_in_order() -> None:
    plan = KappaPlan.of({"zzz": 0.1, "relu": 0.2, "yyy": 0.3})
    assert plan.unmatched(["relu1"]) == ["zzz", "yyy"]


def test_a_random_plan_stands_in_with_its_middle() -> None:
    plan = KappaPlan.of(RandomKappa(0.02, 0.1))
    assert plan.for_site("any") == pytest.approx(0.06)
    assert plan.input_name == DEFAULT_INPUT_NAME
    assert KappaPlan.of(RandomKappa(0.02, 0.1, source="op")).input_name is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (KappaPlan, "no kappa was given"),
        (lambda: KappaPlan(kappa=-1.0), "expected a finite number >= 0"),
        (lambda: KappaPlan(kappa=float("nan")), "expected a finite number >= 0"),
        (lambda: KappaPlan.of({"a": float("inf")}), "kappa of 'a' is inf"),
        (lambda: KappaPlan.of({}), "no kappa was given"),
        (lambda: KappaPlan(kappa=0.1, random=RandomKappa(0.1, 0.2)), "a random kappa excludes a fixed one"),
        (lambda: KappaPlan(by_site=(("a", 0.1),), random=RandomKappa(0.1, 0.2)), "excludes a fixed one"),
        (lambda: KappaPlan(kappa=0.1, input_name=""), "name of the kappa input is empty"),
        (lambda: KappaPlan(by_site=(("a", 0.1),), input_name="k"), "excludes a kappa map"),
        (lambda: KappaPlan(input_name="k"), "needs a default"),
        (lambda: KappaPlan(random=RandomKappa(0, 1, source="op"), input_name="k"), "excludes a kappa input"),
        (lambda: RandomKappa(0.2, 0.1), "expected low < high"),
        (lambda: RandomKappa(0.1, 0.1), "the random range is 0.1 to 0.1, expected low < high"),
        (lambda: RandomKappa(-0.1, 0.1), "the lower end of the random kappa"),
        (lambda: RandomKappa(0.1, float("inf")), "the upper end of the random kappa"),
    ],
)
def test_wishes_that_contradict_each_other_are_refused(make: object, message: str) -> None:
    with pytest.raises(KappaError, match=message):
        make()  # type: ignore[operator]


@given(
    st.one_of(
        st.floats(0, 1e30).map(KappaPlan.of),
        st.dictionaries(st.text(min_size=1), st.floats(0, 1e30), min_size=1).map(KappaPlan.of),
        st.tuples(st.floats(0, 1), st.floats(2, 3), st.sampled_from(["network", "site"]))
        .map(lambda ends: RandomKappa(*ends))
        .map(KappaPlan.of),
        st.builds(KappaPlan, kappa=st.floats(0, 1), input_name=st.text(min_size=1)),
    )
)
def test_a_plan_survives_json(plan: KappaPlan) -> None:
    assert loads(KappaPlan, dumps(plan)) == plan


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "map.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("conv1: 0.06\nconv2: 1e-3\n", {"conv1": 0.06, "conv2": 0.001}),  # YAML 1.1 reads 1e-3 as a string
        ('{"a": 0.1, "b": 2}', {"a": 0.1, "b": 2.0}),
        ("1: 0.5\n", {"1": 0.5}),
        ("'^conv.*': .5\n", {"^conv.*": 0.5}),
        ("a: 0\n", {"a": 0.0}),
        ("a: 1_0\n", {"a": 10.0}),
        ("\ufeffa: 0.25\n", {"a": 0.25}),
    ],
)
def test_a_map_is_read_from_json_and_yaml(tmp_path: Path, text: str, expected: dict[str, float]) -> None:
    assert read_kappa_map(write(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds nothing, expected a mapping"),
        ("[1, 2]", "holds list, expected a mapping"),
        ("{}", "expected a mapping"),
        ("a: yes\n", "the value True, expected a number"),
        ("a: high\n", "kappa of 'a' in .* is 'high', expected a number"),
        ("a:\n", "kappa of 'a' in .* is None"),
        ("a: -1\n", "expected a finite number >= 0"),
        ("a: .inf\n", "expected a finite number >= 0"),
        ("a: .nan\n", "expected a finite number >= 0"),
        ("a: {b: 1}\n", "expected a number"),
        ("a: [[0.1]]\n", "holds lists in a list"),
        ("a: []\n", "is an empty list"),
        ("a: [0.1, -1]\n", "channel 1, is -1"),
        ("a: [0.1, true]\n", "channel 1, is True"),
        ("a: 0.1\na: 0.2\n", "names 'a' twice"),
        ('{"a": 0.1, "a": 0.1}', "names 'a' twice"),
        ("1: 0.1\n'1': 0.2\n", "names '1' twice"),
        ("a: 0.1\n b: : 2\n", "neither JSON nor YAML"),
        ("a: !!python/object/apply:os.system ['false']\n", "neither JSON nor YAML"),
        ("? [a, b]\n: 0.1\n", "neither JSON nor YAML"),
        ("? [a, b]\n: 0.1\n? [c]\n: 0.2\n", "neither JSON nor YAML"),  # two lists, not one twice
        ("a: 0.1\nb: [\n", "neither JSON nor YAML: .*line 3"),
        ("b: 1\na: {x: 1, x: 2}\n", "names 'x' twice"),
        ("5", "holds int, expected a mapping"),
        (b"\xff\xfe\x00", "cannot read the kappa map"),
        ("&a [*a]", "expected a mapping"),
        ("[" * 5000, "neither JSON nor YAML"),
        ("a: " + "9" * 5000, "neither JSON nor YAML"),
        ("a: " + "9" * 500, "an integer beyond any float"),
    ],
)
def test_a_map_that_is_none_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(KappaError, match=message):
        read_kappa_map(write(tmp_path, text))


def test_a_missing_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(KappaError, match=r"cannot read the kappa map .*nowhere\.yaml"):
        read_kappa_map(tmp_path / "nowhere.yaml")
    with pytest.raises(KappaError, match="cannot read the kappa map"):
        read_kappa_map(tmp_path)


def test_an_entry_that_is_an_id_means_that_site_alone() -> None:
    ids = ("relu1", "relu10", "f/relu1", "a.b[0]")
    plan = KappaPlan(by_site=(("relu1", 0.1), ("a.b[0]", 0.3))).settled(ids)
    assert [plan.for_site(site) for site in ids] == [0.1, None, None, 0.3]
    plan = KappaPlan(0.5, by_site=(("lu1", 0.2), ("relu10", 0.1))).settled(ids)
    assert [plan.for_site(site) for site in ids] == [0.2, 0.1, 0.2, 0.5]
    assert plan.settled(ids) == plan
    assert plan.unmatched(ids) == []


@pytest.mark.parametrize("text", ["\udcff", "a\ud800"])
def test_what_is_no_text_is_refused(text: str) -> None:
    with pytest.raises(KappaError, match="which is not text"):
        KappaPlan(kappa=0.1, input_name=text)
    with pytest.raises(KappaError, match="which is not text"):
        KappaPlan(by_site=((text, 0.1),))


def test_a_range_of_whole_numbers_is_one_of_floats() -> None:
    found = RandomKappa(1, 5)
    assert (type(found.low), type(found.high)) == (float, float)


def test_a_range_begins_at_zero_if_wished() -> None:
    found = RandomKappa(-0.0, 0.5)
    assert (found.low, found.middle, found.per, found.source) == (0.0, 0.25, "network", "input")
    assert math.copysign(1.0, found.low) == 1.0


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True))
@example(["a\nb", "\\A", "\\Z", "a.b", "\\Ax\\Z", "[(", " "])
def test_a_settled_id_is_recognised_whatever_its_characters(ids: list[str]) -> None:
    plan = KappaPlan(by_site=tuple((name, float(place)) for place, name in enumerate(ids))).settled(ids)
    assert not plan.has_expressions
    assert plan.for_sites(ids) == {name: float(place) for place, name in enumerate(ids)}
    assert plan.unmatched(ids) == []
    assert plan.unmatched([f"{name}!" for name in ids if f"{name}!" not in ids]) == [pair[0] for pair in plan.by_site]


@pytest.mark.parametrize("pattern", [r"\Arelu.\Z", r"\Arelu", r"elu1\Z", r"\Arelu1$", r"\Ar\elu1\Z"])
def test_an_anchored_expression_that_stands_for_no_id_stays_one(pattern: str) -> None:
    plan = KappaPlan(by_site=((pattern, 0.1),))
    assert plan.has_expressions
    if pattern == r"\Ar\elu1\Z":  # \e is no escape of an expression, so that the text is taken literally
        assert plan.unmatched(["relu1"]) == [pattern]
    else:
        assert plan.for_sites(["relu1", "block"]) == {"relu1": 0.1, "block": None}
        assert plan.unmatched(["relu1"]) == []
        assert plan.unmatched(["block"]) == [pattern]


def test_among_expressions_and_settled_ids_the_order_of_the_map_decides() -> None:
    settled = r"\Arelu1\Z"
    plan = KappaPlan(0.5, by_site=(("relu", 0.1), (settled, 0.2), ("re", 0.3)))
    assert plan.for_sites(["relu1", "relu2", "rest", "act"]) == {"relu1": 0.1, "relu2": 0.1, "rest": 0.3, "act": 0.5}
    plan = KappaPlan(0.5, by_site=((settled, 0.2), (settled, 0.4), ("relu", 0.1)))
    assert plan.for_sites(["relu1", "relu2"]) == {"relu1": 0.2, "relu2": 0.1}
    assert plan.for_site(settled) == 0.2  # the entry itself, should a site be called so


def test_a_label_says_where_the_kappa_comes_from() -> None:
    assert KappaPlan(0.06).label(0.0599976) == "0.0599976"
    assert KappaPlan(0.06, input_name="k").label(0.06) == "input 'k', default 0.06"
    assert KappaPlan.of(RandomKappa(0.02, 0.1)).label(0.06) == "U[0.02, 0.1]"


@pytest.mark.parametrize("text", ["", "[1, 2]"])
def test_a_map_of_the_wrong_shape_is_answered_with_an_example_that_is_one(tmp_path: Path, text: str) -> None:
    with pytest.raises(KappaError) as caught:
        read_kappa_map(write(tmp_path, text))
    assert caught.value.hint is not None
    example_line = caught.value.hint.partition("for instance: ")[2]
    assert read_kappa_map(write(tmp_path, example_line)) == {"conv1/Relu": 0.06}


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: KappaPlan(kappa=0.1, input_name="\udcff"), ["UTF-8"]),
        (lambda: KappaPlan(input_name="k"), ["--kappa", "--random"]),
        (KappaPlan, ["--kappa", "--kappa-map", "--random"]),
        (lambda: KappaPlan(by_site=(("a", 0.1),), input_name="k"), ["one of the two"]),
        (lambda: KappaPlan(random=RandomKappa(0, 1, source="op"), input_name="k"), ["one of the two"]),
        (lambda: KappaPlan(kappa=0.1, random=RandomKappa(0.1, 0.2)), ["range", "value"]),
    ],
)
def test_a_refused_wish_says_what_to_do(make: Callable[[], object], options: list[str]) -> None:
    with pytest.raises(KappaError) as caught:
        make()
    assert all(option in (caught.value.hint or "") for option in options)


def test_unknown_words_of_a_random_kappa_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"^per of a random kappa is 'layer', expected one of network, site"):
        RandomKappa(0.1, 0.2, per="layer")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^source of a random kappa is 'dice', expected one of input, op, graph"):
        RandomKappa(0.1, 0.2, source="dice")  # type: ignore[arg-type]


def test_a_refused_entry_is_named() -> None:
    with pytest.raises(KappaError, match="kappa of 'conv' is -1"):
        KappaPlan(by_site=(("conv", -1.0),))
    with pytest.raises(KappaError, match="an entry of the kappa map is"):
        KappaPlan(by_site=(("\udcff", 0.1),))
    with pytest.raises(KappaError, match="the name of the kappa input is"):
        KappaPlan(kappa=0.1, input_name="\udcff")


def test_what_stands_behind_an_id_in_the_map_is_searched_too() -> None:
    assert KappaPlan.of({"relu1": 0.1, "zzz": 0.2}).unmatched(["relu1"]) == ["zzz"]


def test_settled_ids_are_looked_up_and_never_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searching every id for every other would take the square of the sites: minutes for some thousands."""
    plan = KappaPlan(by_site=(("a", 0.1), ("b", 0.2))).settled(["a", "b", "c"])
    monkeypatch.delattr("jr_onnx.kappa._compile")
    assert plan.for_sites(["a", "b", "c"]) == {"a": 0.1, "b": 0.2, "c": None}
    assert plan.unmatched(["a", "c"]) == [r"\Ab\Z"]


def test_a_kappa_per_channel_comes_as_a_list_a_tuple_or_an_array() -> None:
    values = (0.25, 0.5)
    given = (list(values), values, np.array(values), np.array(values, np.float32))
    plans = [KappaPlan.of({"conv": value}) for value in given]
    assert plans == [KappaPlan(by_site=(("conv", values),))] * 4
    assert plans[0].for_site("conv/Relu") == values
    assert loads(KappaPlan, dumps(plans[0])) == plans[0]
    assert plans[0].label(values) == "per channel: 0.25 to 0.5 (2 channels)"


@pytest.mark.parametrize("kappa", [[0.1, 0.2], (0.1,), np.array([0.1, 0.2])])
def test_a_list_for_all_sites_is_refused(kappa: Any) -> None:
    with pytest.raises(KappaError, match="kappa is a list, expected one number for all sites"):
        KappaPlan.of(kappa)


@pytest.mark.parametrize("value", [[], [[0.1]], np.zeros((2, 2)), [0.1, float("nan")], [True], ["a"], [None]])
def test_every_value_of_a_kappa_per_channel_is_checked(value: Any) -> None:
    for make in (lambda: KappaPlan.of({"conv": value}), lambda: KappaPlan(by_site=(("conv", value),))):
        with pytest.raises(KappaError, match="kappa of 'conv'"):
            make()


def test_a_map_of_lists_is_read(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("a: [0, 1e-3, 0.5]\nb: 0.1\n")
    assert read_kappa_map(path) == {"a": (0.0, 0.001, 0.5), "b": 0.1}


def test_json_is_not_read_as_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML takes minutes for a list of millions of values."""
    monkeypatch.setattr("yaml.load", lambda *_, **__: pytest.fail("read as YAML"))
    path = tmp_path / "kappa.json"
    path.write_text('{"relu": [0.5, 1], "conv": 0.25}')
    assert read_kappa_map(path) == {"relu": (0.5, 1.0), "conv": 0.25}

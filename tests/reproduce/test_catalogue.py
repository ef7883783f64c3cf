from __future__ import annotations

from pathlib import Path

import pytest

from jr_onnx.errors import InputError
from jr_onnx.reproduce.catalogue import ITEMS, chosen, states
from jr_onnx.reproduce.networks import NETWORKS
from jr_onnx.reproduce.paper import ATTACKS, DETECTION, GRAY, LITERATURE, RANDOM, WHITE


def test_every_table_and_figure_of_the_paper_is_listed() -> None:
    numbers = {(item.kind, item.number.rstrip("abcde")) for item in ITEMS}
    assert numbers == {("table", str(number)) for number in range(1, 5)} | {
        ("figure", str(number)) for number in range(1, 9)
    }
    assert len({item.name for item in ITEMS}) == len(ITEMS)


def test_a_number_without_a_letter_is_every_panel() -> None:
    assert [item.number for item in chosen(("2",), ())] == ["2a", "2b", "2c", "2d", "2e"]
    assert [item.name for item in chosen((), ("7a", "3"))] == ["figure-7a", "figure-3"]


def test_what_the_paper_has_not_is_refused() -> None:
    with pytest.raises(InputError, match=r"no table '5'.*1a, 1b"):
        chosen(("5",), ())


def test_states_say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alex_like_base.onnx").write_bytes(b"")
    found = {state.item.name: state for state in states(ITEMS, [tmp_path], {})}
    assert "lenet_like_base.onnx or lenet_like_robust.onnx or lenet_like_pgd.onnx" in found["table-1a"].reason
    assert found["figure-8d"].reason == (
        "no weights: no folder of --checkpoints has mobilenet_v2_robust.onnx; no data: give --data cifar10:DIR"
    )
    assert found["table-2b"].reason == "no data: give --data cifar10:DIR"
    assert found["figure-3"].reason == ""
    assert found["figure-2"].reason == "nothing to measure"


def test_without_folders_the_option_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (state,) = states(chosen(("1a",), ()), [], {"mnist": "mnist:there"})
    assert state.reason.startswith("no weights: give --checkpoints DIR, a folder with lenet_like_base.onnx or ")


def test_in_a_checkout_its_networks_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = tmp_path / "models" / "exported"
    exported.mkdir(parents=True)
    (exported / "alex_like_base.onnx").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for folders in ([], [tmp_path]):
        found = {state.item.name: state.reason for state in states(ITEMS, folders, {"cifar10": "cifar10:there"})}
        assert found["table-1b"] == f"no weights: add --checkpoints {Path('models', 'exported')}"
        assert "mobilenet_v2_robust.onnx" in found["figure-8d"], "it is not there either"


def test_without_images_for_adaptive_attacks_tables_1_and_2_remain(tmp_path: Path) -> None:
    (tmp_path / "alex_like_base.onnx").write_bytes(b"")
    specs = {"cifar10": "cifar10:there"}
    found = {state.item.name: state.reason for state in states(ITEMS, [tmp_path], specs, adaptive=False)}
    assert (found["table-1b"], found["table-2b"], found["figure-3"]) == ("", "", "")
    for name in ("table-3b", "table-4b", "figure-4b", "figure-6", "figure-7b", "figure-8b"):
        assert found[name] == "no images: --adaptive-limit is 0"


def test_the_papers_tables_are_whole() -> None:
    letters = [network.letter for network in NETWORKS if "not in the paper" not in network.title]
    for table in (GRAY, WHITE):
        assert sorted(table) == letters
        for rows in table.values():
            assert [(row.variant, row.retrofit) for row in rows] == [
                ("base", False), ("base", True), ("robust", False), ("robust", True),
            ]  # fmt: skip
            assert all(len(row.attacks) == len(ATTACKS) for row in rows)
    assert sorted(RANDOM) == letters
    assert all(len(row) == len(ATTACKS) for row in DETECTION.values())
    assert sorted(LITERATURE) == ["a", "c"]
    # Tables 1 and 2 say the same of clean images, but for one misprint (see the module).
    differing = {
        (letter, mine.variant, mine.retrofit)
        for letter in letters
        for mine, other in zip(GRAY[letter], WHITE[letter], strict=True)
        if mine.clean != other.clean
    }
    assert differing == {("d", "base", True)}


def test_networks_are_trained_as_in_the_paper() -> None:
    variants = {item.name: item.variants for item in ITEMS}
    assert variants["table-2c"] == ("base", "robust", "pgd")
    assert variants["table-4c"] == ("base", "robust")
    assert [variants[f"figure-8{letter}"] for letter in "abcd"] == [("base",), ("base",), ("robust",), ("robust",)]
    assert variants["figure-6"] == ("base",)


def test_how_far_the_papers_pgd_moves() -> None:
    mnist = NETWORKS[0]
    assert mnist.eps == pytest.approx(0.4 * 0.3081)

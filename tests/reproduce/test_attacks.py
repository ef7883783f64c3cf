from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from jr_onnx.reproduce.attacks import COLUMNS, JUMP, RELU, adaptive_entries, pair, paper_entry
from jr_onnx.reproduce.networks import BY_LETTER
from jr_onnx.reproduce.paper import ATTACKS


@pytest.mark.parametrize(("letter", "steps"), [("a", 40), ("b", 7), ("d", 7)])
def test_the_papers_attacks_have_its_steps(letter: str, steps: int) -> None:
    network = BY_LETTER[letter]
    assert tuple(COLUMNS) == ATTACKS
    for attack in ATTACKS:
        entry, gray = paper_entry(network, attack), paper_entry(network, attack, gray=True)
        assert entry.attack.spec() == gray.attack.spec()
        assert entry.attack.spec()["steps"] == (1000 if attack == "tr" else steps)
        assert (entry.threat, entry.source_kappa) == ("white_box", None)
        assert (gray.threat, gray.source_kappa) == ("gray_box", 0.0), "the source is the ReLU network"
        assert {entry.protocol, gray.protocol, entry.units, gray.units} == {"paper"}
    assert paper_entry(network, "pgd").attack.spec()["eps"] == 0.01
    assert [paper_entry(network, name).attack.spec()["norm"] for name in ("df", "df2")] == ["linf", "l2"]


def test_attacks_that_know_the_jump_move_no_farther_than_the_papers_pgd() -> None:
    network = BY_LETTER["c"]
    entries = adaptive_entries(network)
    assert {entry.eps for entry in entries} == {None, network.eps}
    assert len({entry.name for entry in entries}) == len(entries)
    assert all(entry.protocol == "adaptive" and entry.units == "pixel" for entry in entries)


def test_a_network_is_attacked_without_and_with_the_papers_jump() -> None:
    plans = pair(BY_LETTER["b"])
    assert plans[RELU] is None
    assert plans[JUMP] is not None
    assert plans[JUMP].kappa == 0.4

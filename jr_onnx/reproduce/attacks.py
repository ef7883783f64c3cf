"""What attacks the paper's networks: the paper's own attacks, and attacks that know the jump."""

from __future__ import annotations

from dataclasses import replace

from jr_onnx.attack.apgd import APGD
from jr_onnx.attack.ddn import DDN
from jr_onnx.attack.suite.plan import Entry, PaperSettings, SuiteOptions, paper_entries
from jr_onnx.kappa import KappaPlan
from jr_onnx.reproduce.networks import Network

RELU, JUMP = "ReLU", "JumpReLU"
COLUMNS = {"pgd": "PGD", "df": "DF", "df2": "DF2", "tr": "TR"}
_SUITE_NAMES = {"pgd": "pgd", "df": "deepfool-linf", "df2": "deepfool-l2", "tr": "trust-region"}


def pair(network: Network) -> dict[str, KappaPlan | None]:
    """Return a network without and with the paper's jump, as settings to attack."""
    return {RELU: None, JUMP: KappaPlan(network.kappa)}


def paper_entry(network: Network, attack: str, *, gray: bool = False) -> Entry:
    """Return one of the paper's attacks (a key of `COLUMNS`), white box or gray box."""
    name = f"paper/{'gray/' if gray else ''}{_SUITE_NAMES[attack]}"
    options = SuiteOptions("linf", network.eps, paper=PaperSettings(steps=network.steps))
    return next(entry for entry in paper_entries(options) if entry.name == name)


def apgd_entries(network: Network) -> list[Entry]:
    """Return APGD within the distance that the paper's PGD can move, with exact and surrogate backward passes."""
    exact = APGD(norm="linf", eps=network.eps)
    return [
        Entry("apgd-ce", exact, "exact", "white_box"),
        Entry("apgd-ce/smooth:2", replace(exact, backward="smooth:2"), "surrogate", "white_box"),
        Entry("apgd-ce/smooth:5", replace(exact, backward="smooth:5"), "surrogate", "white_box"),
    ]


def adaptive_entries(network: Network) -> list[Entry]:
    """Return attacks that know the jump: APGD, transfer within the same distance, and minimal ones."""
    asking = APGD(norm="linf", eps=network.eps)
    return [
        *apgd_entries(network),
        Entry("transfer from kappa 0", asking, "transfer", "transfer", source_kappa=0.0),
        Entry("transfer from kappa/2", asking, "transfer", "transfer", source_kappa=0.5),
        Entry("ddn", DDN(), "exact", "white_box"),
        Entry("ddn/smooth:5", DDN(backward="smooth:5"), "surrogate", "white_box"),
    ]

"""Which attacks a suite runs, under which threat model, and what each of them knows.

| suite | entries |
|---|---|
| paper | the authors' FGSM, iterated FGSM ("PGD"), DeepFool (linf, l2) and trust region, white box and gray box, in their normalised units; not adaptive |
| adaptive | exact PGD and APGD (CE, DLR); APGD with each surrogate backward pass; transfer from kappa 0 and kappa/2; Square on ONNX Runtime; DDN and FMN, exact and surrogate; one APGD with a multiple of the budget |
| full | paper and adaptive, with restarts, targeted APGD, DLR on surrogates, and more queries |

A random model gets every gradient attack averaged over draws (EOT), and one with a single draw beside them.
"""  # noqa: E501 - a table

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from jr_onnx.attack.apgd import APGD, TargetedAPGD
from jr_onnx.attack.base import EOT_DRAWS, Attack, GradientAttack
from jr_onnx.attack.ddn import DDN
from jr_onnx.attack.deepfool import DeepFool
from jr_onnx.attack.fgsm import FGSM, IteratedFGSM
from jr_onnx.attack.fmn import FMN
from jr_onnx.attack.norms import Norm
from jr_onnx.attack.pgd import PGD
from jr_onnx.attack.pixels import Units
from jr_onnx.attack.square import Square
from jr_onnx.attack.surrogate import SMOOTH_GRID
from jr_onnx.attack.transfer import RescaledDeepFool
from jr_onnx.attack.trust_region import TrustRegion
from jr_onnx.evaluation.outcome import Protocol, Threat, View

SuiteName = Literal["paper", "adaptive", "full"]
LADDER = 4.0
"""The wide budget of the ladder, as a multiple of eps (at most half the pixel range in linf)."""

_WIDEST_LINF = 0.5
_BLACK_BOX_RUNS = 8


@dataclass(frozen=True)
class Entry:
    """One attack of a suite.

    Attributes:
        name: Readable and unique within the suite.
        attack: The attack with its parameters.
        view: What it knows of the model.
        threat: Threat model.
        protocol: "paper" for the authors' non-adaptive protocol.
        units: Units the attack works and measures in.
        source_kappa: The gradients come from the same network with this multiple of the retrofit's kappas; None for the
            attacked network itself.
        source_jump: The gradients come from the same network with this kappa at all sites (paper, figure 7).
    """

    name: str
    attack: Attack
    view: View
    threat: Threat
    protocol: Protocol = "adaptive"
    units: Units = "pixel"
    source_kappa: float | None = None
    source_jump: float | None = None

    @property
    def crafted_elsewhere(self) -> bool:
        """Whether the attack sees its source alone, and the result is judged on the target (the paper's gray box).

        An adaptive transfer asks the target at every step instead, and keeps the first point that fools it.
        """
        return self.threat == "gray_box"

    @property
    def eps(self) -> float | None:
        """The budget; None for attacks that minimise and for the authors' PGD, whose eps is a step size."""
        if self.protocol == "paper" and not isinstance(self.attack, FGSM):
            return None
        value = getattr(self.attack, "eps", None)
        return float(value) if value is not None else None


@dataclass(frozen=True)
class PaperSettings:
    """The authors' numbers, in their normalised units (paper, section 4; 40 steps for MNIST, 7 for CIFAR-10)."""

    step: float = 0.01
    steps: int = 40
    fgsm_eps: float = 0.3
    trust_steps: int = 1000
    trust_radius: float = 0.01


@dataclass(frozen=True)
class SuiteOptions:
    """What a suite is made for.

    Attributes:
        norm: linf, l2 or l1: the norm of the budget.
        eps: Budget, in pixel scale.
        seed: Random seed.
        random: Whether an attacked model draws random numbers.
        jumps: Whether an attacked model has jumps; without, surrogates and transfer are the exact attacks again.
        transfer_from: Further source kappas for transfer (paper, figure 7).
        paper: The authors' numbers.
        classes: How many classes the model has.
    """

    norm: Norm
    eps: float
    seed: int = 0
    random: bool = False
    transfer_from: tuple[float, ...] = ()
    paper: PaperSettings = PaperSettings()
    classes: int = 10
    jumps: bool = True


def suite(name: SuiteName, options: SuiteOptions, *, gradients: bool = True) -> list[Entry]:
    """Return the entries of a suite.

    Args:
        name: paper, adaptive or full.
        options: What it is made for.
        gradients: Whether gradients can be had; False leaves the black-box entries.
    """
    entries: list[Entry] = []
    if name in ("paper", "full"):
        entries += paper_entries(options)
    if name in ("adaptive", "full"):
        entries += adaptive_entries(options, thorough=name == "full")
    entries += transfer_entries(options)
    if not options.jumps:
        entries = [entry for entry in entries if entry.view in ("exact", "black_box")]
    if not gradients:
        entries = [entry for entry in entries if entry.view == "black_box"] or list(_black_box(options, 1000))
    if not options.random:
        return entries
    return [_averaged(entry, gradients=gradients) for entry in entries] + _single_draws(entries)


def paper_entries(options: SuiteOptions) -> list[Entry]:
    """Return the authors' attacks, white box and gray box (the source is the ReLU network)."""
    numbers, seed = options.paper, options.seed
    classes = min(9, options.classes - 1)
    attacks: dict[str, Attack] = {
        "fgsm": FGSM(eps=numbers.fgsm_eps, seed=seed),
        "pgd": IteratedFGSM(eps=numbers.step, steps=numbers.steps, seed=seed),
        "deepfool-linf": DeepFool(norm="linf", steps=numbers.steps, classes=classes, seed=seed),
        "deepfool-l2": DeepFool(norm="l2", steps=numbers.steps, classes=classes, seed=seed),
        "trust-region": TrustRegion(
            steps=numbers.trust_steps, trust_radius=numbers.trust_radius, classes=classes, seed=seed
        ),
    }
    white = [Entry(f"paper/{name}", attack, "exact", "white_box", "paper", "paper") for name, attack in attacks.items()]
    gray = [
        Entry(f"paper/gray/{name}", attack, "transfer", "gray_box", "paper", "paper", source_kappa=0.0)
        for name, attack in attacks.items()
    ]
    return white + gray


def adaptive_entries(options: SuiteOptions, *, thorough: bool = False) -> list[Entry]:
    """Return the attacks that adapt to the jump; `thorough` for the full suite."""
    norm, eps, seed = options.norm, options.eps, options.seed
    restarts = 3 if thorough else 1
    ce = APGD(norm=norm, eps=eps, seed=seed, restarts=restarts)
    dlr = replace(ce, loss="dlr" if options.classes > 2 else "margin")
    entries = [
        Entry(f"pgd/{norm}", PGD(norm=norm, eps=eps, seed=seed, restarts=restarts), "exact", "white_box"),
        Entry(f"apgd-ce/{norm}", ce, "exact", "white_box"),
        Entry(f"apgd-{dlr.loss}/{norm}", dlr, "exact", "white_box"),
        Entry(f"apgd-ce/{norm}/wide", replace(ce, eps=wide(options)), "exact", "white_box"),
    ]
    backwards = ["straight-through", *(f"smooth:{value:g}" for value in SMOOTH_GRID)]
    for loss in (ce, dlr) if thorough else (ce,):
        entries += [
            Entry(f"apgd-{loss.loss}/{norm}/{way}", replace(loss, backward=way), "surrogate", "white_box")
            for way in backwards
        ]
    if thorough and options.classes > 3:
        targeted = TargetedAPGD(norm=norm, eps=eps, seed=seed, targets=min(9, options.classes - 1))
        entries.append(Entry(f"apgd-t/{norm}", targeted, "exact", "white_box"))
        soft = replace(targeted, backward="smooth:5")
        entries.append(Entry(f"apgd-t/{norm}/smooth:5", soft, "surrogate", "white_box"))
    entries += [
        Entry(f"apgd-ce/{norm}/from kappa*{factor:g}", ce, "transfer", "transfer", source_kappa=factor)
        for factor in (0.0, 0.5)
    ]
    entries += _minimal(options)
    entries += _black_box(options, 5000 if thorough else 1000)
    return entries


def transfer_entries(options: SuiteOptions) -> list[Entry]:
    """Return transfer from the same network with other jumps (paper, figure 7)."""
    attack = APGD(norm=options.norm, eps=options.eps, seed=options.seed)
    return [
        Entry(f"apgd-ce/{options.norm}/from kappa={kappa:g}", attack, "transfer", "transfer", source_jump=kappa)
        for kappa in options.transfer_from
    ]


def wide(options: SuiteOptions) -> float:
    """Return the ladder's wide budget: one with which an attack on a plain network must win."""
    most = LADDER * options.eps
    return max(2 * options.eps, min(most, _WIDEST_LINF)) if options.norm == "linf" else most


def _minimal(options: SuiteOptions) -> Iterator[Entry]:
    seed = options.seed
    minimal: tuple[GradientAttack, ...] = (DDN(seed=seed), FMN(norm=options.norm, seed=seed))
    for attack in minimal if options.norm != "l2" else minimal[:1]:
        name = f"{attack.name}/{attack.norm}"
        yield Entry(name, attack, "exact", "white_box")
        yield Entry(f"{name}/smooth:5", replace(attack, backward="smooth:5"), "surrogate", "white_box")
    rescaled = RescaledDeepFool(norm="l2", classes=min(9, options.classes - 1), seed=seed)
    yield Entry("rescaled-deepfool/l2/from kappa*0", rescaled, "transfer", "transfer", source_kappa=0.0)


def _black_box(options: SuiteOptions, queries: int) -> Iterator[Entry]:
    if options.norm in Square.norms:
        attack = Square(norm=options.norm, eps=options.eps, seed=options.seed, queries=queries)
        yield Entry(f"square/{options.norm}", attack, "black_box", "black_box")


def _averaged(entry: Entry, *, gradients: bool) -> Entry:
    attack = entry.attack
    if isinstance(attack, Square) and not gradients:  # the only attack there is
        return replace(entry, attack=replace(attack, eot=_BLACK_BOX_RUNS))
    if isinstance(attack, GradientAttack) and entry.protocol == "adaptive":
        return replace(entry, attack=replace(attack, eot=EOT_DRAWS))
    return entry


def _single_draws(entries: list[Entry]) -> list[Entry]:
    chosen = [entry for entry in entries if entry.name.startswith("apgd-ce/") and entry.view == "exact"][:1]
    return [replace(entry, name=f"{entry.name}/one draw") for entry in chosen]

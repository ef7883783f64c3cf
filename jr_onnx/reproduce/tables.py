"""Tables 1 (gray box), 2 (white box) and 4 (random kappa), each with columns for an attacker who knows the defence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from jr_onnx.attack.apgd import APGD
from jr_onnx.attack.base import EOT_DRAWS
from jr_onnx.attack.judging import DECISION_DRAWS
from jr_onnx.attack.noise import Noise
from jr_onnx.attack.suite.plan import Entry
from jr_onnx.evaluation.minimal import least
from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.scores import predictions
from jr_onnx.evaluation.summary import survivors
from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.reproduce.attacks import COLUMNS, JUMP, RELU, adaptive_entries, pair, paper_entry
from jr_onnx.reproduce.measuring import Bench, Measured, measure
from jr_onnx.reproduce.networks import PAPERS, TRAINED, Checkpoint, Network
from jr_onnx.reproduce.paper import ATTACKS, GRAY, LITERATURE, RANDOM, WHITE, Row
from jr_onnx.reproduce.result import Cell, ItemResult, accuracy, mean

DRAWN = "JumpReLU random"
ADAPTIVE, LEAST, EOT = "adaptive", "least L2, adaptive", "EOT, adaptive"

_TRAINED_ANEW = "the weights are not the authors', so figures may differ by more than sampling"
_PGD_TRAINED = (
    "PGD-trained: on PGD images alone (Madry et al. 2018), at the distance that the paper's PGD can move; the paper "
    "has no such row"
)
_PAPER_PROTOCOL = "PGD, DF, DF2 and TR follow the paper's protocol, which does not adapt to the jump"
_ASKING_IS = (
    "adaptive: APGD with the gradients of the ReLU network that asks the retrofit at every step, and keeps the first "
    "point that fools it"
)
_NO_ADAPTIVE = (
    "adaptive columns: not measured (--adaptive-limit 0), so the table says nothing of an attacker who knows the jump"
)
_ADAPTIVE_IS = (
    "adaptive: accuracy under the worst of APGD with exact, smooth:2 and smooth:5 backward passes and by transfer "
    "from kappa 0 and kappa/2, within the distance that the paper's PGD can move"
)
_LEAST_IS = "least L2, adaptive: mean over fooled images of the smaller DDN perturbation (exact, smooth:5)"


@dataclass(frozen=True)
class Table:
    """What the tables of one network share."""

    bench: Bench
    checkpoints: Sequence[Checkpoint]

    @property
    def network(self) -> Network:
        """The network."""
        return self.checkpoints[0].network

    def gray(self) -> ItemResult:
        """Measure table 1: examples made on the ReLU network, shown to the retrofit."""
        cells: list[Cell] = []
        for checkpoint, row in self._rows(GRAY):
            label, name = _label(row), _row_name(row)
            for number, attack in enumerate(self.bench.attacks):
                outcome = self._paper(checkpoint, attack, label, gray=row.retrofit)
                if number == 0:
                    cells.append(accuracy(name, "clean", _clean(outcome), row.clean))
                cells.append(accuracy(name, COLUMNS[attack], outcome.served_robust, _printed(row, attack)))
            if not self.bench.adaptive_limit:
                cells.append(_not_measured(name, ADAPTIVE))
                continue
            found = self._adaptive(checkpoint).outcomes[label]
            way = "transfer from kappa 0" if row.retrofit else "apgd-ce"
            cells.append(accuracy(name, ADAPTIVE, found[way].served_robust, adaptive=True))
        notes = [_PAPER_PROTOCOL, _ASKING_IS if self.bench.adaptive_limit else _NO_ADAPTIVE]
        return self._result("1", "gray box: examples crafted on the ReLU network", cells, notes, [ADAPTIVE])

    def white(self) -> ItemResult:
        """Measure table 2."""
        cells: list[Cell] = []
        for checkpoint, row in self._rows(WHITE):
            cells += self._white_row(checkpoint, row)
        for name, clean, pgd in LITERATURE.get(self.network.letter, ()):
            for column, value in (("clean", clean), ("PGD", pgd)):
                cells.append(Cell(f"{name} (quoted)", column, "accuracy", None, None, None, 0, value))
        notes = [_PAPER_PROTOCOL, *([_ADAPTIVE_IS, _LEAST_IS] if self.bench.adaptive_limit else [_NO_ADAPTIVE])]
        if self.network.letter in LITERATURE:
            notes.append("quoted rows are the paper's quotations, not run here")
        return self._result("2", "white box", cells, notes, [ADAPTIVE, LEAST])

    def drawn(self) -> ItemResult:
        """Measure table 4: a random kappa, judged by one fresh draw as in the paper, and by the majority of many."""
        cells: list[Cell] = []
        for checkpoint, row in self._rows(WHITE):
            cells += self._white_row(checkpoint, row)
            if row.retrofit:
                cells += self._random_row(checkpoint)
        low, high = self._range
        notes = [
            _PAPER_PROTOCOL,
            f"a random row draws kappa uniformly from {low:g} to {high:g} at every site, again in every step",
            "a random row's PGD and 'survives' columns are the paper's scoring, one fresh draw of every kappa after "
            f"the attack; 'majority' columns are the answers of {DECISION_DRAWS} runs of the served file",
            f"EOT: APGD (smooth:5) with gradients averaged over {EOT_DRAWS} draws",
            _ADAPTIVE_IS,
            _LEAST_IS,
        ]
        survives = [f"{COLUMNS[item]} survives" for item in self.bench.attacks if item != "pgd"]
        majority = [f"{COLUMNS[item]} majority" for item in self.bench.attacks]
        further = [*survives, *majority, ADAPTIVE, LEAST, EOT]
        return self._result("4", "random kappa (appendix C)", cells, notes, further)

    def _white_row(self, checkpoint: Checkpoint, row: Row) -> list[Cell]:
        label, name, cells = _label(row), _row_name(row), []
        for number, attack in enumerate(self.bench.attacks):
            outcome = self._paper(checkpoint, attack, label)
            if number == 0:
                cells.append(accuracy(name, "clean", _clean(outcome), row.clean))
            cells.append(_white_cell(name, attack, outcome, _printed(row, attack)))
        if not self.bench.adaptive_limit:
            return [*cells, _not_measured(name, ADAPTIVE), _not_measured(name, LEAST)]
        found = self._adaptive(checkpoint).outcomes[label]
        cells.append(accuracy(name, ADAPTIVE, survivors(list(found.values())), adaptive=True))
        return [*cells, _least(name, [item for item in found.values() if item.eps is None])]

    def _random_row(self, checkpoint: Checkpoint) -> list[Cell]:
        printed = next((row for row in RANDOM.get(self.network.letter, ()) if row.variant == checkpoint.variant), None)
        name, cells = f"{DRAWN} ({TRAINED[checkpoint.variant]})", []
        for number, attack in enumerate(self.bench.attacks):
            place = ATTACKS.index(attack)
            found = self._random(checkpoint, attack)
            outcome = found.outcomes[DRAWN][paper_entry(self.network, attack).name]
            fresh, clean = _fresh_draw(found, outcome)
            paper = _printed(printed, attack) if printed else None
            if number == 0:
                cells.append(accuracy(name, "clean", clean, printed.clean if printed else None))
            if attack == "pgd":
                cells.append(accuracy(name, "PGD", fresh, paper))
            else:
                cells.append(mean(name, COLUMNS[attack], np.asarray(outcome.relative), paper))
                left = printed.survivors[place - 1] if printed else None
                cells.append(accuracy(name, f"{COLUMNS[attack]} survives", fresh, left))
            cells.append(accuracy(name, f"{COLUMNS[attack]} majority", outcome.served_robust))
        eot = self._eot(checkpoint).outcomes[DRAWN]["apgd-ce/eot"]
        return [*cells, accuracy(name, EOT, eot.served_robust, adaptive=True)]

    def _paper(self, checkpoint: Checkpoint, attack: str, label: str, *, gray: bool = False) -> Outcome:
        entries = [paper_entry(self.network, attack), paper_entry(self.network, attack, gray=True)]
        limit = self.bench.images_for(attack)
        found = measure(self.bench, checkpoint, attack, pair(self.network), entries, limit=limit)
        return found.outcomes[label][entries[gray].name]

    def _adaptive(self, checkpoint: Checkpoint) -> Measured:
        limit = self.bench.at_most(self.bench.adaptive_limit)
        return measure(self.bench, checkpoint, "adaptive", pair(self.network), adaptive_entries(self.network), limit=limit)  # noqa: E501  # fmt: skip

    def _random(self, checkpoint: Checkpoint, attack: str) -> Measured:
        entries = [paper_entry(self.network, attack)]
        most = self.bench.images_for(attack)
        most = self.bench.adaptive_limit if most is None else min(most, self.bench.adaptive_limit)
        return measure(self.bench, checkpoint, f"random-{attack}", {DRAWN: self._drawn_plan()}, entries,
                       limit=most, keep=True)  # fmt: skip

    def _eot(self, checkpoint: Checkpoint) -> Measured:
        attack = replace(APGD(norm="linf", eps=self.network.eps, backward="smooth:5"), eot=EOT_DRAWS)
        limit = self.bench.at_most(min(self.bench.eot_limit, self.bench.adaptive_limit))
        entries = [Entry("apgd-ce/eot", attack, "surrogate", "white_box")]
        return measure(self.bench, checkpoint, "random-eot", {DRAWN: self._drawn_plan()}, entries, limit=limit)

    @property
    def _range(self) -> tuple[float, float]:
        """The range of the random kappa; its lower end is 0.6 of the upper one (appendix C)."""
        return 0.6 * self.network.random_kappa, self.network.random_kappa

    def _drawn_plan(self) -> KappaPlan:
        return KappaPlan.of(RandomKappa(*self._range, "site", "graph"))

    def _rows(self, table: Mapping[str, Sequence[Row]]) -> list[tuple[Checkpoint, Row]]:
        printed = {(row.variant, row.retrofit): row for row in table.get(self.network.letter, ())}
        return [
            (item, printed.get((item.variant, retrofit), Row(item.variant, retrofit, None, (None,) * len(ATTACKS))))
            for item in self.checkpoints
            for retrofit in (False, True)
        ]

    def _result(self, number: str, what: str, cells: list[Cell], notes: list[str], further: list[str]) -> ItemResult:
        network = self.network
        variants = [item.variant for item in self.checkpoints]
        if not all(item.is_authors for item in self.checkpoints if item.variant in PAPERS):
            notes = [*notes, _TRAINED_ANEW]
        if "pgd" in variants:
            notes = [*notes, _PGD_TRAINED]
        missing = set(PAPERS) - set(variants)
        notes += [f"not measured: no weights of the {variant} network" for variant in sorted(missing)]
        columns = ["clean", *(COLUMNS[item] for item in self.bench.attacks), *further]
        title = f"Table {number}({network.letter}): {what}; {network.title}, kappa {network.kappa:g}"
        return self.bench.result(f"table-{number}{network.letter}", title, "table", columns, cells, notes, self.checkpoints)  # noqa: E501  # fmt: skip


def _label(row: Row) -> str:
    return JUMP if row.retrofit else RELU


def _row_name(row: Row) -> str:
    return f"{_label(row)} ({TRAINED[row.variant]})"


def _printed(row: Row, attack: str) -> float | None:
    return row.attacks[ATTACKS.index(attack)]


def _clean(outcome: Outcome) -> npt.NDArray[np.bool_]:
    return np.asarray(outcome.served_correct, dtype=bool)


def _white_cell(row: str, attack: str, outcome: Outcome, paper: float | None) -> Cell:
    if attack == "pgd":
        return accuracy(row, COLUMNS[attack], outcome.served_robust, paper)
    survived = 100 * float(np.mean(outcome.served_robust))
    return mean(row, COLUMNS[attack], np.asarray(outcome.relative), paper, survived=survived)


def _not_measured(row: str, column: str) -> Cell:
    return Cell(row, column, "accuracy", None, None, None, 0, adaptive=True)


def _least(row: str, found: Sequence[Outcome]) -> Cell:
    attacked = least(found)[found[0].attacked]
    won = attacked[np.isfinite(attacked)]
    survived = 100 * float(np.mean(~np.isfinite(attacked))) if len(attacked) else None
    return mean(row, LEAST, won, survived=survived, adaptive=True)


def _fresh_draw(found: Measured, outcome: Outcome) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which images (N,) are classified correctly after and before the attack, by one draw a block of images."""
    target = found.contenders[outcome.model].target
    if target is None:
        raise TypeError("a contender has a target, or `measure` had refused it")
    labels, noise = np.asarray(outcome.labels), Noise(0)
    answers = [np.zeros(len(labels), dtype=bool), np.zeros(len(labels), dtype=bool)]
    adversarial = found.adversarials(outcome.model, outcome.entry)
    with torch.no_grad():
        for number, images in enumerate((adversarial, found.data.images)):
            for start in range(0, len(labels), 100):
                rows = slice(start, start + 100)
                drawn = target.draw(noise.word("fresh draw", start + number))
                logits = drawn.logits(torch.from_numpy(np.ascontiguousarray(images[rows])).to(target.device))
                answers[number][rows] = predictions(logits.cpu().numpy()) == labels[rows]
    return answers[0], answers[1]

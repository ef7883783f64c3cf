"""Figures 1, 5 and 6: clean image, adversarial example and perturbation, on the ReLU network and on its retrofit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from jr_onnx.attack.ddn import DDN
from jr_onnx.attack.suite.plan import Entry
from jr_onnx.reproduce.attacks import COLUMNS, pair, paper_entry
from jr_onnx.reproduce.measuring import Bench, measure
from jr_onnx.reproduce.networks import Checkpoint
from jr_onnx.reproduce.result import Cell, ItemResult

SHOWN = 8
_TRIED = 20
"""Images attacked, of which the first `SHOWN` are drawn that both networks classify correctly."""

Images = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sheet:
    """The images of one attack.

    Attributes:
        attack: In words.
        clean: (N, C, H, W).
        adversarial: ReLU and JumpReLU -> (N, C, H, W).
        fooled: ReLU and JumpReLU -> who is fooled (N,).
    """

    attack: str
    clean: Images
    adversarial: dict[str, Images]
    fooled: dict[str, npt.NDArray[np.bool_]]


def pictures(bench: Bench, checkpoint: Checkpoint, number: int) -> tuple[ItemResult, list[Sheet]]:
    """Attack a few images, and return the sizes of the perturbations and the images to draw.

    Args:
        bench: What all items share.
        checkpoint: The network.
        number: 1 (one image), 5 or 6 (several, and DF2 too).
    """
    network = checkpoint.network
    entries = [
        *(replace(paper_entry(network, attack), name=COLUMNS[attack]) for attack in ("df", "df2")),
        Entry("DDN, adaptive", DDN(backward="smooth:5"), "surrogate", "white_box"),
    ]
    plans = pair(network)
    found = measure(bench, checkpoint, "pictures", plans, entries, limit=_TRIED, keep=True)
    good = np.logical_and(*(found.outcomes[label]["DF"].attacked for label in plans))
    chosen = np.flatnonzero(good)[: 1 if number == 1 else SHOWN]
    sheets, cells = [], []
    for entry in (entries[0], entries[2]) if number == 1 else entries:
        sheets.append(
            Sheet(
                entry.name,
                found.data.images[chosen],
                {label: found.adversarials(label, entry.name)[chosen] for label in plans},
                {label: found.outcomes[label][entry.name].fooled[chosen] for label in plans},
            )
        )
        for label in plans:
            outcome = found.outcomes[label][entry.name]
            cells += [
                Cell(f"{label}, {entry.name}", f"image {row}", "relative", 100 * outcome.relative[row], None, None, 1,
                     adaptive="adaptive" in entry.name, survived=0.0 if outcome.fooled[row] else 100.0)
                for row in chosen
            ]  # fmt: skip
    scale = "all" if number == 1 else "the attack, the same scale for both networks"
    notes = [
        f"perturbations are drawn from white (0) to dark red (the largest of {scale}), in colour images the largest of "
        "the three channels",
        f"DF: linf{'' if number == 1 else ', DF2: l2'}, as in the paper; DDN, adaptive: the least L2 perturbation with "
        "a surrogate backward pass",
        "a cross marks an image on which the attack failed",
    ]
    title = f"Figure {number}: perturbations that fool {network.title} without and with JumpReLU"
    columns = [f"image {row}" for row in chosen]
    return bench.result(f"figure-{number}", title, "pictures", columns, cells, notes, [checkpoint]), sheets

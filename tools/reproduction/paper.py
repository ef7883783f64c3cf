"""What the paper prints for LeNetLike on MNIST (Tables 1(a) and 2(a)), in per cent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

KAPPA: Final = 1.0


@dataclass(frozen=True)
class PaperRow:
    """One row of both tables.

    Attributes:
        checkpoint: baseline or robust.
        model: original (kappa 0) or retrofit (kappa 1).
        clean: Accuracy.
        pgd: Accuracy under iterated FGSM, white box.
        relative: Mean relative perturbation (paper, eq. 12) by entry of the suite.
        gray: Accuracy under examples crafted on the ReLU network, by entry of the suite.
    """

    checkpoint: str
    model: str
    clean: float
    pgd: float
    relative: Mapping[str, float]
    gray: Mapping[str, float] = field(default_factory=dict)


def _relative(linf: float, l2: float, trust: float) -> dict[str, float]:
    return {"paper/deepfool-linf": linf, "paper/deepfool-l2": l2, "paper/trust-region": trust}


def _gray(pgd: float, linf: float, l2: float, trust: float) -> dict[str, float]:
    names = ("paper/gray/pgd", "paper/gray/deepfool-linf", "paper/gray/deepfool-l2", "paper/gray/trust-region")
    return dict(zip(names, (pgd, linf, l2, trust), strict=True))


ROWS: Final = (
    PaperRow("baseline", "original", 99.55, 66.69, _relative(17.9, 21.8, 18.9)),
    PaperRow("baseline", "retrofit", 99.53, 83.21, _relative(34.1, 44.9, 25.0), _gray(91.65, 81.39, 58.93, 58.90)),
    PaperRow("robust", "original", 99.50, 91.39, _relative(28.4, 31.4, 24.7)),
    PaperRow("robust", "retrofit", 99.47, 94.36, _relative(46.6, 53.3, 32.8), _gray(97.07, 70.84, 45.17, 53.24)),
)

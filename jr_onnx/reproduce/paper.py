"""What the paper prints in its tables, in per cent; None where it prints nothing.

Contradictions are kept: table 1 is captioned "black-box" and is the gray box of section 4.1.1; in 1(c, d) the accuracy
of the base networks under PGD is 0.0 where tables 2 and 4 have 0.37 and 0.74 (another step was used); 1(d) has the
clean accuracy 90.43 where 2(d) has 91.10; 2(a) has 93.77 for one-hot encoding where section 4.1.2 has 93.66.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ATTACKS = ("pgd", "df", "df2", "tr")
Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        variant: base or robust.
        retrofit: Whether the network has JumpReLUs.
        clean: Accuracy on clean images.
        attacks: PGD, DF, DF2, TR: accuracies in table 1; in tables 2 and 4 an accuracy, then relative perturbations.
        survivors: Table 4: accuracy under DF, DF2, TR.
    """

    variant: str
    retrofit: bool
    clean: float | None
    attacks: Numbers
    survivors: Numbers = ()


def _rows(base: tuple[float, ...], jump: tuple[float, ...], robust: tuple[float, ...], both: tuple[float, ...]) -> tuple[Row, ...]:  # fmt: skip # noqa: E501 - a table
    kinds = (("base", False, base), ("base", True, jump), ("robust", False, robust), ("robust", True, both))
    return tuple(Row(variant, retrofit, row[0], row[1:]) for variant, retrofit, row in kinds)


GRAY: Mapping[str, tuple[Row, ...]] = {
    "a": _rows((99.55, 66.69, 0.0, 0.0, 0.0), (99.53, 91.65, 81.39, 58.93, 58.90),
               (99.50, 91.39, 0.0, 0.0, 0.0), (99.47, 97.07, 70.84, 45.17, 53.24)),
    "b": _rows((89.46, 6.38, 0.0, 0.0, 0.0), (87.52, 45.75, 61.82, 60.55, 53.08),
               (87.93, 51.88, 0.0, 0.0, 0.0), (86.19, 67.65, 52.28, 46.9, 51.52)),
    "c": _rows((94.31, 0.0, 0.0, 0.0, 0.0), (92.58, 0.39, 37.33, 40.21, 45.90),
               (93.72, 60.43, 0.0, 0.0, 0.0), (93.01, 70.25, 28.62, 26.11, 35.33)),
    "d": _rows((92.07, 0.0, 0.0, 0.0, 0.0), (90.43, 0.54, 40.69, 41.61, 43.18),
               (91.69, 53.98, 0.0, 0.0, 0.0), (90.12, 66.37, 37.31, 35.45, 40.4)),
}  # fmt: skip
"""Table 1."""

WHITE: Mapping[str, tuple[Row, ...]] = {
    "a": _rows((99.55, 66.69, 17.9, 21.8, 18.9), (99.53, 83.21, 34.1, 44.9, 25.0),
               (99.50, 91.39, 28.4, 31.4, 24.7), (99.47, 94.36, 46.6, 53.3, 32.8)),
    "b": _rows((89.46, 6.38, 1.2, 1.5, 1.3), (87.52, 18.56, 9.8, 10.6, 1.7),
               (87.93, 51.88, 3.6, 4.2, 3.6), (86.19, 56.70, 13.2, 14.1, 4.3)),
    "c": _rows((94.31, 0.37, 1.4, 1.8, 1.3), (92.58, 0.95, 14.3, 18.5, 1.9),
               (93.72, 60.43, 6.4, 7.5, 4.8), (93.01, 67.89, 44.4, 43.8, 6.1)),
    "d": _rows((92.07, 0.74, 0.7, 0.9, 0.7), (91.10, 0.92, 5.3, 6.8, 1.0),
               (91.69, 53.98, 4.7, 5.3, 4.1), (90.12, 59.66, 62.6, 51.4, 4.9)),
}  # fmt: skip
"""Table 2; table 4 repeats it."""

LITERATURE: Mapping[str, tuple[tuple[str, float, float], ...]] = {
    "a": (("Madry", 98.80, 93.20), ("Vanilla", 99.03, 91.36), ("One-hot", 99.01, 93.77), ("Thermo", 99.23, 93.70)),
    "c": (("Madry", 87.3, 50.0), ("Vanilla", 87.16, 34.71), ("One-hot", 92.19, 58.96), ("Thermo", 92.32, 65.67)),
}
"""Rows that table 2 quotes from Madry et al. and Buckman et al.: name, accuracy, PGD."""

RANDOM: Mapping[str, tuple[Row, ...]] = {
    "a": (Row("base", True, 99.57, (83.49, 36.2, 47.6, 37.0), (5.37, 2.64, 9.61)),
          Row("robust", True, 99.47, (95.17, 51.0, 52.8, 44.8), (5.89, 1.39, 8.08))),
    "b": (Row("base", True, 88.20, (20.13, 7.1, 7.9, 13.1), (0.0, 0.0, 3.66)),
          Row("robust", True, 86.15, (61.03, 13.6, 14.6, 19.7), (0.0, 1.18, 15.79))),
    "c": (Row("base", True, 92.53, (13.40, 14.7, 18.3, 5.9), (0.0, 0.0, 7.53)),
          Row("robust", True, 93.07, (71.82, 44.5, 43.8, 18.1), (0.0, 0.0, 29.27))),
    "d": (Row("base", True, 90.37, (5.07, 8.1, 9.8, 5.2), (1.36, 1.59, 2.28)),
          Row("robust", True, 90.16, (68.98, 65.6, 53.3, 25.8), (1.43, 1.68, 7.96))),
}  # fmt: skip
"""Table 4, the rows with a random kappa."""

DETECTION: Mapping[str, Numbers] = {
    "LID + ReLU": (72.54, 73.41, 72.93, 72.47),
    "LID + JumpReLU": (74.25, 78.24, 75.84, 74.71),
}
"""Table 3: areas under the ROC curve; the paper does not name the network."""

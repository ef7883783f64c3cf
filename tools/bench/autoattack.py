"""Attack ONNX classifiers by the standard version of AutoAttack, in the implementation of torchattacks.

    python -m tools.bench.autoattack original.onnx hardened.onnx --data mnist:DIR --preprocess mnist --eps 0.1232 \
        --limit 500 -o OUT

AutoAttack (Croce and Hein 2020) is an independent judge of what `jr-onnx attack` and `jr-onnx harden` report. It needs
torchattacks (`pip install --no-deps torchattacks`, best in an environment of its own), which attacks the file as a
torch module that was proved to compute what ONNX Runtime computes. Its examples are judged here: an image counts as
fooled only if the example is finite, in [0, 1], within the budget, and classified wrongly by ONNX Runtime.

torchattacks makes 10 steps by default; here APGD and FAB make the 100 of the published version.

AutoAttack is not meant for networks with jumps: it takes the derivatives as they are, and those of a jump hide it
(docs/evaluation.md). So what the exact derivatives leave of a retrofit is attacked again with the others of
`--derivative`, by the attacks that use them (all but Square). Answers are kept in the output folder, and a run that
was interrupted resumes.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from jr_onnx.attack.classifier.opener import ClassifierOpener, device_of
from jr_onnx.attack.classifier.served import ServedClassifier
from jr_onnx.attack.norms import Norm, lengths
from jr_onnx.attack.torch_target import TorchTarget
from jr_onnx.data import ImageData, Preprocessing, load
from jr_onnx.errors import InputError, JrError
from jr_onnx.evaluation.statistics import mcnemar, paired_difference, wilson
from jr_onnx.modelfile import atomic_write
from jr_onnx.modelfile import load as load_file
from jr_onnx.records import Record, dumps
from jr_onnx.records import load_file as load_record
from jr_onnx.semantics import is_jump

DERIVATIVES = ("exact", "smooth:10")
_NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}
_ROUNDING = 1e-6
"""How much longer than the budget a perturbation may measure: differences and sums of pixels in float32 are rounded by
half a unit of 2^-24 each, relative to values of at most 1."""

_STEPS = 100
"""Of APGD and FAB in the published standard version (Croce and Hein 2020, section 5)."""

Attack = Callable[[Tensor, Tensor], Tensor]
Maker = Callable[[nn.Module, "Budget", int, bool], Attack]


@dataclass(frozen=True, slots=True)
class Budget:
    """What an attack may do.

    Attributes:
        norm: linf or l2.
        eps: In pixel scale [0, 1].
        seed: Of the attack.
    """

    norm: Norm
    eps: float
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Piece(Record):
    """What came of attacking some images.

    Attributes:
        robust: Whether each is still classified as labelled.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.autoattack_piece/1"
    robust: tuple[bool, ...]


class _Logits(nn.Module):
    """A view of a model as a module from pixels to logits, as torchattacks wants it."""

    def __init__(self, target: TorchTarget) -> None:
        super().__init__()
        self._target = target
        self.device = nn.Parameter(torch.zeros((), device=target.device))  # where torchattacks looks for the device

    def forward(self, pixels: Tensor) -> Tensor:
        return self._target.logits(pixels)


def autoattack(module: nn.Module, budget: Budget, classes: int, with_square: bool) -> Attack:
    """Return AutoAttack's standard version: APGD-CE, targeted APGD, targeted FAB and, if it is wanted, Square.

    Raises:
        InputError: torchattacks is absent.
    """
    try:
        import torchattacks
    except ImportError as error:
        raise InputError(
            f"torchattacks cannot be imported: {error}",
            hint="Run pip install --no-deps torchattacks, best in an environment of its own that has jr_onnx",
        ) from None
    whole = torchattacks.AutoAttack(
        module, norm=_NORMS[budget.norm], eps=budget.eps, version="standard", n_classes=classes, seed=budget.seed
    )
    parts = whole._autoattack.attacks
    for part in parts[:3]:
        part.steps = _STEPS
    attack: Attack = whole if with_square else torchattacks.MultiAttack(parts[:3])
    return attack


@dataclass(frozen=True)
class Judge:
    """Attacks files, and judges what comes of it.

    Attributes:
        data: Labelled images.
        preprocessing: What the models expect of them.
        budget: What the attack may do.
        derivatives: Those of jumps to attack with.
        folder: Where answers are kept.
        batch: Images attacked at once.
        make: Makes the attack.
        device: Where torch computes: auto, cpu or cuda.
    """

    data: ImageData
    preprocessing: Preprocessing
    budget: Budget
    derivatives: Sequence[str]
    folder: Path
    batch: int = 100
    make: Maker = autoattack
    device: str = "auto"

    def judge(self, path: Path) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which images (N,) a file classifies as labelled, without an attack and after it."""
        served, net = ClassifierOpener(self.data, self.preprocessing, device=device_of(self.device)).open_in_torch(path)
        target, digest = TorchTarget(net, self.preprocessing), load_file(path).sha256
        has_jump = any(map(is_jump, net.all_kappas.values()))
        self.folder.mkdir(parents=True, exist_ok=True)
        right = ~np.concatenate([served.misclassifies(*part) for part in self.data.batches()])
        robust = right.copy()
        for number, derivative in enumerate(self.derivatives if has_jump else ("exact",)):
            module = _Logits(target.with_backward(derivative) if has_jump else target)
            for start in range(0, len(self.data), self.batch):
                rows = np.arange(start, min(start + self.batch, len(self.data)))
                rows = rows[robust[rows]]
                with_square = number == 0
                kept = self._kept(digest, derivative, rows.tolist(), with_square)
                if not kept.exists():
                    piece = Piece(tuple(self._robust(rows, served, module, with_square).tolist()))
                    atomic_write(kept, [dumps(piece).encode()])
                robust[rows] = load_record(Piece, kept).robust
                count = f"{robust[: start + self.batch].sum()} of {len(robust[: start + self.batch])}"
                print(f"{path.name}, derivative {derivative}: {count} images robust", file=sys.stderr)
        return right, robust

    def _kept(self, *work: object) -> Path:
        """Return where the answer to some work is kept."""
        parts = (*work, self.data.digest, dumps(self.preprocessing, indent=None), self.budget)
        return self.folder / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}.json"

    def _robust(
        self, rows: NDArray[np.int64], served: ServedClassifier, module: nn.Module, with_square: bool
    ) -> NDArray[np.bool_]:
        """Return which of some images, all classified as labelled, still are after the attack.

        An example that is not valid fools nothing.
        """
        if not len(rows):
            return np.zeros(0, dtype=bool)
        part = self.data.take(rows)
        pixels = torch.from_numpy(part.images)
        attack = self.make(module, self.budget, served.logits(part.images[:1]).shape[1], with_square)
        moved = attack(pixels, torch.from_numpy(part.labels)).detach().cpu().float()
        size = lengths(moved.double() - pixels.double(), self.budget.norm)
        is_inside = ((moved >= 0) & (moved <= 1)).flatten(1).all(1)  # which NaN and infinities are not
        is_valid = is_inside & (size <= self.budget.eps * (1 + _ROUNDING) + _ROUNDING)
        fooled: NDArray[np.bool_] = is_valid.numpy() & served.misclassifies(moved.numpy(), part.labels)
        return ~fooled


def show(found: Sequence[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]], title: str) -> None:
    """Print shares with 95 % intervals, and the paired comparison with the first file."""
    table = Table(title=title)
    for column in ("model", "clean", "robust", "95 %", "against the first", "p (McNemar)"):
        table.add_column(column)
    first = found[0][2]
    for number, (name, right, robust) in enumerate(found):
        low, high = wilson(int(robust.sum()), len(robust))
        change, p_value = "", ""
        if number:
            difference, least, most = paired_difference(robust, first)
            change, p_value = f"{difference:+.1%} ({least:+.1%} to {most:+.1%})", f"{mcnemar(robust, first):.2g}"
        shares = (f"{right.mean():.1%}", f"{robust.mean():.1%}", f"{low:.1%} to {high:.1%}")
        table.add_row(name, *shares, change, p_value)
    Console().print(table)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="the original first")
    parser.add_argument("--data", required=True, help="as jr-onnx takes it, for instance mnist:DIR; its test split")
    parser.add_argument("--preprocess", default="none", help="as jr-onnx takes it")
    parser.add_argument("--norm", choices=sorted(_NORMS), default="linf")
    parser.add_argument("--eps", type=float, required=True, help="budget in pixel scale [0, 1]")
    parser.add_argument("--limit", type=int, default=200, help="test images")
    parser.add_argument("--derivative", action="append", help=f"of jumps; repeatable; default {', '.join(DERIVATIVES)}")
    parser.add_argument("--batch", type=int, default=100, help="images attacked at once, and kept together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where torch computes")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the answers, to resume from")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None, make: Maker = autoattack) -> int:
    """Attack all models, and print what is left of their accuracy."""
    options = arguments(given)
    try:
        preprocessing = Preprocessing.parse(options.preprocess)
        data = load(options.data, split="test", limit=options.limit, preprocessing=preprocessing)
        judge = Judge(
            data, preprocessing, Budget(options.norm, options.eps, options.seed),
            options.derivative or DERIVATIVES, options.output, options.batch, make, options.device,
        )  # fmt: skip
        found = [(path.name, *judge.judge(path)) for path in options.models]
    except JrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    show(found, f"AutoAttack, standard, {options.norm} {options.eps:g}, {len(data)} test images")
    return 0


if __name__ == "__main__":
    sys.exit(main())

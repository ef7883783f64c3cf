"""Every table and figure of the paper: what it is, whether it can be made from what there is, and why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jr_onnx.errors import InputError
from jr_onnx.reproduce.networks import BY_LETTER, PAPERS, VARIANTS, Checkpoint, Network, Variant, find

_CHECKOUT = Path("models/exported")
"""Where a checkout of this project has networks, seen from its root."""

Maker = Literal["gray", "white", "random", "detection", "activations", "trade-off", "pictures", "matrix", "iterations"]


@dataclass(frozen=True)
class Item:
    """A table or a figure, or one panel of it.

    Attributes:
        kind: table or figure.
        number: For instance 1a; figures 1, 5 and 6 and the table 3 have no letter in the paper, 3 has one here for its
            network.
        what: In a few words.
        maker: What makes it; None for a drawing with nothing to measure.
        letter: The network; "" for none.
        fallback: A network to use where that one is missing.
        variants: How the network was trained; one of them is enough.
    """

    kind: Literal["table", "figure"]
    number: str
    what: str
    maker: Maker | None
    letter: str = ""
    fallback: str = ""
    variants: tuple[Variant, ...] = ("base",)

    @property
    def name(self) -> str:
        """For instance table-1a."""
        return f"{self.kind}-{self.number}"


def _panels(
    number: str,
    what: str,
    maker: Maker,
    letters: str,
    kind: Literal["table", "figure"],
    variants: tuple[Variant, ...] = ("base",),
) -> list[Item]:
    return [
        Item(kind, f"{number}{letter}", f"{what}; {BY_LETTER[letter].title}", maker, letter, variants=variants)
        for letter in letters
    ]


ITEMS = (
    *_panels("1", "gray box", "gray", "abcde", "table", VARIANTS),
    *_panels("2", "white box", "white", "abcde", "table", VARIANTS),
    *_panels("3", "detection by LID", "detection", "be", "table"),
    *_panels("4", "random kappa (appendix C)", "random", "abcde", "table", PAPERS),
    Item("figure", "1", "an adversarial example and its perturbation", "pictures", "b", "a"),
    Item("figure", "2", "a drawing of the method: nothing to measure", None),
    Item("figure", "3", "the activations, and the derivatives that attacks use", "activations"),
    *_panels("4", "trade-off over kappa", "trade-off", "abcde", "figure"),
    Item("figure", "5", "perturbations on MNIST; LeNetLike", "pictures", "a"),
    Item("figure", "6", "perturbations on CIFAR-10; AlexLike", "pictures", "b"),
    Item("figure", "7a", "gray-box matrix, MNIST (appendix A); LeNetLike", "matrix", "a"),
    Item("figure", "7b", "gray-box matrix, CIFAR-10 (appendix A); AlexLike", "matrix", "b", "e"),
    *_panels("8", "accuracy against iterations (appendix B)", "iterations", "ab", "figure"),
    *_panels("8", "accuracy against iterations (appendix B)", "iterations", "cd", "figure", ("robust",)),
    *_panels("8", "accuracy against iterations (appendix B)", "iterations", "e", "figure"),
)


@dataclass(frozen=True)
class State:
    """Whether an item can be made.

    Attributes:
        item: The item.
        checkpoints: The networks to make it with.
        reason: Why it cannot be made; "" if it can.
    """

    item: Item
    checkpoints: tuple[Checkpoint, ...]
    reason: str = ""


def states(
    items: Sequence[Item], folders: Sequence[Path], specs: Mapping[str, str], *, adaptive: bool = True
) -> list[State]:
    """Return for each item what it can be made with.

    Args:
        items: Tables and figures.
        folders: Where networks are looked for.
        specs: Kind of data (mnist, cifar10) -> specification.
        adaptive: Whether any images get attacks that adapt.
    """
    return [_state(item, folders, specs, adaptive=adaptive) for item in items]


def _state(item: Item, folders: Sequence[Path], specs: Mapping[str, str], *, adaptive: bool) -> State:
    if item.maker is None:
        return State(item, (), "nothing to measure")
    if not item.letter:
        return State(item, ())
    if not adaptive and item.maker not in ("gray", "white"):
        return State(item, (), "no images: --adaptive-limit is 0")
    found: tuple[Checkpoint, ...] = ()
    network: Network = BY_LETTER[item.letter]
    for letter in (item.letter, *item.fallback):
        found = _checkpoints(BY_LETTER[letter], item, folders)
        if found:
            network = BY_LETTER[letter]
            break
    missing = [] if found else [f"no weights: {_where(network, item, folders)}"]
    missing += [] if network.data in specs else [f"no data: give --data {network.data}:DIR"]
    return State(item, found, "; ".join(missing))


def _where(network: Network, item: Item, folders: Sequence[Path]) -> str:
    """Say which --checkpoints has an item's network: the checkout's own folder, where the command runs in one."""
    if _CHECKOUT not in folders and _checkpoints(network, item, [_CHECKOUT]):
        return f"add --checkpoints {_CHECKOUT}"
    files = " or ".join(f"{network.stem}_{variant}.onnx" for variant in item.variants)
    return f"{'no folder of --checkpoints has' if folders else 'give --checkpoints DIR, a folder with'} {files}"


def _checkpoints(network: Network, item: Item, folders: Sequence[Path]) -> tuple[Checkpoint, ...]:
    found = (find(folders, network, variant) for variant in item.variants)
    return tuple(checkpoint for checkpoint in found if checkpoint is not None)


def chosen(tables: Sequence[str], figures: Sequence[str]) -> list[Item]:
    """Return the items with the given names; "1" is every panel of it, and nothing named is everything.

    Raises:
        InputError: There is no such table or figure.
    """
    if not tables and not figures:
        return list(ITEMS)
    wanted: dict[str, Item] = {}
    for kind, names in (("table", tables), ("figure", figures)):
        for name in names:
            panels = [item for item in ITEMS if item.kind == kind and (item.number == name or item.number[:-1] == name)]
            if not panels:
                numbers = ", ".join(item.number for item in ITEMS if item.kind == kind)
                raise InputError(f"the paper has no {kind} {name!r}", hint=f"Choose from {numbers}")
            wanted |= {item.name: item for item in panels}
    return list(wanted.values())

"""A few images with their adversarial examples, kept beside an evaluation for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from jr_onnx.errors import InputError
from jr_onnx.records import Record

Images = npt.NDArray[np.float32]
Kind = Literal["least robust", "most robust"]


@dataclass(frozen=True, slots=True)
class Choice(Record):
    """One image to show.

    Attributes:
        attacker: Who attacks, in the words of the report's table.
        model: Label of the attacked model.
        kind: Whether the image was among the easiest to fool or among the hardest.
        index: Global index of the image.
        entry: The attack that fooled it with the least perturbation; of an image that none fooled, the attacker's
            first attack with a budget.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.example_choice/1"
    attacker: str
    model: str
    kind: Kind
    index: int
    entry: str


@dataclass(frozen=True, slots=True)
class Example(Record):
    """What became of a chosen image.

    Attributes:
        choice: Which image, and which attack.
        label: Its true class.
        answer: Class that the served file gives after the attack, -1 for none.
        other_answer: The same of the pair's other model, shown the same picture; None where there is none, and for the
            original in folders of older versions.
        fooled: Whether the served file is wrong after the attack.
        norm: Norm of the budget.
        distance: Size of the perturbation in it, in pixel scale.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.example/1"
    choice: Choice
    label: int
    answer: int
    other_answer: int | None
    fooled: bool
    norm: str
    distance: float


@dataclass(frozen=True, slots=True)
class ExampleTable(Record):
    """The examples of a run, in the order of their images.

    Attributes:
        class_names: Name of every class.
        examples: One for every pair of images.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.examples/1"
    class_names: tuple[str, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class ExampleSet:
    """Examples with their images.

    Attributes:
        table: What is seen on them.
        clean: Pixels (n, C, H, W) in [0, 1] before the attack.
        adversarial: The same after it.
    """

    table: ExampleTable
    clean: Images
    adversarial: Images

    def __post_init__(self) -> None:
        """Refuse images that do not belong to the table.

        Raises:
            InputError: There are more or fewer images than examples, or of another shape.
        """
        count = len(self.table.examples)
        if self.clean.shape != self.adversarial.shape or self.clean.ndim != 4 or len(self.clean) != count:
            raise InputError(
                f"found images of shapes {self.clean.shape} and {self.adversarial.shape} for {count} examples, "
                f"expected ({count}, C, H, W) twice"
            )

    def chosen(self, choices: Sequence[Choice]) -> ExampleSet:
        """Return the examples of these choices, in their order; those that are not there are left out."""
        places = {example.choice: place for place, example in enumerate(self.table.examples)}
        rows = [places[choice] for choice in choices if choice in places]
        examples = tuple(self.table.examples[row] for row in rows)
        return ExampleSet(ExampleTable(self.table.class_names, examples), self.clean[rows], self.adversarial[rows])


def joined(parts: Sequence[ExampleSet]) -> ExampleSet | None:
    """Put the examples of shards together; None where there are none.

    Raises:
        InputError: Their images differ in shape.
    """
    if not parts:
        return None
    shapes = {part.clean.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise InputError(f"the examples of the shards differ in shape: {sorted(shapes)}")
    examples = tuple(example for part in parts for example in part.table.examples)
    table = ExampleTable(parts[0].table.class_names, examples)
    clean, adversarial = (np.concatenate([getattr(part, name) for part in parts]) for name in ("clean", "adversarial"))
    return ExampleSet(table, clean, adversarial)

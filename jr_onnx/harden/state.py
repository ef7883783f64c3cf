"""The state of a training in a file: whole or not at all, so that a killed run can be continued."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypedDict, TypeVar

import torch

from jr_onnx.errors import InputError
from jr_onnx.modelfile import atomic_path

State = TypeVar("State", bound=Mapping[str, object])
"""What is kept: a dictionary of what torch.load takes for weights."""


class TrainingState(TypedDict):
    """What an interrupted training needs to go on."""

    weights: list[torch.Tensor]
    average: list[torch.Tensor]
    best: list[torch.Tensor]
    best_epoch: int
    optimizer: dict[str, object]
    rows: list[str]
    done: int
    rate_scale: float
    began: int
    budget: float
    loss: tuple[float, int]


@dataclass(frozen=True)
class StateFile(Generic[State]):
    """Where a run keeps its state.

    Attributes:
        path: The file.
        key: What the run is about: recipe, model and data. Another run's state is refused.
    """

    path: Path
    key: str

    def save(self, content: State) -> None:
        """Replace the state.

        Raises:
            OutputError: It cannot be written.
        """
        with atomic_path(self.path) as temporary:
            torch.save({"key": self.key, **content}, temporary)

    def load(self, device: torch.device) -> State | None:
        """Return the state, None where there is none yet.

        Raises:
            InputError: It belongs to another run, or is damaged.
        """
        if not self.path.exists():
            return None
        try:
            loaded = torch.load(self.path, map_location=device, weights_only=True)
            key = loaded.pop("key")
        except Exception as error:  # noqa: BLE001 - torch raises a dozen kinds on a damaged file
            raise InputError(
                f"cannot resume from {self.path}, which is damaged ({type(error).__name__})",
                hint="Start over with --restart",
            ) from None
        if key != self.key:
            raise InputError(
                f"{self.path} belongs to a run with other options, another model or other data",
                hint="Start over with --restart, or write to another output",
            )
        content: State = loaded
        return content

    def remove(self) -> None:
        """Forget the state, after the result is written."""
        self.path.unlink(missing_ok=True)

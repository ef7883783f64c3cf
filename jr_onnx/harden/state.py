"""The state of a training in a file: whole or not at all, so that a killed run can be continued."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jr_onnx.errors import InputError
from jr_onnx.modelfile import atomic_path


@dataclass(frozen=True)
class StateFile:
    """Where a run keeps its state.

    Attributes:
        path: The file.
        key: What the run is about: recipe, model and data. Another run's state is refused.
    """

    path: Path
    key: str

    def save(self, content: dict[str, Any]) -> None:
        """Replace the state.

        Raises:
            OutputError: It cannot be written.
        """
        with atomic_path(self.path) as temporary:
            torch.save({"key": self.key, **content}, temporary)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Return the state, None where there is none yet.

        Raises:
            InputError: It belongs to another run, or is damaged.
        """
        if not self.path.exists():
            return None
        try:
            content: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
            key = content.pop("key")
        except Exception as error:  # noqa: BLE001 - torch raises a dozen kinds on a damaged file
            raise InputError(
                f"cannot resume from {self.path}: {type(error).__name__}", hint="Start anew with --restart"
            ) from None
        if key != self.key:
            raise InputError(
                f"{self.path} belongs to a run with other options, another model or other data",
                hint="Start anew with --restart, or write to another output",
            )
        return content

    def remove(self) -> None:
        """Forget the state, after the result is written."""
        self.path.unlink(missing_ok=True)

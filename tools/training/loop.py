"""The training loop: deterministic, resumable after any epoch, progress told to a callback."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from jr_onnx.data import ImageData
from jr_onnx.errors import InputError
from jr_onnx.records import dumps, loads
from models.registry import build, entry
from tools.training.batches import Batches, mix_adversarial
from tools.training.recipe import Recipe
from tools.training.record import EpochRow

Progress = Callable[[EpochRow, int], None]


class TrainingRun:
    """One training run, with its state in a file so that it can be stopped at any moment.

    Args:
        recipe: What to do.
        train: Images to train on.
        validation: Images whose accuracy is told after every epoch; None tells NaN.
        state_path: Where the state is kept; a run that finds one there goes on from it.
        device: Where to train.

    Raises:
        InputError: The state belongs to another recipe or other data, or cannot be read.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: ImageData,
        validation: ImageData | None,
        state_path: Path,
        device: torch.device,
    ) -> None:
        known = entry(recipe.model)
        self._recipe = recipe
        self._device = device
        self._state_path = state_path
        self._key = f"{dumps(recipe)}\n{train.digest}"
        self._train = Batches(train, known.preprocessing, device)
        self._validation = Batches(validation, known.preprocessing, device) if validation is not None else None
        torch.manual_seed(recipe.seed)
        self.model = build(recipe.model).to(device)
        self._optimizer = _optimizer(recipe, self.model)
        self.rows: list[EpochRow] = []
        self._resume()

    def run(self, progress: Progress) -> None:
        """Train the remaining epochs; `progress` gets each epoch's row and the number of epochs left.

        Raises:
            InputError: The loss is no longer finite.
        """
        with _deterministic(self._device):
            for epoch in range(len(self.rows), self._recipe.epochs):
                row = self._one_epoch(epoch)
                self.rows.append(row)
                self._save()
                progress(row, self._recipe.epochs - epoch - 1)
        self.model.eval()

    def _one_epoch(self, epoch: int) -> EpochRow:
        started = time.monotonic()
        torch.manual_seed(self._recipe.seed * 1_000_003 + epoch)  # dropout
        rate = self._recipe.rate_at(epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        total, steps = 0.0, 0
        for images, labels in self._train.epoch(self._recipe, epoch):
            images = mix_adversarial(self.model, images, labels, self._recipe)
            self._optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(self.model(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
            self._optimizer.step()
            total, steps = total + float(loss.detach()), steps + 1
        mean = total / steps
        if not math.isfinite(mean):
            raise InputError(f"the loss became {mean} in epoch {epoch}", hint="Lower the learning rate")
        reached = accuracy(self.model, self._validation) if self._validation is not None else float("nan")
        return EpochRow(epoch, rate, mean, reached, round(time.monotonic() - started, 3))

    def _save(self) -> None:
        temporary = self._state_path.with_suffix(self._state_path.suffix + ".part")
        self._state_path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "key": self._key,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rows": [dumps(row, indent=None) for row in self.rows],
        }
        torch.save(state, temporary)
        temporary.replace(self._state_path)

    def _resume(self) -> None:
        if not self._state_path.exists():
            return
        try:
            state = torch.load(self._state_path, map_location="cpu", weights_only=True)
            key = state["key"]
            if key == self._key:
                self.model.load_state_dict(state["model"])
                self._optimizer.load_state_dict(state["optimizer"])
                self.rows = [loads(EpochRow, text) for text in state["rows"]]
        except Exception as error:  # noqa: BLE001 - torch raises a dozen kinds on a damaged file
            raise InputError(
                f"cannot resume from {self._state_path}: {type(error).__name__}", hint="Start anew with --restart"
            ) from None
        if key != self._key:
            raise InputError(
                f"{self._state_path} belongs to another recipe or other data",
                hint="Start anew with --restart, or write elsewhere",
            )


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Refuse operators whose result changes from run to run; on a GPU, where some have no other form, warn."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def accuracy(model: nn.Module, batches: Batches) -> float:
    """Return the fraction of images whose largest logit is the label's; leaves the model in evaluation mode."""
    model.eval()
    hits, count = 0, 0
    with torch.inference_mode():
        for images, labels in batches.in_order():
            hits += int((model(images).argmax(1) == labels).sum())
            count += len(labels)
    return hits / count


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(model.parameters(), lr=recipe.rate, momentum=0.9, weight_decay=recipe.weight_decay)

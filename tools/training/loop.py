"""The training loop: resumable after any epoch, ended in time, progress told to a callback."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from jr_onnx.data import ImageData
from jr_onnx.errors import InputError
from jr_onnx.harden.state import StateFile
from jr_onnx.records import dumps, loads
from jr_onnx.torchnet.precision import repeatable_operators
from models.registry import build, entry
from tools.training.batches import Batches, logits, mix_adversarial
from tools.training.recipe import Recipe
from tools.training.record import EpochRow

Progress = Callable[[EpochRow, int], None]


class _State(TypedDict):
    model: dict[str, torch.Tensor]
    optimizer: dict[str, object]
    rows: list[str]


class TrainingRun:
    """One training run, with its state in a file so that it can be stopped at any moment.

    Args:
        recipe: What to do.
        train: Images to train on.
        validation: Images whose accuracy is told after every epoch; None tells NaN.
        state_path: Where the state is kept; a run that finds one there goes on from it.
        device: Where to train.
        deterministic: On a GPU, use only operators whose result is the same in every run; they are slower. On the CPU
            that is always so.
        compiled: Compile the network (`torch.compile`) before the first step.

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
        *,
        deterministic: bool = False,
        compiled: bool = False,
    ) -> None:
        known = entry(recipe.model)
        self._recipe = recipe
        self._device = device
        self.deterministic = deterministic or device.type == "cpu"
        self._state: StateFile[_State] = StateFile(state_path, f"{dumps(recipe)}\n{train.digest}")
        # The tensor cores of a GPU take channels side by side in memory.
        fast = device.type == "cuda"
        self._train = Batches(train, known.preprocessing, device, channels_last=fast)
        self._validation = (
            Batches(validation, known.preprocessing, device, channels_last=fast) if validation is not None else None
        )
        torch.manual_seed(recipe.seed)
        self.model = build(recipe.model).to(device)
        if fast:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._stepped: nn.Module = torch.compile(self.model) if compiled else self.model  # type: ignore[assignment]
        self._optimizer = _optimizer(recipe, self.model)
        self.rows: list[EpochRow] = []
        self._resume()
        self._earlier_s = sum(row.seconds for row in self.rows)

    @property
    def shortened(self) -> bool:
        """Whether the time limit ended the training before its last epoch was over."""
        return len(self.rows) < self._recipe.epochs or self._cut

    @property
    def _cut(self) -> bool:
        # Nothing but the time limit ends an epoch early.
        return bool(self.rows) and 0 < self.rows[-1].steps < self._train.steps(self._recipe)

    def run(self, progress: Progress) -> None:
        """Train the remaining epochs; `progress` gets each epoch's row and the number of epochs left.

        Raises:
            InputError: The loss is no longer finite.
        """
        started = time.monotonic()
        repeatable = repeatable_operators(self.deterministic, warn_only=self._device.type != "cpu")
        with repeatable, _fastest_algorithms(not self.deterministic):
            for epoch in range(len(self.rows), self._recipe.epochs):
                if self._cut or (self.rows and self._position(started, 0.0) >= self._recipe.epochs):
                    break
                row = self._one_epoch(epoch, started)
                self.rows.append(row)
                self._save()
                progress(row, self._recipe.epochs - epoch - 1)
        self.model.eval()

    def _position(self, started: float, epoch: float) -> float:
        """Return how far the training is, in epochs: `epoch`, or where the time limit says it is, if that is more."""
        limit = self._recipe.time_limit_s
        if limit is None:
            return epoch
        elapsed = self._earlier_s + time.monotonic() - started
        return max(epoch, self._recipe.epochs * elapsed / limit)

    def _one_epoch(self, epoch: int, run_started: float) -> EpochRow:
        started = time.monotonic()
        torch.manual_seed(self._recipe.seed * 1_000_003 + epoch)  # dropout
        self.model.train()
        first_rate = 0.0
        # Summed on the device and read once: reading a loss waits for all the work before it.
        total, steps = torch.zeros((), dtype=torch.float64, device=self._device), 0
        for images, labels in self._train.epoch(self._recipe, epoch):
            position = self._position(run_started, epoch + steps / self._train.steps(self._recipe))
            # A first step is always made, so that there is a loss to tell.
            if position >= self._recipe.epochs and steps:
                break
            rate = self._recipe.rate_at(position)
            first_rate = first_rate if steps else rate
            total += self._step(images, labels, rate)
            steps += 1
        mean = float(total) / steps
        if not math.isfinite(mean):
            raise InputError(f"the loss became {mean} in epoch {epoch}", hint="Lower the learning rate")
        reached = accuracy(self.model, self._validation) if self._validation is not None else float("nan")
        return EpochRow(epoch, first_rate, mean, reached, round(time.monotonic() - started, 3), steps)

    def _step(self, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        """Train on one batch and return its loss, on the device."""
        recipe = self._recipe
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        images = mix_adversarial(self._stepped, images, labels, recipe)
        self._optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(
            logits(self._stepped, images, recipe.precision), labels, label_smoothing=recipe.label_smoothing
        )
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self._optimizer.step()
        return loss.detach()

    def _save(self) -> None:
        self._state.path.parent.mkdir(parents=True, exist_ok=True)
        self._state.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "rows": [dumps(row, indent=None) for row in self.rows],
            }
        )

    def _resume(self) -> None:
        state = self._state.load(torch.device("cpu"))
        if state is not None:
            self.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.rows = [loads(EpochRow, text) for text in state["rows"]]


@contextmanager
def _fastest_algorithms(wanted: bool) -> Iterator[None]:
    """Let cuDNN try which algorithm is the fastest, or not."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def accuracy(model: nn.Module, batches: Batches) -> float:
    """Return the fraction of images whose largest logit is the label's; leaves the model in evaluation mode."""
    model.eval()
    found: list[Tensor] = []
    with torch.inference_mode():
        for images, labels in batches.in_order():
            found.append(model(images).argmax(1) == labels)
        hits = torch.cat(found)
        return int(hits.sum()) / len(hits)


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if not recipe.decay_all:
        # Biases and the scales of the normalisation have one axis.
        groups = [
            {"params": [item for item in parameters if item.ndim > 1]},
            {"params": [item for item in parameters if item.ndim <= 1], "weight_decay": 0.0},
        ]
    # On a GPU one kernel updates all parameters.
    fused = True if parameters[0].is_cuda else None
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.rate, weight_decay=recipe.weight_decay, fused=fused)
    return torch.optim.SGD(
        groups,
        lr=recipe.rate,
        momentum=0.9,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=fused,
    )

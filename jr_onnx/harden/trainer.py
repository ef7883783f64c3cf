"""The training loop: deterministic on a CPU, resumable at any moment, with the best weights kept.

On a CPU a batch is cut into slices that do not know of each other, one thread each: crafting and gradients of small
networks scale better so than operator by operator. The slices' gradients are summed in their order, so that a result
does not depend on the number of threads. Statistics of BatchNormalization are frozen, which is what makes the images
of a batch independent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jr_onnx.attack.cpu import slices, thread_pool
from jr_onnx.data import ImageData
from jr_onnx.errors import RefusalError
from jr_onnx.harden.batches import Batches
from jr_onnx.harden.budget import GrowingBudget
from jr_onnx.harden.craft import craft, loss_of, random_start
from jr_onnx.harden.network import TrainedNetwork, copy_into, values_of
from jr_onnx.harden.recipe import Recipe
from jr_onnx.harden.state import StateFile, TrainingState
from jr_onnx.harden.statistics import estimate_statistics
from jr_onnx.harden.validation import EpochRow, Validation, overfits_one_step
from jr_onnx.records import dumps, loads
from jr_onnx.torchnet.precision import repeatable_operators

_SAVE_SECONDS = 60.0
_KAPPA_RATE = 0.1
"""Learning rate of kappas, as a share of that of weights times the first kappa."""
_LEAST_CLEAN = 0.5
"""An epoch that keeps less than this share of the clean accuracy has not hardened the model but destroyed it."""
_RUINS = 3
"""A training whose first epochs are all like that is not going to recover."""
_LOWER = 0.25
"""After a destroyed epoch the training starts over from the best weights, at this share of the learning rate."""
_LOOK_AT_LOSSES = 20
"""On a GPU losses are looked at once in so many steps, for each look waits for the device."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is.

    Attributes:
        step: Steps that are done.
        steps: All steps.
        row: The epoch that has just ended, None inside one.
    """

    step: int
    steps: int
    row: EpochRow | None = None


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training came to; the network has the best weights.

    Attributes:
        rows: One for the model before training, then one an epoch.
        best: Number of the epoch whose weights are the result.
        stopped: Why the training ended before its last epoch, "" where it did not.
    """

    rows: tuple[EpochRow, ...]
    best: int
    stopped: str


class Trainer:
    """One training run.

    Args:
        network: What is trained.
        recipe: How.
        train: Images to train on.
        validation: Images that decide which epoch was the best.
        state: Where the state is kept; None to keep none.
    """

    def __init__(
        self,
        network: TrainedNetwork,
        recipe: Recipe,
        train: ImageData,
        validation: ImageData,
        state: StateFile[TrainingState] | None = None,
    ) -> None:
        self._network, self._recipe, self._state = network, recipe, state
        device = network.net.device
        self._batches = Batches(train, recipe, device)
        self._validation = Validation(validation, recipe, device)
        self._everything = network.parameters()
        self._weights = [item for item in self._everything if item.requires_grad]  # statistics ask for no gradient
        groups = network.groups(recipe.weight_decay, recipe.rate)
        nesterov = recipe.momentum > 0
        self._optimizer = torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=nesterov)
        self._kappa_scale = max((float(value.detach().max()) for value in network.kappas.values()), default=0.0)
        self._average = values_of(self._weights)
        self._best, self._best_epoch = values_of(self._everything), 0
        self._rows: list[EpochRow] = []
        self._done, self._loss, self._counted = 0, 0.0, 0
        self._total = recipe.epochs * self._batches.steps
        self._rate_scale, self._began = 1.0, 0
        self._budget = GrowingBudget(self._validation.classes(network))
        self._pending: list[Tensor] = []

    def run(self, notify: Callable[[TrainingProgress], None] = lambda _: None) -> TrainingOutcome:
        """Train the epochs that are left, and give the network the best weights.

        Args:
            notify: Called after every step and every epoch.

        Raises:
            RefusalError: The loss was no number before any epoch had ended, or no epoch left a classifier that still
                classifies, so that there is nothing to keep.
        """
        self._resume()
        stopped = self._verdict() if self._rows else ""
        with repeatable_operators(self._is_cpu), thread_pool(self._is_cpu) as pool:
            if not self._rows:
                self._rows.append(self._row(0, time.monotonic()))
                self._restart_budget()
                notify(TrainingProgress(0, self._total, self._rows[0]))
            while not stopped and self._done < self._total:
                stopped = self._epoch(pool, notify) or self._verdict()
        copy_into(self._everything, self._best)
        self._refuse_ruins()
        return TrainingOutcome(tuple(self._rows), self._best_epoch, stopped)

    @property
    def _is_cpu(self) -> bool:
        return self._network.net.device.type == "cpu"

    def _epoch(self, pool: ThreadPoolExecutor | None, notify: Callable[[TrainingProgress], None]) -> str:
        """Train to the end of the epoch; return why it could not go on, usually ""."""
        epoch, began = self._done // self._batches.steps, time.monotonic()
        if problem := self._train(epoch, pool, notify):
            return problem
        row = self._judge(epoch, began)
        self._rows.append(row)
        if row.went_back:
            self._go_back()
        self._loss, self._counted = 0.0, 0
        self._save()
        notify(TrainingProgress(self._done, self._total, row))
        return ""

    def _train(self, epoch: int, pool: ThreadPoolExecutor | None, notify: Callable[[TrainingProgress], None]) -> str:
        """Make the steps that are left of an epoch; return why one could not be made, usually ""."""
        steps, saved = self._batches.steps, time.monotonic()
        for step, pixels, labels, generator in self._batches.epoch(epoch, self._done % steps):
            self._set_rate((self._done - self._began) / (self._total - self._began))
            self._step(pool, pixels, labels, generator, self._recipe.within(self._budget.share))
            self._done += 1
            if self._is_cpu or len(self._pending) >= _LOOK_AT_LOSSES or step == steps - 1:
                problem = self._look_at_losses(epoch, step)
                if problem:
                    return problem
            if step < steps - 1 and time.monotonic() - saved > _SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
            notify(TrainingProgress(self._done, self._total))
        return ""

    def _judge(self, epoch: int, began: float) -> EpochRow:
        """Measure the averaged weights after an epoch, and remember the best; the training keeps its own."""
        trained = values_of(self._weights)
        if self._recipe.average:
            copy_into(self._weights, self._average)
        if self._recipe.batch_statistics:
            estimate_statistics(self._network, self._batches, epoch)
        row = self._row(epoch + 1, began)
        # Epochs without clean accuracy are never the best: a constant answer is robust, too.
        is_ruin = row.clean < self._rows[0].clean * _LEAST_CLEAN
        best = self._rows[self._best_epoch]
        if not is_ruin and (not self._best_epoch or (row.robust, row.clean) > (best.robust, best.clean)):
            self._best, self._best_epoch = values_of(self._everything), row.epoch
        copy_into(self._weights, trained)
        return replace(row, went_back=is_ruin, budget=self._budget.share)

    def _go_back(self) -> None:
        """Start over from the best weights, at a lower rate, with a schedule for the steps that are left."""
        copy_into(self._everything, self._best)
        self._average = values_of(self._weights)
        self._optimizer.state.clear()
        self._rate_scale, self._began = self._rate_scale * _LOWER, self._done
        self._restart_budget()

    def _restart_budget(self) -> None:
        before = self._rows[0]
        self._budget.restart((self._total - self._began) * self._recipe.ramp_for(before.clean, before.robust))

    def _row(self, epoch: int, began: float) -> EpochRow:
        clean, robust, single = self._validation.measure(self._network)
        loss = self._loss / max(1, self._counted)
        seconds = round(time.monotonic() - began, 3)
        return EpochRow(epoch, loss, clean, robust, single, seconds, self._network.learned)

    def _verdict(self) -> str:
        """Say why the training should end now, "" where it should go on."""
        last = self._rows[-1]
        if self._recipe.attack_steps == 1 and overfits_one_step(self._rows[1:]):
            best = self._rows[self._best_epoch]
            return (
                f"catastrophic overfitting in epoch {last.epoch}: accuracy under many steps fell from "
                f"{best.robust:.1%} to {last.robust:.1%} while that under one step is {last.one_step:.1%}; "
                "--method pgd does not suffer from it"
            )
        if last.epoch >= _RUINS and self._has_only_ruins:
            return f"most of the clean accuracy was lost in each of {last.epoch} epochs"
        # While the budget grows, the whole one may be out of reach.
        began = max([self._best_epoch, *(row.epoch for row in self._rows if row.budget < 1)])
        if last.epoch - began >= self._recipe.patience:
            return f"no better robust accuracy on validation images for {self._recipe.patience} epochs"
        return ""

    @property
    def _has_only_ruins(self) -> bool:
        """Whether there are epochs, and every one has lost most of the clean accuracy."""
        return len(self._rows) > 1 and all(row.went_back for row in self._rows[1:])

    def _refuse_ruins(self) -> None:
        if self._has_only_ruins:
            before, last = self._rows[0], self._rows[-1]
            raise RefusalError(
                f"training destroyed the model: it classifies {last.clean:.1%} of clean validation images after epoch "
                f"{last.epoch}, {before.clean:.1%} before, so nothing was written",
                hint=f"Lower the learning rate: --rate {self._recipe.rate * self._rate_scale:.2g}, or train longer",
            )

    def _set_rate(self, share: float) -> None:
        rate = self._recipe.rate_at(share) * self._rate_scale
        kappas = {id(value) for value in self._network.kappas.values()}
        for group in self._optimizer.param_groups:
            learns_kappa = id(group["params"][0]) in kappas
            group["lr"] = rate * _KAPPA_RATE * self._kappa_scale if learns_kappa else rate

    def _step(
        self,
        pool: ThreadPoolExecutor | None,
        pixels: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        recipe: Recipe,
    ) -> None:
        start = random_start(pixels, recipe, generator)
        parts = slices(len(pixels), pixels[0].numel()) if self._is_cpu else [slice(0, len(pixels))]

        def work(part: slice) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            return self._gradients(pixels[part], labels[part], start[part], recipe)

        with torch.enable_grad():
            found = list(pool.map(work, parts)) if pool is not None else [work(part) for part in parts]
        loss = torch.stack([item[0] for item in found]).sum() / len(pixels)
        for at, parameter in enumerate(self._weights):
            gradients = [item[1][at] for item in found]
            known = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = torch.stack(known).sum(0) / len(pixels) if known else None
        self._pending.append(loss.detach())
        if self._is_cpu and not math.isfinite(float(loss)):
            return  # the weights stay those of the last good step
        # An export has its BatchNormalization folded into the convolutions, and nothing else bounds its steps.
        for group in self._optimizer.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], self._recipe.clip)
        self._optimizer.step()
        self._network.keep_kappas_valid()
        self._follow()

    def _gradients(
        self, pixels: Tensor, labels: Tensor, start: Tensor, recipe: Recipe
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        network, clean = self._network, None
        if recipe.method == "trades":
            with torch.no_grad():
                clean = network(pixels)
        moved = craft(network.attacked, pixels, labels, recipe, start, clean)
        loss = loss_of(network, pixels, labels, recipe, moved)
        return loss.detach(), torch.autograd.grad(loss, self._weights, allow_unused=True)

    def _follow(self) -> None:
        """Move the running average; in its first steps it is nearer to the weights."""
        decay = min(self._recipe.average, (1 + self._done) / (10 + self._done))
        with torch.no_grad():
            for average, weight in zip(self._average, self._weights, strict=True):
                average.lerp_(weight, 1 - decay)

    def _look_at_losses(self, epoch: int, step: int) -> str:
        losses = torch.stack(self._pending).tolist()
        first = step - len(losses) + 1
        self._pending.clear()
        bad = next((at for at, loss in enumerate(losses) if not math.isfinite(loss)), None)
        self._loss, self._counted = self._loss + sum(losses), self._counted + len(losses)
        if bad is None:
            self._budget.follow(losses)
            return ""
        place = f"the loss is {losses[bad]} in batch {first + bad + 1} of epoch {epoch + 1}"
        if len(self._rows) < 2:
            raise RefusalError(
                f"{place}, before any epoch had ended, so nothing was written",
                hint="Lower the learning rate (--rate), or check the images",
            )
        return f"{place}; the weights of epoch {self._best_epoch} are kept"

    def _save(self) -> None:
        if self._state is None:
            return
        self._state.save(
            {
                "weights": values_of(self._everything),
                "average": self._average,
                "best": self._best,
                "best_epoch": self._best_epoch,
                "optimizer": self._optimizer.state_dict(),
                "rows": [dumps(row, indent=None) for row in self._rows],
                "done": self._done,
                "rate_scale": self._rate_scale,
                "began": self._began,
                "budget": self._budget.share,
                "loss": (self._loss, self._counted),
            }
        )

    def _resume(self) -> None:
        found = self._state.load(self._network.net.device) if self._state is not None else None
        if found is None:
            return
        copy_into(self._everything, found["weights"])
        self._average, self._best, self._best_epoch = found["average"], found["best"], found["best_epoch"]
        self._optimizer.load_state_dict(found["optimizer"])
        self._rows = [loads(EpochRow, text) for text in found["rows"]]
        self._done = found["done"]
        self._rate_scale, self._began = found["rate_scale"], found["began"]
        self._restart_budget()
        self._budget.share = found["budget"]
        self._loss, self._counted = found["loss"]

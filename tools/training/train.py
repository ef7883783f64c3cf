"""Train a network of `models/`: `python -m tools.training.train digits_cnn -o out/digits_cnn.pt`.

Writes the weights (a torch state dict) and, beside them, a JSON record of the run. A stopped run goes on from its
last epoch when the same command is given again, and on the CPU ends with the same weights, unless a time limit
decided which.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch

from jr_onnx.attack.accelerator import named
from jr_onnx.data import ImageData, load
from jr_onnx.errors import InputError, JrError
from jr_onnx.records import dumps
from models.registry import NAMES, entry
from tools.training import EpochRow, Recipe, TrainingRecord, TrainingRun, accuracy, recipe, weights_digest
from tools.training.batches import Batches
from tools.training.recipe import Precision, Schedule
from tools.training.record import state_dict, versions

_CPU: Final = torch.device("cpu")


@click.command()
@click.argument("model", type=click.Choice(NAMES))
@click.option("--data", "spec", help="Data to train on, such as mnist:DIR. [default: digits for the digits networks]")
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Weights file to write.",
)
@click.option("--robust", is_flag=True, help="Adversarial training on mixed batches (paper, section 4.1).")
@click.option(
    "--schedule",
    type=click.Choice(["paper", "one-cycle"]),
    help="paper: the published protocol; one-cycle: a fraction of its epochs. [default: one-cycle for CIFAR-10]",
)
@click.option("--epochs", type=click.IntRange(1), help="Train for another number of epochs.")
@click.option("--batch", type=click.IntRange(1), help="Train with another number of images a step.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Another (highest) learning rate.")
@click.option("--label-smoothing", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True)
@click.option(
    "--time-limit",
    "time_limit_s",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="End the training in this time: the one-cycle schedule is shortened where the epochs would take longer.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--with-validation", is_flag=True, help="Train on the validation split too, as the paper did.")
@click.option("--limit", type=click.IntRange(1), help="Train on this many images only.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="CPU threads; the last bits of the weights depend on their number.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="Of convolutions and matrix products. [default: bfloat16 on a GPU, float32 on the CPU]",
)
@click.option("--deterministic", is_flag=True, help="On a GPU, the same weights in every run; slower.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the network with torch.compile.")
@click.option("--half-weights", is_flag=True, help="Write the weights in float16, and test them so.")
@click.option("--restart", is_flag=True, help="Forget the state of an earlier, stopped run.")
def main(
    model: str,
    spec: str | None,
    out: Path,
    schedule: Schedule | None,
    device: str,
    threads: int,
    precision: Precision | None,
    robust: bool,
    with_validation: bool,
    limit: int | None,
    deterministic: bool,
    compiled: bool,
    half_weights: bool,
    restart: bool,
    **changes: Any,
) -> None:
    """Train MODEL and write its weights and a JSON record."""
    torch.set_num_threads(threads)
    try:
        plan = recipe(model, robust=robust, schedule=schedule)
        plan = replace(plan, **{name: value for name, value in changes.items() if value is not None})
        target = _device(device, deterministic)
        plan = replace(plan, precision=precision or ("bfloat16" if target.type == "cuda" else "float32"))
        record = train(
            plan,
            _spec(model, spec),
            out,
            with_validation,
            limit,
            target,
            deterministic=deterministic,
            compiled=compiled,
            half_weights=half_weights,
            restart=restart,
        )
    except JrError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException(f"stopped; the same command goes on from the last epoch of {out}") from None
    if record.shortened:
        click.echo(f"the time limit ended the training in epoch {len(record.epochs)} of {plan.epochs}", err=True)
    click.echo(f"test accuracy {record.test_accuracy:.2%} on {record.test_count} images; wrote {out}", err=True)


def train(
    plan: Recipe,
    spec: str,
    out: Path,
    with_validation: bool = False,
    limit: int | None = None,
    device: torch.device = _CPU,
    *,
    deterministic: bool = False,
    compiled: bool = False,
    half_weights: bool = False,
    restart: bool = False,
) -> TrainingRecord:
    """Train as planned; write the weights to `out` and the record to `out` with the suffix .json.

    Both are written before the weights meet the test images, and the record once more after that.

    Raises:
        JrError: The data, the device or the state of an earlier run is not usable, or the test images could not be
            evaluated.
    """
    training, validation, test = (load(spec, split=split) for split in ("train", "validation", "test"))
    if with_validation:
        training = _join(training, validation)
    if limit is not None:
        training = training.take(np.arange(min(limit, len(training))))
    state_path = out.with_suffix(".state")
    if restart:
        state_path.unlink(missing_ok=True)
    held_out = None if with_validation else validation
    run = TrainingRun(plan, training, held_out, state_path, device, deterministic=deterministic, compiled=compiled)
    if run.rows:
        click.echo(f"resuming after {len(run.rows)} epochs", err=True)
    run.run(lambda row, left: click.echo(_line(row, left, plan.epochs), err=True))
    stored = state_dict(run.model, half=half_weights)
    record = TrainingRecord(
        recipe=plan,
        data=spec.partition(":")[0],
        train_digest=training.digest,
        test_digest=test.digest,
        train_count=len(training),
        validation_count=0 if with_validation else len(validation),
        test_count=len(test),
        validation_accuracy=run.rows[-1].validation_accuracy,
        test_accuracy=math.nan,
        weights_digest=weights_digest(run.model.state_dict()),
        threads=torch.get_num_threads(),
        device=named(device),
        versions=versions(),
        seconds=round(sum(row.seconds for row in run.rows), 3),
        epochs=tuple(run.rows),
        shortened=run.shortened,
        deterministic=run.deterministic,
        compiled=compiled,
        stored="float16" if half_weights else "float32",
    )
    torch.save(stored, out)
    _write(record, out)
    try:
        reached = accuracy(run.model, Batches(test, entry(plan.model).preprocessing, device))
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"the weights are in {out}, but the test images could not be evaluated: {reason}") from None
    record = replace(record, test_accuracy=reached)
    _write(record, out)
    state_path.unlink(missing_ok=True)
    return record


def _write(record: TrainingRecord, out: Path) -> None:
    out.with_suffix(".json").write_text(dumps(record) + "\n", encoding="utf-8")


def _spec(model: str, spec: str | None) -> str:
    kind = entry(model).data
    if spec is None:
        if kind != "digits":
            raise click.UsageError(f"{model} needs --data {kind}:DIR")
        return "digits"
    if spec.partition(":")[0] != kind:
        raise click.UsageError(f"found --data {spec}, expected {kind} data for {model}")
    return spec


def _line(row: EpochRow, left: int, total: int) -> str:
    validation = "" if math.isnan(row.validation_accuracy) else f"  validation {row.validation_accuracy:.2%}"
    left_text = f"about {left * row.seconds:.0f} s left"
    return f"epoch {row.epoch + 1}/{total}  loss {row.loss:.4f}{validation}  {left_text}"


def _device(name: str, deterministic: bool) -> torch.device:
    if deterministic:
        # cuBLAS repeats its results only with this setting, which it reads when the GPU is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"the device {name!r} is not usable: {reason}", hint="Use --device cpu") from None
    return device


def _join(first: ImageData, second: ImageData) -> ImageData:
    order = np.argsort(np.concatenate([first.indices, second.indices]), kind="stable")
    joined = ImageData(
        np.concatenate([first.pixels, second.pixels]),
        first.scale,
        np.concatenate([first.labels, second.labels]),
        f"{first.name} and {second.name}",
        first.class_names,
        np.concatenate([first.indices, second.indices]),
    )
    return joined.take(order)


if __name__ == "__main__":
    main()

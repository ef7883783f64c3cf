"""Train a network of `models/`: `python -m tools.train digits_cnn --out out/digits_cnn.pt`.

Writes the weights (a torch state dict) and, beside them, a JSON record of the run. A stopped run goes on from its
last epoch when the same command is given again, and ends with the same weights.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from jr_onnx.data import ImageData, load
from jr_onnx.errors import InputError, JrError
from jr_onnx.records import dumps
from models.registry import NAMES, entry
from tools.training import EpochRow, Recipe, TrainingRecord, TrainingRun, accuracy, recipe, weights_digest
from tools.training.batches import Batches
from tools.training.record import versions


@click.command()
@click.argument("model", type=click.Choice(NAMES))
@click.option("--data", "spec", help="Data to train on, such as mnist:DIR. [default: digits for the digits networks]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Weights file to write.")
@click.option("--robust", is_flag=True, help="Adversarial training on mixed batches (paper, section 4.1).")
@click.option("--epochs", type=click.IntRange(1), help="Train for another number of epochs.")
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
@click.option("--restart", is_flag=True, help="Forget the state of an earlier, stopped run.")
def main(
    model: str,
    spec: str | None,
    out: Path,
    robust: bool,
    epochs: int | None,
    seed: int,
    with_validation: bool,
    limit: int | None,
    device: str,
    threads: int,
    restart: bool,
) -> None:
    """Train MODEL and write its weights and a JSON record."""
    plan = replace(recipe(model, robust=robust), seed=seed)
    if epochs is not None:
        plan = replace(plan, epochs=epochs)
    torch.set_num_threads(threads)
    try:
        record = train(plan, _spec(model, spec), out, with_validation, limit, device, restart=restart)
    except JrError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException(f"stopped; the same command goes on from the last epoch of {out}") from None
    click.echo(f"test accuracy {record.test_accuracy:.2%} on {record.test_count} images; wrote {out}", err=True)


def train(
    plan: Recipe,
    spec: str,
    out: Path,
    with_validation: bool = False,
    limit: int | None = None,
    device: str = "cpu",
    *,
    restart: bool = False,
) -> TrainingRecord:
    """Train as planned; write the weights to `out` and the record to `out` with the suffix .json.

    Raises:
        JrError: The data, the device or the state of an earlier run is not usable.
    """
    target = _device(device)
    training, validation, test = (load(spec, split=split) for split in ("train", "validation", "test"))
    if with_validation:
        training = _join(training, validation)
    if limit is not None:
        training = training.take(np.arange(min(limit, len(training))))
    state_path = out.with_suffix(".state")
    if restart:
        state_path.unlink(missing_ok=True)
    run = TrainingRun(plan, training, None if with_validation else validation, state_path, target)
    if run.rows:
        click.echo(f"resuming after {len(run.rows)} epochs", err=True)
    run.run(lambda row, left: click.echo(_line(row, left, plan.epochs), err=True))
    reached = accuracy(run.model, Batches(test, entry(plan.model).preprocessing, target))
    state = {name: value.cpu() for name, value in run.model.state_dict().items()}
    record = TrainingRecord(
        recipe=plan,
        data=spec.partition(":")[0],
        train_digest=training.digest,
        test_digest=test.digest,
        train_count=len(training),
        validation_count=0 if with_validation else len(validation),
        test_count=len(test),
        validation_accuracy=run.rows[-1].validation_accuracy,
        test_accuracy=reached,
        weights_digest=weights_digest(state),
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(target) if target.type == "cuda" else "cpu",
        versions=versions(),
        seconds=round(sum(row.seconds for row in run.rows), 3),
        epochs=tuple(run.rows),
    )
    torch.save(state, out)
    out.with_suffix(".json").write_text(dumps(record) + "\n", encoding="utf-8")
    state_path.unlink(missing_ok=True)
    return record


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


def _device(name: str) -> torch.device:
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

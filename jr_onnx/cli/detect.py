"""`jr-onnx detect`: can adversarial examples be told from clean images by their activations?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jr_onnx.cli.command import cli_command, option
from jr_onnx.cli.options import (
    DataArguments,
    check_budget,
    data_options,
    device_option,
    eps_option,
    kappa_option,
    model_argument,
    norm_option,
    seed_option,
)
from jr_onnx.cli.output import json_option, print_json, print_message, print_table
from jr_onnx.cli.types import COUNT, Count


@dataclass(frozen=True, kw_only=True)
class Arguments(DataArguments):
    """The arguments and options of `jr-onnx detect`."""

    model: Path
    kappa: float | None
    norm: Literal["linf", "l2"]
    eps: float
    steps: int
    limit: int
    neighbours: int
    reference: int
    seed: int
    device: str
    as_json: bool


@cli_command("detect", Arguments, examples=("jr-onnx detect model.onnx --kappa 0.5 --limit 400",))
@model_argument
@data_options
@kappa_option
@norm_option("linf", "l2")
@eps_option("0.1")  # large enough to fool: what fools nothing teaches a detector nothing
@option("--steps", type=COUNT, default=40, help="Steps of the attack.")
@option("--limit", type=COUNT, default=1000, help="Use at most this many images.")
@option("--neighbours", type=Count(min=2), default=20, help="Neighbours that estimate an LID.")
@option("--reference", type=Count(min=2), default=100, help="Images among which the neighbours are sought.")
@seed_option
@device_option
@json_option
def command(given: Arguments) -> None:
    """Fit a detector of adversarial examples on MODEL and on its retrofit, and test it on other images.

    The detector is a logistic regression on local intrinsic dimensionality (LID). The attack does not know of the
    detector, so the figures are an upper bound.
    """
    from jr_onnx.cli.progress import progress
    from jr_onnx.errors import require
    from jr_onnx.kappa import KappaPlan

    require("torch", "attack")
    from jr_onnx.detect import DetectRequest, detect

    check_budget(given.norm, given.eps)
    data, preprocessing = given.read(limit=given.limit)
    request = DetectRequest(
        model=given.model,
        plan=KappaPlan(given.kappa) if given.kappa is not None else None,
        norm=given.norm,
        eps=given.eps,
        steps=given.steps,
        preprocessing=preprocessing,
        neighbours=given.neighbours,
        reference=given.reference,
        seed=given.seed,
        device=given.device,
        values=given.values,
        logits=given.logits,
        force=given.allow_poor_accuracy,
        data=data,
    )
    with progress("detecting") as notify:
        result = detect(request, notify)
    for note in result.notes:
        print_message(f"note: {note}")
    if given.as_json:
        print_json(result)
        return
    print_table(
        ("model", "AUC", "95%", "fooled", "train images", "test", "best layer alone"),
        [
            (
                item.model,
                f"{item.auc:.3f}",
                f"{item.low:.3f}-{item.high:.3f}",
                f"{item.fooled:.1%}",
                str(item.train_images),
                str(item.test_images),
                "{1} ({0:.3f})".format(*max(zip(item.layer_auc, item.layers, strict=True))),
            )
            for item in result.models
        ],
        title=f"adversarial ({result.attack}) against clean and noisy; the attack does not know of the detector; "
        f"logits: {result.logits}",
    )

"""`jr-onnx detect`: can adversarial examples be told from clean images by their activations?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jr_onnx.cli.options import (
    check_budget,
    data_option,
    device_option,
    eps_option_of,
    logits_option,
    model_argument,
    norm_option,
    poor_option,
    preprocess_option,
    read_data,
    seed_option,
    value_option,
)
from jr_onnx.cli.output import json_option, print_json, print_table, say


@click.command("detect")
@model_argument
@data_option
@click.option("--kappa", type=float, help="The jump of the retrofit; MODEL is then an original.")
@norm_option("linf", "l2")
@eps_option_of("0.1")  # large enough to fool: what fools nothing teaches a detector nothing
@click.option("--steps", type=click.IntRange(min=1), default=40, show_default=True, help="Steps of the attack.")
@preprocess_option
@value_option
@logits_option
@poor_option
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="At most this many images.")
@click.option("--neighbours", type=click.IntRange(min=2), default=20, show_default=True, help="k of the LID.")
@click.option("--reference", type=click.IntRange(min=2), default=100, show_default=True, help="Reference images.")
@seed_option
@device_option
@json_option
def command(model: Path, as_json: bool, **given: Any) -> None:
    """Fit a detector (LID features, logistic regression) on MODEL and on its retrofit, and test it on other images.

    The attack does not know of the detector, so the figure is an upper bound of what it is worth.
    """
    from jr_onnx.cli.named_values import parse_values
    from jr_onnx.cli.progress import progress
    from jr_onnx.errors import require
    from jr_onnx.kappa import KappaPlan

    require("torch", "attack")
    from jr_onnx.detect import DetectRequest, detect

    check_budget(given["norm"], given["eps"])
    data, preprocessing = read_data(given["spec"], given["preprocess"], limit=given["limit"])
    request = DetectRequest(
        model=model,
        plan=KappaPlan(given["kappa"]) if given["kappa"] is not None else None,
        norm=given["norm"],
        eps=given["eps"],
        steps=given["steps"],
        preprocessing=preprocessing,
        neighbours=given["neighbours"],
        reference=given["reference"],
        seed=given["seed"],
        device=given["device"],
        values=parse_values(given["values"]),
        logits=given["logits"],
        force=given["force"],
        data=data,
    )
    with progress("detecting") as notify:
        result = detect(request, notify)
    for note in result.notes:
        say(f"note: {note}")
    if as_json:
        print_json(result)
        return
    print_table(
        ("model", "AUC", "95 %", "fooled", "train images", "test", "best layer alone"),
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

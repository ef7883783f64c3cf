"""`jr-onnx harden`: a model that is measurably harder to fool, by training the ONNX file itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jr_onnx.cli.options import (
    PATH,
    check_budget,
    check_outputs,
    data_option,
    device_option,
    eps_option,
    logits_option,
    model_argument,
    norm_option,
    output_folder,
    preprocess_option,
    read_data,
    seed_option,
    value_option,
)
from jr_onnx.cli.output import json_option, next_step, print_json, print_table, say, tell

_Command = TypeVar("_Command", bound=Callable[..., Any])

if TYPE_CHECKING:
    from jr_onnx.data import ImageData
    from jr_onnx.harden import Contest, HardenRequest, HardenResult, Moment
    from jr_onnx.harden.recipe import Recipe


def _number(name: str, default: float, text: str, *, least: int | None = None) -> Callable[[_Command], _Command]:
    kind = click.IntRange(min=least) if least is not None else float
    return click.option(name, type=kind, default=default, show_default=True, help=text)


@click.command("harden")
@model_argument
@data_option
@norm_option("linf", "l2")
@eps_option
@click.option(
    "--method",
    type=click.Choice(["pgd", "trades", "fgsm"]),
    default="pgd",
    show_default=True,
    help="Train on adversarial images (Madry), weigh clean against robust (TRADES), or on batches mixed with FGSM.",
)
@_number("--beta", 6.0, "Weight of robustness against clean accuracy, with --method trades.")
@_number("--steps", 7, "Steps of the attack in training, with --method pgd or trades.", least=1)
@_number("--epochs", 10, "Passes over the training images.", least=1)
@click.option(
    "--batch", type=click.IntRange(min=1), default=128, show_default=True, help="Images a step of the training."
)
@_number("--rate", 0.05, "Highest learning rate of the one-cycle schedule.")
@_number("--average", 0.995, "Decay of the running average of the weights; 0 for the last weights.")
@click.option(
    "--augment",
    type=click.Choice(["auto", "none", "crop_flip"]),
    default="auto",
    show_default=True,
    help="Shift and mirror training images; auto does so with colour images.",
)
@click.option("--train", "only", multiple=True, metavar="REGEX", help="Train only weights that match. Repeatable.")
@click.option("--freeze", multiple=True, metavar="REGEX", help="Leave weights that match as they are. Repeatable.")
@click.option("--batch-statistics", is_flag=True, help="Estimate means and variances of BatchNormalization anew, too.")
@click.option("--kappa", type=float, help="Train with this jump at every site, and write a retrofit.")
@click.option(
    "--learn-kappa",
    type=click.Choice(["no", "per-site"]),
    default="no",
    show_default=True,
    help="Train the jumps too, from --kappa on.",
)
@click.option(
    "--labels",
    type=click.Choice(["given", "from-model"]),
    default="given",
    show_default=True,
    help="Learn the labels of the data, or the model's own answers where there are none.",
)
@_number("--patience", 5, "Epochs without a better robust validation accuracy before training ends.", least=1)
@click.option("--limit", type=click.IntRange(min=1), help="At most this many training images.")
@preprocess_option
@value_option
@logits_option
@seed_option
@device_option
@click.option("--float32", is_flag=True, help="Compute in float32 on a GPU too, where products are bfloat16 otherwise.")
@click.option(
    "--evaluate",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    metavar="N",
    help="Attack original and result with the adaptive suite on N test images; 0 for none.",
)
@click.option("--out", type=PATH, help="Folder for that evaluation.  [default: OUTPUT.attack beside it]")
@click.option("--restart", is_flag=True, help="Begin anew, though an interrupted run could be continued.")
@click.option("--force", is_flag=True, help="Replace an existing output, and train a model at chance level too.")
@click.option("-o", "--output", type=PATH, help="Where to write.  [default: MODEL.hardened.onnx beside it]")
@json_option
def command(as_json: bool, **given: Any) -> None:
    """Train the weights of MODEL on adversarial images, and write the same file with the trained weights.

    No source code is needed, only images with labels (--data) and what the model expects of them (--preprocess).
    Nothing but the weights changes, which is proved before the file appears. The epoch with the best robust accuracy
    on validation images is kept; an interrupted run goes on with the same command. At the end, original and result are
    attacked alike on test images that no training saw.
    """
    from jr_onnx.errors import require

    require("torch", "attack")
    from jr_onnx.cli.progress import resumable
    from jr_onnx.harden import harden

    check_budget(given["norm"], given["eps"])
    recipe = _recipe(given)
    check_outputs(given["output"])
    request = _request(given, recipe)
    test = _test_images(given) if given["evaluate"] else None
    with resumable(), _shown() as notify:
        result = harden(request, notify)
    for note in result.notes:
        say(f"note: {note}")
    say(f"hardened -> {result.output}")
    if test is not None:
        result = _contest(given, request, result, test)
    if as_json:
        print_json(result)
    else:
        _show(result)
    say(next_step("attack", result.output, "--data", given["spec"], "--preprocess", given["preprocess"]))


def _recipe(given: dict[str, Any]) -> Recipe:
    from jr_onnx.harden.recipe import Recipe

    return Recipe(
        eps=given["eps"],
        norm=given["norm"],
        method=given["method"],
        steps=given["steps"],
        beta=given["beta"],
        epochs=given["epochs"],
        batch=given["batch"],
        rate=given["rate"],
        average=given["average"],
        augmentation=given["augment"],
        kappa=given["kappa"],
        learn_kappa=given["learn_kappa"],
        batch_statistics=given["batch_statistics"],
        patience=given["patience"],
        seed=given["seed"],
    )


def _request(given: dict[str, Any], recipe: Recipe) -> HardenRequest:
    from jr_onnx.cli.named_values import parse_values
    from jr_onnx.harden import HardenRequest

    train, preprocessing = read_data(given["spec"], given["preprocess"], split="train", limit=given["limit"])
    validation, _ = read_data(given["spec"], given["preprocess"], split="validation")
    return HardenRequest(
        model=given["model"],
        recipe=recipe,
        train=train,
        data=validation,
        output=given["output"],
        preprocessing=preprocessing,
        labels=given["labels"],
        only=given["only"],
        freeze=given["freeze"],
        device=given["device"],
        bfloat16=not given["float32"],
        values=parse_values(given["values"]),
        logits=given["logits"],
        force=given["force"],
        replace=given["force"],
        restart=given["restart"],
    )


def _test_images(given: dict[str, Any]) -> ImageData:
    return read_data(given["spec"], given["preprocess"], split="test", limit=given["evaluate"])[0]


@contextmanager
def _shown() -> Iterator[Any]:
    """Show how far the training is, and a line for every epoch."""
    from jr_onnx.cli.progress import progress

    with progress("hardening") as notify:

        def show(moment: Moment) -> None:
            row = moment.row
            if row is not None:
                name = f"epoch {row.epoch}" if row.epoch else "before training"
                loss = f", loss {row.loss:.3f}" if row.epoch else ""
                say(f"{name}: validation accuracy {row.clean:.1%} clean, {row.robust:.1%} under attack{loss}")
            notify(moment.step, moment.steps, f"step {moment.step}" if moment.step else "")

        yield show


def _contest(given: dict[str, Any], request: HardenRequest, result: HardenResult, test: ImageData) -> HardenResult:
    """Attack original and result with one suite; the same weights without the jump too, where there is one."""
    import dataclasses
    import tempfile

    from jr_onnx.attack.suite.setup import AttackRequest
    from jr_onnx.cli.progress import progress
    from jr_onnx.harden import HARDENED, WITH_JUMP, ContestRequest, hold
    from jr_onnx.rewriter import restore

    output = Path(result.output)
    folder = output_folder(given["out"] if given["out"] is not None else output.with_name(f"{output.stem}.attack"))
    attack = AttackRequest(
        model=request.model,
        data=test,
        preprocessing=request.preprocessing,
        device=request.device,
        logits=request.logits,
        values=request.values,
        plan=None,
        suite="adaptive",
        norm=request.recipe.norm,
        eps=request.recipe.eps,
        out=folder,
        seed=request.recipe.seed,
    )
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".without-jump-") as place:
        files = {"original": request.model, HARDENED: output}
        if any(result.hardening.kappas.values()):
            plain = restore(output, Path(place) / f"{output.stem}.without-jump.onnx")
            files = {"original": request.model, HARDENED: plain, WITH_JUMP: output}
        with progress("attacking") as notify:
            contest = hold(
                ContestRequest(files, test, attack),
                lambda state: notify(state.done, state.total, state.unit, state.left_s),
            )
    return dataclasses.replace(result, contest=contest)


def _show(result: HardenResult) -> None:
    hardening = result.hardening
    if hardening.surrogate:
        tell(f"derivative of the jump: {hardening.surrogate}")
    before, best = hardening.rows[0], hardening.rows[hardening.best]
    tell(
        f"epoch {hardening.best} of {len(hardening.rows) - 1} is kept; validation accuracy clean "
        f"{before.clean:.1%} -> {best.clean:.1%}, under attack {before.robust:.1%} -> {best.robust:.1%}"
    )
    if hardening.kappas:
        tell("kappas: " + ", ".join(f"{site}={kappa:g}" for site, kappa in hardening.kappas.items()))
    if result.contest is not None:
        _show_contest(result.contest, hardening.recipe)


def _show_contest(contest: Contest, recipe: Recipe) -> None:
    from jr_onnx.cli.evaluation import change, share
    from jr_onnx.harden import gain_of, worst_case

    rows: list[tuple[str, ...]] = []
    for label, evaluation in contest.evaluations.items():
        original, other = evaluation.models
        if not rows:
            rows.append(("original", share(original.clean), share(worst_case(original)), "", ""))
        gain = gain_of(evaluation)
        worst = share(worst_case(other))
        rows.append((label, share(other.clean), worst, change(gain), f"{gain.p_value:.2g}"))
    first = next(iter(contest.evaluations.values()))
    print_table(
        ("model", "clean", "robust", "against original", "p"),
        rows,
        title=f"adaptive suite, {recipe.norm} {recipe.eps:.4g}, {first.samples} test images: accuracy (95 % interval), "
        "McNemar's p",
    )
    tell(f"\nrecommendation: deploy the {contest.chosen} model ({contest.names[contest.chosen]})")
    tell(f"reason: {contest.reason}")

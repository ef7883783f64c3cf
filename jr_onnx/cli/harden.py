"""`jr-onnx harden`: a model that is measurably harder to fool, by training the ONNX file itself."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from jr_onnx.cli.command import cli_command, option, renamed_option
from jr_onnx.cli.options import (
    DataArguments,
    check_budget,
    check_outputs,
    device_option,
    eps_option,
    force_option,
    labelled_data_options,
    model_argument,
    norm_option,
    output_folder,
    output_option,
    result_option,
    seed_option,
)
from jr_onnx.cli.output import (
    command_line,
    json_option,
    next_step,
    print_json,
    print_lines,
    print_message,
    print_table,
    write_result,
)
from jr_onnx.cli.types import COUNT, PATH, Count

if TYPE_CHECKING:
    from jr_onnx.data import ImageData
    from jr_onnx.harden import Contest, HardenRequest, HardenResult, TrainingProgress
    from jr_onnx.harden.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Arguments(DataArguments):
    """The arguments and options of `jr-onnx harden`."""

    model: Path
    norm: Literal["linf", "l2"]
    eps: float
    method: Literal["pgd", "trades", "fgsm"]
    beta: float
    steps: int
    epochs: int
    batch_size: int
    rate: float
    clip: float
    ramp: float | None
    average: float
    augment: Literal["auto", "none", "crop_flip"]
    train: tuple[str, ...]
    freeze: tuple[str, ...]
    batch_statistics: bool
    kappa: float | None
    learn_kappa: Literal["no", "per-site", "per-channel"]
    labels_from: Literal["data", "model"]
    patience: int
    limit: int | None
    seed: int
    device: str
    full_precision: bool
    evaluate: int
    evaluation: Path | None
    restart: bool
    force: bool
    output: Path | None
    result: Path | None
    as_json: bool


@cli_command(
    "harden",
    Arguments,
    examples=(
        "jr-onnx harden model.onnx --eps 0.1 --epochs 3 --rate 0.05 --evaluate 0 --result harden.json -o hardened.onnx",
        "jr-onnx harden model.onnx --eps 0.1 --epochs 2 --evaluate 0 --method trades --beta 3 -o traded.onnx",
    ),
)
@model_argument
@labelled_data_options
@norm_option("linf", "l2")
@eps_option()
@option(
    "--method",
    type=click.Choice(["pgd", "trades", "fgsm"]),
    default="pgd",
    help="pgd trains on adversarial images (Madry), trades weighs clean against robust accuracy, fgsm mixes one-step "
    "adversarial images into each batch.",
)
@option("--beta", type=float, default=6.0, help="Weight of robustness against clean accuracy, for trades.")
@option("--steps", type=COUNT, default=7, help="Steps of the attack in training, for pgd and trades.")
@option("--epochs", type=COUNT, default=10, help="Passes over the training images.")
@option("--batch-size", type=COUNT, default=128, help="Images in a training step.")
@renamed_option("--batch", "--batch-size", type=COUNT)
@renamed_option(
    "--labels",
    "--labels-from",
    type=click.Choice(["given", "from-model"]),
    convert={"given": "data", "from-model": "model"}.__getitem__,
)
@option("--rate", type=float, default=0.02, help="Highest learning rate of the one-cycle schedule.")
@option("--clip", type=float, default=1.0, help="Largest norm of the gradient of a training step.")
@option(
    "--ramp",
    type=float,
    show_default="0.4 for a model that hardly withstands the attack, else 0",
    help="Share of the training in which the budget of its attack grows from 0 to --eps, if the network can follow.",
)
@option("--average", type=float, default=0.995, help="Decay of the running average of the weights; 0 for none.")
@option(
    "--augment",
    type=click.Choice(["auto", "none", "crop_flip"]),
    default="auto",
    help="Shift and mirror training images; auto does so for colour images.",
)
@option("--train", multiple=True, metavar="REGEX", help="Train only weights whose name matches. Repeatable.")
@option("--freeze", multiple=True, metavar="REGEX", help="Do not train weights whose name matches. Repeatable.")
@option("--batch-statistics", is_flag=True, help="Also re-estimate the means and variances of BatchNormalization.")
@option("--kappa", type=float, help="Train with this threshold at every site, and write a retrofit.")
@option(
    "--learn-kappa",
    type=click.Choice(["no", "per-site", "per-channel"]),
    default="no",
    help="Train the threshold of every site, or one for each channel of it, too, starting from --kappa.",
)
@option(
    "--labels-from",
    type=click.Choice(["data", "model"]),
    default="data",
    help="Train on the labels in --data, or on the predictions of MODEL, which needs no labels.",
)
@option(
    "--patience", type=COUNT, default=5, help="Stop after this many epochs without better robust validation accuracy."
)
@option("--limit", type=COUNT, help="Train on at most this many images.")
@seed_option
@device_option
@option("--full-precision", is_flag=True, help="Compute in float32 on a GPU, where bfloat16 is the default.")
@option(
    "--evaluate",
    type=Count(min=0),
    default=200,
    help="Attack MODEL and the result with the adaptive suite on this many test images; 0 for none.",
)
@option(
    "--evaluation",
    type=PATH,
    metavar="FOLDER",
    show_default="OUTPUT.attack",
    help="Folder for the results of --evaluate.",
)
@option("--restart", is_flag=True, help="Start over, even if an interrupted run could be resumed.")
@force_option
@output_option("The hardened model to write.", default="MODEL.hardened.onnx")
@result_option
@json_option
def command(given: Arguments) -> None:
    """Train the weights of MODEL on adversarial images, and write the same file with the trained weights.

    No source code is needed, only images with labels (--data) and what the model expects of them (--preprocess).
    Only the weights change, which is proved before the file appears. The epoch with the best robust accuracy
    on validation images is kept; an interrupted run resumes with the same command. At the end, original and result
    are attacked alike on test images that were not used in training.
    """
    from jr_onnx.errors import require

    require("torch", "attack")
    from jr_onnx.cli.progress import resumable
    from jr_onnx.harden import harden

    check_budget(given.norm, given.eps)
    recipe = _recipe(given)
    check_outputs(given.output, given.result)
    request = _request(given, recipe)
    test = _test_images(given, request) if given.evaluate else None
    with resumable():
        with _shown() as notify:
            result = harden(request, notify)
        for note in result.notes:
            print_message(f"note: {note}")
        print_message(f"hardened -> {result.output}")
        if test is not None:
            result = _contest(given, request, result, test)
    if given.as_json:
        print_json(result)
    else:
        _show(result)
    write_result(result, given.result)
    output, contest = Path(result.output), result.contest
    if contest is not None and contest.names[contest.chosen] == _without_jump(output):
        print_message(next_step("restore", output, "-o", output.with_name(_without_jump(output))))
    elif request.data.labelled and contest is None:
        values = [word for name, value in given.values.items() for word in ("--value", f"{name}={value:g}")]
        named = ["--logits", given.logits] if given.logits else []
        budget = ["--norm", given.norm, "--eps", f"{given.eps:.6g}"]
        words = ["--data", given.data, "--preprocess", given.preprocess, *values, *named, *budget]
        print_message(next_step("attack", output, *words))


def _recipe(given: Arguments) -> Recipe:
    from jr_onnx.harden.recipe import Recipe

    return Recipe(
        eps=given.eps,
        norm=given.norm,
        method=given.method,
        steps=given.steps,
        beta=given.beta,
        epochs=given.epochs,
        batch=given.batch_size,
        rate=given.rate,
        clip=given.clip,
        ramp=given.ramp,
        average=given.average,
        augmentation=given.augment,
        kappa=given.kappa,
        learn_kappa=given.learn_kappa,
        batch_statistics=given.batch_statistics,
        patience=given.patience,
        seed=given.seed,
    )


def _request(given: Arguments, recipe: Recipe) -> HardenRequest:
    from jr_onnx.harden import HardenRequest

    answered = given.labels_from == "model"
    train, preprocessing = given.read(split="train", limit=given.limit, allow_unlabelled=answered)
    validation, _ = given.read(split="validation", allow_unlabelled=answered)
    return HardenRequest(
        model=given.model,
        recipe=recipe,
        train=train,
        data=validation,
        output=given.output,
        preprocessing=preprocessing,
        labels_from=given.labels_from,
        only=given.train,
        freeze=given.freeze,
        device=given.device,
        bfloat16=not given.full_precision,
        values=given.values,
        logits=given.logits,
        force=given.allow_poor_accuracy,
        replace=given.force,
        restart=given.restart,
    )


def _test_images(given: Arguments, request: HardenRequest) -> ImageData:
    """Load the images of the evaluation, and refuse a folder that could not take its results, before the training.

    Raises:
        OutputError: The folder holds results that cannot be about the file that is going to be written.
    """
    from jr_onnx.errors import OutputError
    from jr_onnx.evaluation.store import is_run
    from jr_onnx.harden import answered_by_model, default_output

    output = given.output or default_output(given.model)
    folder = _evaluation(given, output)
    if is_run(folder) and (given.force or not output.exists()):
        raise OutputError(
            f"{folder} holds results of another model", hint="Remove it, or choose another folder (--evaluation)"
        )
    test, _ = given.read(split="test", limit=given.evaluate, allow_unlabelled=given.labels_from == "model")
    if test.labelled:
        return test
    print_message(f"note: {test.name} has no labels: accuracy is agreement with the answers of {given.model.name}")
    return answered_by_model(request, test)


def _evaluation(given: Arguments, output: Path) -> Path:
    return output_folder(given.evaluation or output.with_name(f"{output.stem}.attack"), "--evaluation")


@contextlib.contextmanager
def _shown() -> Iterator[Callable[[TrainingProgress], None]]:
    """Show how far the training is, and a line for every epoch."""
    from jr_onnx.cli.progress import progress

    with progress("hardening") as notify:

        def show(state: TrainingProgress) -> None:
            row = state.row
            if row is not None:
                name = f"epoch {row.epoch}" if row.epoch else "before training"
                loss = f", loss {row.loss:.3f}" if row.epoch else ""
                loss += f", at {row.budget:.0%} of the budget" if row.budget < 1 else ""
                print_message(f"{name}: validation accuracy {row.clean:.1%} clean, {row.robust:.1%} under attack{loss}")
                if row.went_back:
                    print_message(
                        "most of the clean accuracy was lost: back to the best weights, at a quarter of the rate"
                    )
            notify(state.step, state.steps, f"step {state.step}" if state.step else "")

        yield show


def _contest(given: Arguments, request: HardenRequest, result: HardenResult, test: ImageData) -> HardenResult:
    """Attack original and result with one suite; the same weights without the jump too, where there is one."""
    from jr_onnx.attack.suite.setup import AttackRequest
    from jr_onnx.cli.progress import progress
    from jr_onnx.harden import HARDENED, WITH_JUMP, ContestRequest, hold
    from jr_onnx.rewriter import restore
    from jr_onnx.semantics import is_jump

    output = Path(result.output)
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
        out=_evaluation(given, output),
        seed=request.recipe.seed,
        command=command_line(),
    )
    with contextlib.ExitStack() as stack:
        files = {"original": request.model, HARDENED: output}
        if any(map(is_jump, result.hardening.kappas.values())):
            place = stack.enter_context(tempfile.TemporaryDirectory(dir=output.parent, prefix=".without-jump-"))
            plain = restore(output, Path(place) / _without_jump(output))
            files = {"original": request.model, HARDENED: plain, WITH_JUMP: output}
        with progress("attacking") as notify:
            contest = hold(
                ContestRequest(files, test, attack),
                lambda state: notify(state.done, state.total, state.unit, state.left_s),
            )
    return replace(result, contest=contest)


def _without_jump(output: Path) -> str:
    return f"{output.stem}.without-jump.onnx"


def _show(result: HardenResult) -> None:
    from jr_onnx.semantics import kappa_label

    hardening = result.hardening
    if hardening.surrogate:
        print_lines(f"derivative of the jump: {hardening.surrogate}")
    before, best = hardening.rows[0], hardening.rows[hardening.best]
    print_lines(
        f"epoch {hardening.best} of {len(hardening.rows) - 1} is kept; validation accuracy clean "
        f"{before.clean:.1%} -> {best.clean:.1%}, under attack {before.robust:.1%} -> {best.robust:.1%}"
    )
    if hardening.kappas:
        print_lines("kappas: " + ", ".join(f"{site}={kappa_label(kappa)}" for site, kappa in hardening.kappas.items()))
    if result.contest is not None:
        _show_contest(result.contest, hardening.recipe)


def _show_contest(contest: Contest, recipe: Recipe) -> None:
    from jr_onnx.results.hardening import CONTEST, contest_rows

    first = next(iter(contest.evaluations.values()))
    print_table(
        (CONTEST[0], *CONTEST[2:]),  # without the files, so that it fits into a terminal; the lines below name one
        [(label, *figures) for label, _, *figures in contest_rows(contest)],
        title=f"adaptive suite, {recipe.norm} {recipe.eps:.4g}, {first.samples} test images, McNemar's p",
    )
    print_lines(f"\nrecommendation: deploy the {contest.chosen} model ({contest.names[contest.chosen]})")
    print_lines(f"reason: {contest.reason}")

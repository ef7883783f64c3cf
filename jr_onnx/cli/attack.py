"""`jr-onnx attack`: what JumpReLU buys a classifier, against whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from jr_onnx.cli.command import cli_command, option, renamed_option, was_given
from jr_onnx.cli.options import (
    DataArguments,
    KappaArguments,
    check_budget,
    data_options,
    device_option,
    eps_option,
    kappa_options,
    model_argument,
    norm_option,
    output_folder,
    output_option,
    provider_option,
    seed_option,
)
from jr_onnx.cli.output import command_line, json_option, next_step, print_json, print_message
from jr_onnx.cli.types import COUNT, PATH

if TYPE_CHECKING:
    from jr_onnx.attack.norms import Norm
    from jr_onnx.attack.suite.setup import AttackRequest
    from jr_onnx.data import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Arguments(DataArguments, KappaArguments):
    """The arguments and options of `jr-onnx attack`."""

    model: Path
    suite: Literal["paper", "adaptive", "full"]
    norm: Norm
    eps: float
    units: Literal["pixel", "paper"]
    split: str
    limit: int | None
    paper_steps: int
    trust_steps: int
    transfer_from: tuple[float, ...]
    seed: int
    device: str
    provider: str
    chunk: int | None
    shard: str
    black_box: bool
    save_adversarial: bool
    output: Path | None
    as_json: bool


@cli_command(
    "attack",
    Arguments,
    examples=(
        "jr-onnx attack model.onnx --kappa 0.5 --eps 0.1 --limit 8",
        "jr-onnx attack model.onnx --kappa 0.5 --black-box --limit 4 -o attacks",
    ),
)
@model_argument
@data_options
@kappa_options
@option(
    "--suite",
    type=click.Choice(["paper", "adaptive", "full"]),
    default="adaptive",
    help="The authors' attacks (not adaptive), attacks that adapt to the jump, or both with more effort.",
)
@norm_option("linf", "l2", "l1")
@eps_option()
@option(
    "--units",
    type=click.Choice(["pixel", "paper"]),
    default="pixel",
    help="Scale of --eps: pixels in [0, 1], or the paper's normalised values (pixel difference over std).",
)
@option("--split", type=click.Choice(["test", "validation", "train"]), default="test", help="Split to attack.")
@option("--limit", type=COUNT, help="Attack at most this many images.")
@option(
    "--paper-steps",
    type=COUNT,
    default=40,
    help="Steps of the paper's PGD and DeepFool (40 for MNIST, 7 for CIFAR-10).",
)
@option("--trust-steps", type=COUNT, default=1000, help="Steps of the paper's trust region attack.")
@option(
    "--transfer-from",
    multiple=True,
    type=float,
    metavar="KAPPA",
    help="Also craft examples on a retrofit with this kappa (paper, figure 7). Repeatable.",
)
@seed_option
@device_option
@provider_option("cpu", "cuda", what="Where ONNX Runtime judges every example: the provider that will serve.")
@option(
    "--chunk",
    type=COUNT,
    show_default="256, and 10,000 on CUDA",
    help="Images in memory at once; results do not depend on it.",
)
@option("--shard", default="1/1", metavar="K/N", help="Run part K of N; jr-onnx report merges the parts.")
@option(
    "--black-box", is_flag=True, help="Run only attacks that need no gradients: the model runs in ONNX Runtime alone."
)
@option("--save-adversarial", is_flag=True, help="Save the adversarial examples as .npz.")
@output_option("Folder for the results; an interrupted run resumes.", default="MODEL.attack")
@renamed_option("--out", "--output", type=PATH)
@renamed_option("--batch", "--chunk", type=COUNT)
@renamed_option("--replay-provider", "--provider", type=click.Choice(["cpu", "cuda"]))
@json_option
def command(given: Arguments) -> None:
    """Attack MODEL and its retrofit with the same suite, and say what the results are worth.

    MODEL is an original (give --kappa, --kappa-map or --random) or a retrofit. Without a kappa, any other classifier
    is attacked alone. Every adversarial example is run again in ONNX Runtime on the file that would be served, and the
    figures are those of that file. A verdict says whether gradients were masked.
    """
    from jr_onnx.errors import require

    require("torch", "attack")
    from jr_onnx.attack.suite.evaluate import evaluate_robustness
    from jr_onnx.cli.evaluation import show
    from jr_onnx.cli.progress import progress, resumable

    _refuse_ignored(given)
    request = _request(given)
    with resumable(), progress("attacking") as notify:
        evaluation = evaluate_robustness(
            request,
            notify=lambda state: notify(state.done, state.total, state.unit, state.left_s),
            warn=lambda note: print_message(f"note: {note}"),
        )
    if given.as_json:
        print_json(evaluation)
    else:
        show(evaluation)
    print_message(f"results: {request.out}; {next_step('report', request.out)}")


def _refuse_ignored(given: Arguments) -> None:
    """Refuse options that the chosen suite does not use, which would otherwise be ignored silently."""
    from jr_onnx.errors import InputError

    ignored = []
    if given.suite == "paper" and not given.transfer_from:
        ignored += ["norm", "eps", "units"]
    if given.suite == "adaptive" or given.black_box:
        ignored += ["paper_steps", "trust_steps"]
    if given.black_box:
        ignored += ["transfer_from"]
    named = [f"--{name.replace('_', '-')}" for name in ignored if was_given(name)]
    if given.suite == "paper" and given.black_box:
        raise InputError("the suite paper has no black-box attack", hint="Use --suite adaptive with --black-box")
    if named:
        way = "--black-box" if given.black_box and given.suite != "paper" else f"the suite {given.suite}"
        raise InputError(
            f"{' and '.join(named)} would change nothing: {way} does not use {'it' if len(named) == 1 else 'them'}",
            hint="Leave it out, or choose another --suite",
        )


def _request(given: Arguments) -> AttackRequest:
    from jr_onnx.attack.suite.plan import PaperSettings
    from jr_onnx.attack.suite.run import Shard
    from jr_onnx.attack.suite.setup import AttackRequest
    from jr_onnx.data import Preprocessing
    from jr_onnx.modelfile import name_of

    eps = given.eps
    if given.units == "paper":
        eps *= _pixels_per_unit(Preprocessing.parse(given.preprocess))
    check_budget(given.norm, eps)
    name_of(given.model)
    folder = given.output if given.output is not None else given.model.with_name(f"{given.model.stem}.attack")
    out = output_folder(folder)
    shard = Shard.parse(given.shard)  # before the data, which takes longer to read
    data, preprocessing = given.read(split=given.split, limit=given.limit)
    return AttackRequest(
        model=given.model,
        plan=given.plan,
        data=data,
        suite=given.suite,
        norm=given.norm,
        eps=eps,
        out=out,
        preprocessing=preprocessing,
        seed=given.seed,
        device=given.device,
        batch=given.chunk,
        shard=shard,
        transfer_from=given.transfer_from,
        paper=PaperSettings(steps=given.paper_steps, trust_steps=given.trust_steps),
        keep=given.save_adversarial,
        black_box=given.black_box,
        values=given.values,
        logits=given.logits,
        force=given.allow_poor_accuracy,
        replay_provider=given.provider,
        command=command_line(),
    )


def _pixels_per_unit(preprocessing: Preprocessing) -> float:
    from jr_onnx.errors import InputError

    spread = set(preprocessing.std)
    if len(spread) != 1:
        raise InputError(
            "--units paper needs one standard deviation for all channels, since one normalised eps would otherwise be "
            f"a different pixel difference in each; found {preprocessing.std}",
            hint="Give --eps in pixel scale (--units pixel)",
        )
    low, high = preprocessing.range
    return float(spread.pop()) / float(high - low)

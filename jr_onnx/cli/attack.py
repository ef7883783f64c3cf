"""`jr-onnx attack`: what JumpReLU buys a classifier, against whom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jr_onnx.cli.options import (
    check_budget,
    data_option,
    device_option,
    eps_option,
    logits_option,
    model_argument,
    norm_option,
    output_folder,
    poor_option,
    preprocess_option,
    read_data,
    seed_option,
    value_option,
)
from jr_onnx.cli.output import json_option, next_step, print_json, say

if TYPE_CHECKING:
    from jr_onnx.attack.suite.setup import AttackRequest
    from jr_onnx.kappa import KappaPlan


@click.command("attack")
@model_argument
@data_option
@click.option("--kappa", type=float, help="The jump of the retrofit; MODEL is then an original.")
@click.option("--kappa-map", type=click.Path(path_type=Path), help="A kappa per site; see jr-onnx rewrite.")
@click.option(
    "--random",
    "random_range",
    type=float,
    nargs=2,
    metavar="LOW HIGH",
    help="A kappa that is drawn from U[LOW, HIGH] for every forward pass (paper, appendix C).",
)
@click.option(
    "--suite",
    "suite_name",
    type=click.Choice(["paper", "adaptive", "full"]),
    default="adaptive",
    show_default=True,
    help="The authors' attacks (not adaptive), attacks that adapt to the jump, or both with more effort.",
)
@norm_option("linf", "l2", "l1")
@eps_option
@click.option(
    "--units",
    type=click.Choice(["pixel", "paper"]),
    default="pixel",
    show_default=True,
    help="Scale of --eps: pixels in [0, 1], or the paper's normalised values (pixel difference over std).",
)
@preprocess_option
@value_option
@logits_option
@poor_option
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Which split.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most this many images.")
@click.option(
    "--paper-steps",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="Steps of the paper's PGD and DeepFool (40 MNIST, 7 CIFAR-10).",
)
@click.option(
    "--trust-steps",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Steps of the paper's trust region.",
)
@click.option(
    "--transfer-from",
    multiple=True,
    type=float,
    metavar="KAPPA",
    help="Craft on this kappa too (paper, figure 7). Repeatable.",
)
@seed_option
@device_option
@click.option(
    "--replay-provider",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where ONNX Runtime runs every image again: the provider that will serve.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Samples in memory at once; results do not depend on it.  [default: 256, and 10,000 on CUDA]",
)
@click.option(
    "--shard",
    default="1/1",
    show_default=True,
    metavar="K/N",
    help="Do the K-th of N parts; jr-onnx report merges them.",
)
@click.option(
    "--black-box", is_flag=True, help="Only attacks that need no gradients: the model runs in ONNX Runtime alone."
)
@click.option("--save-adversarial", is_flag=True, help="Save adversarial examples as .npz.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for results; a run goes on where it was.  [default: MODEL.attack beside it]",
)
@json_option
@click.pass_context
def command(context: click.Context, /, as_json: bool, **given: Any) -> None:
    """Attack MODEL and its retrofit with the same suite, and say what the results are worth.

    MODEL is an original (give --kappa, --kappa-map or --random) or a retrofit; any other classifier is attacked alone.
    Every adversarial example is run again
    through ONNX Runtime on the file that would be served, and the figures are that file's. A verdict says whether
    gradients were masked.
    """
    from jr_onnx.errors import require

    require("torch", "attack")
    from jr_onnx.attack.suite.run import run
    from jr_onnx.attack.suite.setup import prepare
    from jr_onnx.cli.evaluation import show
    from jr_onnx.cli.progress import progress, resumable
    from jr_onnx.evaluation.store import Store, merged
    from jr_onnx.evaluation.summary import evaluate
    from jr_onnx.modelfile import atomic_write
    from jr_onnx.records import dumps

    _refuse_ignored(context, given)
    request = _request(given)
    prepared = prepare(request)
    for note in prepared.notes:
        say(f"note: {note}")
    store = Store(request.out)
    store.open(prepared.record)
    with resumable(), progress("attacking") as notify:
        run(prepared.work, store, lambda state: notify(state.done, state.total, state.unit, state.left_s))
    evaluation = evaluate(*merged([request.out]))
    atomic_write(request.out / "evaluation.json", [dumps(evaluation).encode()])
    if as_json:
        print_json(evaluation)
    else:
        show(evaluation)
    say(f"results: {request.out}; {next_step('report', request.out)}")


def _refuse_ignored(context: click.Context, given: dict[str, Any]) -> None:
    """Refuse options that the chosen suite does not look at, rather than let them be believed."""
    from jr_onnx.errors import InputError

    suite, ignored = given["suite_name"], []
    if suite == "paper" and not given["transfer_from"]:
        ignored += ["norm", "eps", "units"]
    if suite == "adaptive" or given["black_box"]:
        ignored += ["paper_steps", "trust_steps"]
    if given["black_box"]:
        ignored += ["transfer_from"]
    named = [
        f"--{name.replace('_', '-')}"
        for name in ignored
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
    ]
    if suite == "paper" and given["black_box"]:
        raise InputError(
            "no attack of the suite paper is a black-box attack", hint="Use --suite adaptive with --black-box"
        )
    if named:
        way = "--black-box" if given["black_box"] and suite != "paper" else f"the suite {suite}"
        raise InputError(
            f"{' and '.join(named)} would change nothing: {way} does not use {'it' if len(named) == 1 else 'them'}",
            hint="Leave it out, or choose another --suite",
        )


def _request(given: dict[str, Any]) -> AttackRequest:
    from jr_onnx.attack.suite.plan import PaperSettings
    from jr_onnx.attack.suite.run import Shard
    from jr_onnx.attack.suite.setup import AttackRequest
    from jr_onnx.cli.named_values import parse_values
    from jr_onnx.data import Preprocessing
    from jr_onnx.modelfile import name_of

    model: Path = given["model"]
    eps = given["eps"]
    if given["units"] == "paper":
        eps *= _pixel_per_unit(Preprocessing.parse(given["preprocess"]))
    check_budget(given["norm"], eps)
    name_of(model)
    out = output_folder(given["out"] if given["out"] is not None else model.with_name(f"{model.stem}.attack"))
    shard = Shard.parse(given["shard"])  # before the data, which takes longer to read
    data, preprocessing = read_data(given["spec"], given["preprocess"], split=given["split"], limit=given["limit"])
    return AttackRequest(
        model=model,
        plan=_plan(given),
        data=data,
        suite=given["suite_name"],
        norm=given["norm"],
        eps=eps,
        out=out,
        preprocessing=preprocessing,
        seed=given["seed"],
        device=given["device"],
        batch=given["batch"],
        shard=shard,
        transfer_from=given["transfer_from"],
        paper=PaperSettings(steps=given["paper_steps"], trust_steps=given["trust_steps"]),
        keep=given["save_adversarial"],
        black_box=given["black_box"],
        values=parse_values(given["values"]),
        logits=given["logits"],
        force=given["force"],
        replay_provider=given["replay_provider"],
    )


def _plan(given: dict[str, Any]) -> KappaPlan | None:
    from jr_onnx.kappa import DEFAULT_INPUT_NAME, KappaPlan, RandomKappa, read_kappa_map

    by_site = read_kappa_map(given["kappa_map"]) if given["kappa_map"] is not None else {}
    if given["kappa"] is None and not by_site and not given["random_range"]:
        return None
    random = RandomKappa(*given["random_range"]) if given["random_range"] else None
    return KappaPlan(given["kappa"], tuple(by_site.items()), random, DEFAULT_INPUT_NAME if random else None)


def _pixel_per_unit(preprocessing: Any) -> float:
    from jr_onnx.errors import InputError

    spread = set(preprocessing.std)
    if len(spread) != 1:
        raise InputError(
            "one normalised eps means different pixel differences here: the channels have the deviations "
            f"{preprocessing.std}",
            hint="Give --eps in pixel scale (--units pixel)",
        )
    low, high = preprocessing.range
    return float(spread.pop()) / float(high - low)

"""`jr-onnx tune`: which kappa, and whether any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jr_onnx.cli.options import (
    check_budget,
    check_outputs,
    data_option,
    device_option,
    eps_option,
    logits_option,
    model_argument,
    norm_option,
    poor_option,
    preprocess_option,
    read_data,
    seed_option,
    value_option,
)
from jr_onnx.cli.output import json_option, next_step, print_json, print_table, say, tell

_TEST_IMAGES = 1000

if TYPE_CHECKING:
    from jr_onnx.data import ImageData
    from jr_onnx.tune import TunePoint, TuneResult


@click.command("tune")
@model_argument
@data_option
@click.option(
    "--max-accuracy-drop", default="1%", show_default=True, help="Largest loss of clean accuracy, such as 1% or 0.01."
)
@click.option(
    "--objective",
    type=click.Choice(["adaptive", "paper"]),
    default="adaptive",
    show_default=True,
    help="Robust accuracy against adaptive attacks, or the paper's DeepFool perturbation (figure 4; not adaptive).",
)
@click.option("--grid", help="Kappas to try, such as 0.1,0.2,0.5.  [default: quantiles of the pre-activations]")
@click.option("--per-site", is_flag=True, help="Search a kappa for every site, starting from the best common one.")
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How often --per-site goes over all sites at most; it ends when a round changes nothing.",
)
@norm_option("linf", "l2")
@eps_option
@click.option("--steps", type=click.IntRange(min=1), default=30, show_default=True, help="Steps per adaptive attack.")
@click.option(
    "--black-box",
    is_flag=True,
    help="Square against ONNX Runtime instead of adaptive attacks; needs --grid, no torch twin.",
)
@click.option(
    "--queries", type=click.IntRange(min=1), default=1000, show_default=True, help="Queries per image with --black-box."
)
@preprocess_option
@value_option
@logits_option
@poor_option
@click.option("--limit", type=click.IntRange(min=1), default=200, show_default=True, help="Images to attack.")
@seed_option
@device_option
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Draw the trade-off (.png, .svg), as the paper's figure 4."
)
@click.option("--kappa-map", type=click.Path(path_type=Path), help="Write the recommended kappa of every site as JSON.")
@json_option
def command(model: Path, as_json: bool, plot: Path | None, kappa_map: Path | None, **given: Any) -> None:
    """Choose the kappa of MODEL on the validation split, which jr-onnx attack does not touch.

    Clean accuracy is measured on the whole split, the objective on its first images. The recommendation is kappa 0
    unless a paired test shows a gain within the allowed loss of accuracy.
    """
    from jr_onnx.cli.named_values import parse_values
    from jr_onnx.cli.progress import progress
    from jr_onnx.errors import require
    from jr_onnx.modelfile import atomic_write

    require("torch", "attack")
    from jr_onnx.tune import Objective, TuneRequest, tune

    check_budget(given["norm"], given["eps"])
    check_outputs(kappa_map, plot=plot)
    grid, max_drop = _grid(given["grid"]), _share(given["max_accuracy_drop"])
    data, preprocessing = read_data(given["spec"], given["preprocess"], split="validation")
    request = TuneRequest(
        model=model,
        data=data,
        objective=Objective(
            _objective(given),
            given["norm"],
            given["eps"],
            steps=given["steps"],
            queries=given["queries"],
            seed=given["seed"],
        ),
        attacked=given["limit"],
        preprocessing=preprocessing,
        grid=grid,
        max_drop=max_drop,
        per_site=given["per_site"],
        rounds=given["rounds"],
        device=given["device"],
        values=parse_values(given["values"]),
        logits=given["logits"],
        test=_test_images(given),
        force=given["force"],
    )
    with progress("tuning") as notify:
        result = tune(request, notify)
    for note in result.notes:
        say(f"note: {note}")
    if as_json:
        print_json(result)
    else:
        _show(result)
    chosen = result.points[result.recommended]
    if kappa_map is not None:
        atomic_write(kappa_map, [(json.dumps(chosen.kappas, indent=2) + "\n").encode()])
    if plot is not None:
        _plot(result, plot)
    step = _step(model, chosen, kappa_map)
    if step:
        say(step)


def _test_images(given: dict[str, Any]) -> ImageData | None:
    """Return some images of the test split, to compare accuracies with; None where the data have none."""
    from jr_onnx.data import Preprocessing, load
    from jr_onnx.errors import DataError

    try:
        return load(
            given["spec"], split="test", limit=_TEST_IMAGES, preprocessing=Preprocessing.parse(given["preprocess"])
        )
    except DataError:
        return None


def _step(model: Path, chosen: TunePoint, kappa_map: Path | None) -> str:
    """Say what to do with a recommendation; kappa 0 asks for nothing."""
    from jr_onnx import provenance
    from jr_onnx.modelfile import load

    again = ("--replace",) if provenance.read(load(model).proto) is not None else ()
    if chosen.kappa is not None:
        # All digits of a float32: what is recommended is what was measured.
        return next_step("rewrite", model, *again, "--kappa", f"{chosen.kappa:.9g}") if chosen.kappa else ""
    if kappa_map is None:
        return "note: run it again with --kappa-map FILE to have these kappas as a file for jr-onnx rewrite"
    return next_step("rewrite", model, *again, "--kappa-map", kappa_map)


def _objective(given: dict[str, Any]) -> Any:
    from jr_onnx.errors import InputError

    if not given["black_box"]:
        return given["objective"]
    if given["objective"] == "paper":
        raise InputError("--black-box does not go with --objective paper, whose DeepFool needs gradients")
    return "black-box"


def _grid(text: str | None) -> tuple[float, ...]:
    from jr_onnx.errors import InputError

    if text is None:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--grid is {text!r}, expected numbers such as 0.1,0.2,0.5") from None


def _share(text: str) -> float:
    from jr_onnx.errors import InputError

    number, sign, rest = text.strip().partition("%")
    try:
        value = float(number) / (100 if sign else 1)
    except ValueError:
        value = -1.0
    if rest or not 0 <= value <= 1:
        raise InputError(f"--max-accuracy-drop is {text!r}, expected a share such as 1% or 0.01")
    return value


def _show(result: TuneResult) -> None:
    print_table(
        ("kappa", "clean", "drop", result.objective, "gain", "95 %", "p", ""),
        [
            (
                f"{point.kappa:g}" if point.kappa is not None else "per site",
                f"{point.clean:.2%}",
                f"{point.drop:.2%}",
                f"{point.objective:.2%}",
                f"{point.gain:+.2%}",
                f"{point.low:+.2%} to {point.high:+.2%}",
                f"{point.p_value:.2g}",
                ("recommended" if place == result.recommended else "") if point.allowed else "costs too much",
            )
            for place, point in enumerate(result.points)
        ],
        title=f"{result.model} on {result.data}: {result.measure}, {result.attacked} of {result.samples} images; "
        f"logits: {result.logits}",
    )
    chosen = result.points[result.recommended]
    if chosen.kappa is None:
        tell("\nrecommendation: a kappa per site: " + ", ".join(f"{k}={v:g}" for k, v in chosen.kappas.items()))
    else:
        tell(f"\nrecommendation: kappa {chosen.kappa:g}")
    tell(f"reason: {result.reason}")


def _plot(result: TuneResult, path: Path) -> None:
    from jr_onnx.errors import OutputError, blaming
    from jr_onnx.modelfile import atomic_path
    from jr_onnx.report.plots import trade_off

    points = [point for point in result.points if point.kappa is not None]
    chosen = result.points[result.recommended].kappa
    figure = trade_off(
        [point.kappa or 0.0 for point in points],
        [point.clean for point in points],
        [point.objective for point in points],
        result.measure,
        is_share=result.objective == "adaptive",
        chosen=chosen,
    )
    hint = "Use a name ending in .png or .svg"
    with blaming(f"cannot write the plot {path}", OutputError, hint=hint), atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower().removeprefix("."), dpi=150)

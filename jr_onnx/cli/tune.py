"""`jr-onnx tune`: which kappa, and whether any."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from jr_onnx.cli.command import cli_command, option, renamed_option
from jr_onnx.cli.options import (
    DataArguments,
    check_budget,
    check_outputs,
    data_options,
    device_option,
    eps_option,
    model_argument,
    norm_option,
    output_option,
    result_option,
    seed_option,
)
from jr_onnx.cli.output import json_option, next_step, print_json, print_lines, print_message, print_table, write_result
from jr_onnx.cli.types import COUNT, PATH

_TEST_IMAGES = 1000

if TYPE_CHECKING:
    from jr_onnx.data import ImageData
    from jr_onnx.tune import TunePoint, TuneResult
    from jr_onnx.tune.objective import ObjectiveName


@dataclass(frozen=True, kw_only=True)
class Arguments(DataArguments):
    """The arguments and options of `jr-onnx tune`."""

    model: Path
    max_accuracy_drop: str
    objective: Literal["adaptive", "paper"]
    grid: str | None
    candidate: tuple[Path, ...]
    per_site: bool
    passes: int
    norm: Literal["linf", "l2"]
    eps: float
    steps: int
    black_box: bool
    queries: int
    limit: int
    seed: int
    device: str
    output: Path | None
    result: Path | None
    plot: Path | None
    as_json: bool


@cli_command(
    "tune",
    Arguments,
    examples=(
        "jr-onnx tune model.onnx --grid 0.1,0.5 --limit 20 --steps 5 --result tune.json",
        "jr-onnx tune model.onnx --grid 0.1,0.5 --limit 20 --steps 5 --per-site --passes 1 -o kappas.json",
    ),
)
@model_argument
@data_options
@option(
    "--max-accuracy-drop", default="1%", metavar="SHARE", help="Largest loss of clean accuracy, such as 1% or 0.01."
)
@option(
    "--objective",
    type=click.Choice(["adaptive", "paper"]),
    default="adaptive",
    help="Robust accuracy against adaptive attacks, or the paper's DeepFool perturbation (figure 4; not adaptive).",
)
@option(
    "--grid",
    metavar="NUMBER,...",
    show_default="quantiles of the pre-activations",
    help="Kappas to try, such as 0.1,0.2,0.5.",
)
@option(
    "--candidate",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Also measure the kappas of this map, as rewrite --kappa-map takes it, lists of one for each channel of a "
    "site included. Repeatable.",
)
@option("--per-site", is_flag=True, help="Search a kappa for every site, starting from the best setting measured.")
@option(
    "--passes",
    type=COUNT,
    default=3,
    help="Most passes of --per-site over all sites; it ends when a pass changes nothing.",
)
@norm_option("linf", "l2")
@eps_option()
@option("--steps", type=COUNT, default=30, help="Steps of each adaptive attack.")
@option("--black-box", is_flag=True, help="Attack ONNX Runtime with Square instead, without gradients; needs --grid.")
@option("--queries", type=COUNT, default=1000, help="Queries per image with --black-box.")
@option("--limit", type=COUNT, default=200, help="Attack at most this many images.")
@seed_option
@device_option
@output_option("Write the recommended kappas as a map for jr-onnx rewrite --kappa-map.")
@renamed_option("--rounds", "--passes", type=COUNT)
@renamed_option("--kappa-map", "--output", type=PATH)
@result_option
@option("--plot", type=PATH, help="Draw the trade-off (.png, .svg, .pdf), as in the paper's figure 4.")
@json_option
def command(given: Arguments) -> None:
    """Choose a kappa for MODEL on the validation split, which jr-onnx attack does not use.

    Clean accuracy is measured on the whole split, the objective on its first images. The recommendation is kappa 0
    unless a paired test shows a gain within the allowed loss of accuracy.
    """
    from jr_onnx.cli.progress import progress
    from jr_onnx.errors import require
    from jr_onnx.kappa import read_kappa_map
    from jr_onnx.modelfile import atomic_write

    require("torch", "attack")
    from jr_onnx.tune import Objective, TuneRequest, tune_kappa

    check_budget(given.norm, given.eps)
    check_outputs(given.output, given.result, plot=given.plot)
    grid, max_drop = _grid(given.grid), _share(given.max_accuracy_drop)
    data, preprocessing = given.read(split="validation")
    request = TuneRequest(
        model=given.model,
        data=data,
        objective=Objective(
            _objective(given),
            given.norm,
            given.eps,
            steps=given.steps,
            queries=given.queries,
            seed=given.seed,
        ),
        attacked=given.limit,
        preprocessing=preprocessing,
        grid=grid,
        candidates={str(path): read_kappa_map(path) for path in given.candidate},
        max_drop=max_drop,
        per_site=given.per_site,
        passes=given.passes,
        device=given.device,
        values=given.values,
        logits=given.logits,
        test=_test_images(given),
        force=given.allow_poor_accuracy,
    )
    with progress("tuning") as notify:
        result = tune_kappa(request, notify)
    for note in result.notes:
        print_message(f"note: {note}")
    if given.as_json:
        print_json(result)
    else:
        _show(result)
    chosen = result.points[result.recommended]
    if given.output is not None:
        atomic_write(given.output, [(json.dumps(chosen.kappas, indent=2) + "\n").encode()])
    write_result(result, given.result)
    if given.plot is not None:
        _plot(result, given.plot)
    step = _step(given.model, chosen, given.output)
    if step:
        print_message(step)


def _test_images(given: Arguments) -> ImageData | None:
    """Return some images of the test split, to compare accuracies with; None where the data have none."""
    from jr_onnx.data import Preprocessing, load
    from jr_onnx.errors import DataError

    preprocessing = Preprocessing.parse(given.preprocess)
    try:
        return load(given.data, split="test", limit=_TEST_IMAGES, preprocessing=preprocessing)
    except DataError:
        return None


def _step(model: Path, chosen: TunePoint, kappa_map: Path | None) -> str:
    """Return the command that applies a recommendation, "" where it is kappa 0."""
    from jr_onnx import provenance
    from jr_onnx.modelfile import load

    again = ("--replace",) if provenance.read(load(model).proto) is not None else ()
    if chosen.kappa is not None:
        # All digits of a float32: what is recommended is what was measured.
        return next_step("rewrite", model, *again, "--kappa", f"{chosen.kappa:.9g}") if chosen.kappa else ""
    if kappa_map is None:
        return "note: run it again with --output FILE to write these kappas for jr-onnx rewrite --kappa-map"
    return next_step("rewrite", model, *again, "--kappa-map", kappa_map)


def _objective(given: Arguments) -> ObjectiveName:
    from jr_onnx.errors import InputError

    if not given.black_box:
        return given.objective
    if given.objective == "paper":
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
    from jr_onnx.results.tuning import COLUMNS, rows
    from jr_onnx.semantics import kappa_label

    print_table(
        COLUMNS,
        rows(result),
        title=f"{result.model} on {result.data}: {result.measure}, {result.attacked} of {result.samples} images; "
        f"logits: {result.logits}",
    )
    chosen = result.points[result.recommended]
    each = ", ".join(f"{site}={kappa_label(kappa)}" for site, kappa in chosen.kappas.items())
    print_lines(f"\nrecommendation: {chosen.description}{f': {each}' if chosen.kappa is None else ''}")
    print_lines(f"reason: {result.reason}")


def _plot(result: TuneResult, path: Path) -> None:
    from jr_onnx.report.svg import write_figure
    from jr_onnx.tune.plot import draw

    write_figure(draw(result), path)

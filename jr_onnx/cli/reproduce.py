"""`jr-onnx reproduce`: the paper's tables and figures, measured anew."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jr_onnx.cli.options import PATH, device_option, output_folder
from jr_onnx.cli.output import json_option, print_json_of, print_table, say

if TYPE_CHECKING:
    from jr_onnx.reproduce.catalogue import State
    from jr_onnx.reproduce.result import ItemResult


@click.command("reproduce")
@click.option("--list", "only_list", is_flag=True, help="Show every table and figure, what works and what is open.")
@click.option("--table", "tables", multiple=True, metavar="N", help="A table, such as 1a or 2. Repeatable.")
@click.option("--figure", "figures", multiple=True, metavar="N", help="A figure, such as 4a or 7. Repeatable.")
@click.option(
    "--checkpoints",
    "folders",
    multiple=True,
    type=PATH,
    help="Folder with lenet_like_base.onnx, alex_like_robust.onnx, ...; the first that has a file wins. Repeatable.",
)
@click.option("--data", "specs", multiple=True, metavar="KIND:DIR", help="mnist:DIR or cifar10:DIR. Repeatable.")
@click.option("--attacks", default="pgd,df,df2,tr", show_default=True, help="Columns of the tables to measure.")
@click.option(
    "--limit", type=click.IntRange(min=1), help="Test images for the paper's PGD and DeepFool.  [default: all]"
)
@click.option(
    "--trust-limit", type=click.IntRange(min=1), default=1000, show_default=True, help="The same for the trust region."
)
@click.option(
    "--adaptive-limit",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="The same for adaptive attacks, random kappas, sweeps and the detector.",
)
@device_option
@click.option("--shard", default="1/1", show_default=True, metavar="K/N", help="Do the K-th of N parts, all into -o.")
@click.option(
    "-o", "--output", "out", type=PATH, default=Path("reproduction"), show_default=True, help="Result folder."
)
@json_option
def command(only_list: bool, as_json: bool, **given: Any) -> None:
    """Measure the paper's tables and figures anew; without --table and --figure, all of them.

    Each gives a record (JSON), its cells (CSV) and a picture (SVG, PNG) with the paper's value beside the measured one,
    and says what an attacker who knows the defence achieves. An interrupted run goes on where it was.
    """
    from jr_onnx.errors import InputError, require
    from jr_onnx.reproduce.catalogue import chosen, states

    specs = _specs(given["specs"])
    missing = next((folder for folder in given["folders"] if not folder.is_dir()), None)
    if missing is not None:
        raise InputError(f"the checkpoints {missing} are no folder", hint="Give a folder with ONNX files")
    wanted = states(chosen(given["tables"], given["figures"]), given["folders"], specs)
    if only_list:
        _show_list(wanted)
        return
    if all(state.open for state in wanted):
        raise InputError(
            f"nothing can be made: {wanted[0].item.name}: {wanted[0].open}", hint="See jr-onnx reproduce --list"
        )
    require("torch", "attack")
    require("matplotlib", "report")
    results = _make(wanted, specs, given)
    if as_json:
        print_json_of({result.item: result for result in results})
    for state in wanted:
        if state.open:
            say(f"open: {state.item.name}: {state.open}")


def _make(wanted: list[State], specs: dict[str, str], given: dict[str, Any]) -> list[ItemResult]:
    from jr_onnx.attack.suite.run import Shard
    from jr_onnx.cli.progress import progress, resumable
    from jr_onnx.reproduce.measuring import Bench
    from jr_onnx.reproduce.run import reproduce

    results = []
    with resumable(), progress("reproducing") as notify:
        bench = Bench(
            out=output_folder(given["out"]),
            specs=specs,
            limit=given["limit"],
            trust_limit=given["trust_limit"],
            adaptive_limit=given["adaptive_limit"],
            attacks=_attacks(given["attacks"]),
            device=given["device"],
            shard=Shard.parse(given["shard"]),
            notify=lambda title, state: notify(state.done, state.total, f"{title}: {state.unit}", state.left_s),
            command=shlex.join(["jr-onnx", *sys.argv[1:]]),
        )
        for state, result, paths in reproduce(bench, wanted):
            if result is None:
                say(f"{state.item.name}: this shard is done; the item is written when all shards are")
                continue
            results.append(result)
            say(f"{result.item}: {', '.join(str(path) for path in paths)}")
    return results


def _show_list(wanted: list[State]) -> None:
    rows = []
    for state in wanted:
        how = f"open: {state.open}" if state.open else "works"
        files = ", ".join(item.path.name for item in state.checkpoints)
        rows.append((state.item.name, state.item.what, f"{how} ({files})" if files and not state.open else how))
    print_table(("item", "what", "state"), rows)


def _specs(given: tuple[str, ...]) -> dict[str, str]:
    from jr_onnx.errors import InputError

    found = {}
    for spec in given:
        kind, colon, _ = spec.partition(":")
        if kind not in ("mnist", "cifar10") or not colon:
            raise InputError(f"--data is {spec!r}, expected mnist:DIR or cifar10:DIR")
        found[kind] = spec
    return found


def _attacks(text: str) -> tuple[str, ...]:
    from jr_onnx.errors import InputError
    from jr_onnx.reproduce.paper import ATTACKS

    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in ATTACKS]
    if unknown or not names:
        raise InputError(f"--attacks is {text!r}, expected some of {', '.join(ATTACKS)} with commas between")
    return tuple(name for name in ATTACKS if name in names)

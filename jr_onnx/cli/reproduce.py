"""`jr-onnx reproduce`: the paper's tables and figures, reproduced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jr_onnx.cli.command import cli_command, option
from jr_onnx.cli.options import device_option, output_folder, output_option
from jr_onnx.cli.output import command_line, json_option, print_json_of, print_message, print_table
from jr_onnx.cli.types import COUNT, PATH, Count, Words

if TYPE_CHECKING:
    from jr_onnx.attack.suite.run import Progress
    from jr_onnx.cli.progress import Notify
    from jr_onnx.reproduce.catalogue import State
    from jr_onnx.reproduce.result import ItemResult

_DEFAULT_FOLDER = Path("reproduction")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments and options of `jr-onnx reproduce`."""

    only_list: bool
    tables: tuple[str, ...]
    figures: tuple[str, ...]
    folders: tuple[Path, ...]
    specs: tuple[str, ...]
    attacks: tuple[str, ...]
    limit: int | None
    deepfool_limit: int | None
    trust_limit: int
    adaptive_limit: int
    eot_limit: int
    device: str
    shard: str
    output: Path | None
    page: Path | None
    as_json: bool


@cli_command(
    "reproduce", Arguments, examples=("jr-onnx reproduce --list", "jr-onnx reproduce --figure 3 -o reproduction")
)
@option("--list", "only_list", is_flag=True, help="Show every table and figure, and whether it can be made.")
@option("--table", "tables", multiple=True, metavar="N", help="A table, such as 1a or 2. Repeatable.")
@option("--figure", "figures", multiple=True, metavar="N", help="A figure, such as 4a or 7. Repeatable.")
@option(
    "--checkpoints",
    "folders",
    multiple=True,
    type=PATH,
    help="Folder with lenet_like_base.onnx, alex_like_robust.onnx and so on (in a checkout, models/exported); the "
    "first folder that has a file wins. Repeatable.",
)
@option("--data", "specs", multiple=True, metavar="KIND:DIR", help="mnist:DIR or cifar10:DIR. Repeatable.")
@option("--attacks", type=Words(), default="pgd,df,df2,tr", help="Columns of the tables to measure.")
@option("--limit", type=COUNT, show_default="all", help="Test images for everything, at most.")
@option("--deepfool-limit", type=COUNT, show_default="all", help="Test images for the paper's DeepFool.")
@option("--trust-limit", type=COUNT, default=1000, help="Test images for the paper's trust region.")
@option(
    "--adaptive-limit",
    type=Count(min=0),
    default=500,
    help="Test images for adaptive attacks, random kappas, figures and the detector; 0 leaves the adaptive columns of "
    "tables 1 and 2 out, and with them everything else that needs such attacks.",
)
@option(
    "--eot-limit",
    type=COUNT,
    default=100,
    help="Test images for gradients averaged over random kappas (table 4), the slowest attack; never more than "
    "--adaptive-limit.",
)
@device_option
@option("--shard", default="1/1", metavar="K/N", help="Run part K of N; all write to the same folder.")
@output_option("The folder of the results.", default=str(_DEFAULT_FOLDER))
@option("--page", type=PATH, help="Also write everything in the folder as one page in Markdown.")
@json_option
def command(given: Arguments) -> None:
    """Reproduce the tables and figures of the JumpReLU paper: all of them, or those of --table and --figure.

    Each gives a record (JSON), its cells (CSV) and a picture (SVG, PNG), with the paper's value beside the measured
    one and what an attacker who knows the defence achieves. An interrupted run resumes.
    """
    from jr_onnx.errors import InputError, require
    from jr_onnx.reproduce.catalogue import chosen, states

    specs = _specs(given.specs)
    missing = next((folder for folder in given.folders if not folder.is_dir()), None)
    if missing is not None:
        raise InputError(f"{missing} is not a folder, expected one with ONNX files", hint="Check --checkpoints")
    wanted = states(chosen(given.tables, given.figures), given.folders, specs, adaptive=given.adaptive_limit > 0)
    if given.only_list:
        _show_list(wanted)
        return
    if all(state.reason for state in wanted):
        raise InputError(
            f"{wanted[0].item.name} cannot be made: {wanted[0].reason}", hint="See jr-onnx reproduce --list"
        )
    require("torch", "attack")
    require("matplotlib", "report")
    results = _make(wanted, specs, given)
    if given.page is not None:
        _write_page(given.output or _DEFAULT_FOLDER, given.page)
    if given.as_json:
        print_json_of({result.item: result for result in results})
    for state in wanted:
        if state.reason:
            print_message(f"note: {state.item.name} was not made: {state.reason}")


def _make(wanted: Sequence[State], specs: Mapping[str, str], given: Arguments) -> list[ItemResult]:
    from jr_onnx.attack.suite.run import Shard
    from jr_onnx.cli.progress import resumable
    from jr_onnx.reproduce.measuring import Bench
    from jr_onnx.reproduce.run import reproduce

    results = []
    with resumable(), ExitStack() as shown:
        notify = _StudyProgress(shown)
        bench = Bench(
            out=output_folder(given.output or _DEFAULT_FOLDER),
            specs=specs,
            limit=given.limit,
            deepfool_limit=given.deepfool_limit,
            trust_limit=given.trust_limit,
            adaptive_limit=given.adaptive_limit,
            eot_limit=given.eot_limit,
            attacks=_attacks(given.attacks),
            device=given.device,
            shard=Shard.parse(given.shard),
            notify=notify,
            command=command_line(),
        )
        for state, result, paths in reproduce(bench, wanted):
            if result is None:
                print_message(f"{state.item.name}: this shard is done; the last one to finish writes the item")
                continue
            results.append(result)
            if not given.as_json:
                _show(result)
            print_message(f"{result.item}: {', '.join(str(path) for path in paths)}")
    return results


def _write_page(folder: Path, path: Path) -> None:
    from jr_onnx.modelfile import atomic_write
    from jr_onnx.reproduce.page import page

    atomic_write(path, [page(folder, path).encode()])
    print_message(f"page: {path}")


class _StudyProgress:
    """Shows one study at a time: a checkpoint under certain attacks."""

    def __init__(self, shown: ExitStack) -> None:
        self.shown, self.title = shown, ""
        self.notify: Notify | None = None

    def __call__(self, title: str, state: Progress) -> None:
        """Note a finished unit, or that a study begins."""
        from jr_onnx.cli.progress import progress

        if self.notify is None or title != self.title:
            self.shown.close()
            self.title, self.notify = title, self.shown.enter_context(progress(title))
        self.notify(state.done, state.total, state.unit, state.left_s)


def _show_list(wanted: Sequence[State]) -> None:
    rows = []
    for state in wanted:
        how = f"open: {state.reason}" if state.reason else "works"
        files = ", ".join(item.path.name for item in state.checkpoints)
        rows.append((state.item.name, state.item.what, f"{how} ({files})" if files and not state.reason else how))
    print_table(("item", "what", "state"), rows)


def _show(result: ItemResult) -> None:
    """Print a table as a table; of a figure, how many points it has, for they are in the CSV file."""
    from jr_onnx.reproduce.drawing import text_of

    if result.layout != "table":
        print_table(("item", "what", "points"), [(result.item, result.title, str(len(result.cells)))])
        return
    rows = [(row, *(text_of(result.at(row, column)) for column in result.columns)) for row in result.rows]
    print_table(("per cent, paper / here", *result.columns), rows, title=result.title)


def _specs(given: Sequence[str]) -> dict[str, str]:
    from jr_onnx.errors import InputError

    found = {}
    for spec in given:
        kind, colon, _ = spec.partition(":")
        if kind not in ("mnist", "cifar10") or not colon:
            raise InputError(f"--data is {spec!r}, expected mnist:DIR or cifar10:DIR")
        found[kind] = spec
    return found


def _attacks(names: Sequence[str]) -> tuple[str, ...]:
    from jr_onnx.errors import InputError
    from jr_onnx.reproduce.paper import ATTACKS

    if not names or any(name not in ATTACKS for name in names):
        raise InputError(
            f"--attacks is {','.join(names)!r}, expected some of {', '.join(ATTACKS)}, with commas between"
        )
    return tuple(name for name in ATTACKS if name in names)

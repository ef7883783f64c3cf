"""Write docs/commands from the help of the command line: a page for every command, and one that lists them all.

python -m tools.command_pages           say which pages are out of date
python -m tools.command_pages --write   write them
"""

from __future__ import annotations

import argparse
import html
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from jr_onnx.cli.app import COMMANDS, GROUPS, app
from jr_onnx.cli.command import Command
from jr_onnx.errors import EXIT_CODES

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "commands"
WIDTH = 120
_OPTION = re.compile(r"(?<![\w`-])(--[a-z][a-z-]*\w)")


def commands() -> dict[str, tuple[Command, click.Context]]:
    """Return every command under its whole name (`package triton`), with a context to make its help in."""
    root = click.Context(app, info_name="jr-onnx", **app.context_settings)
    found: dict[str, tuple[Command, click.Context]] = {}
    for name in COMMANDS:
        command = app.get_command(root, name)
        if command is None:
            raise LookupError(f"the table names {name!r}, which is not a command")
        found |= dict(_leaves(command, click.Context(command, info_name=name, parent=root)))
    return found


def _leaves(command: click.Command, context: click.Context) -> Iterator[tuple[str, tuple[Command, click.Context]]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _leaves(child, click.Context(child, info_name=name, parent=context))
    elif not isinstance(command, Command):
        raise TypeError(f"{context.command_path} is not made with cli_command")
    else:
        yield context.command_path.removeprefix("jr-onnx "), (command, context)


def pages() -> dict[str, str]:
    """Return the text of every page by its file name."""
    found = commands()
    texts = {"README.md": _index({name: command for name, (command, _) in found.items()})}
    for name, (command, context) in found.items():
        texts[f"{name.replace(' ', '-')}.md"] = _page(name, command, context)
    return texts


def _index(found: Mapping[str, Command]) -> str:
    lines = ["# Commands", "", "`jr-onnx COMMAND --help` prints the same as these pages.", ""]
    for group, listed in GROUPS.items():
        lines += [f"## {group}", "", "| command | what it does |", "|---|---|"]
        for name, command in found.items():
            if name.split()[0] in listed:
                text = listed.get(name) or (command.help or "").partition("\n\n")[0]
                lines.append(f"| [`{name}`]({name.replace(' ', '-')}.md) | {_marked(' '.join(text.split()))} |")
        lines.append("")
    lines += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(lines) + "\n"


def _page(name: str, command: Command, context: click.Context) -> str:
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"# `jr-onnx {name}`", "", "```text", f"jr-onnx {name} {usage}", "```", ""]
    for part in inspect.cleandoc(command.help or "").split("\n\n"):
        lines += [*textwrap.wrap(_marked(part), WIDTH, break_long_words=False, break_on_hyphens=False), ""]
    options = [item for item in command.params if isinstance(item, click.Option)]
    rows = [(item, record) for item in options if (record := item.get_help_record(context)) is not None]
    if rows:
        lines += ["| option | meaning | default |", "|---|---|---|"]
        lines += [_row(option, *record) for option, record in rows]
        lines.append("")
    lines += ["```sh", *command.examples, "```", ""]
    lines.append("All commands, and what their exit codes mean: [Commands](README.md).")
    return "\n".join(lines) + "\n"


def _row(option: click.Option, names: str, text: str) -> str:
    """Return an option as a row: click appends `[default: X; x>=1]` or `[required]` to its help."""
    meaning, _, extra = text.partition("  [")
    default, notes = "", []
    for part in extra.removesuffix("]").split("; "):
        if part.startswith("default: "):
            default = part.removeprefix("default: ")
        elif part:
            notes.append(part)
    if default and not isinstance(option.show_default, str):  # a value, not words
        default = _code(default)
    meaning += f" ({', '.join(notes)})" if notes else ""
    return f"| {_code(names)} | {_cell(_marked(meaning))} | {default} |"


def _code(text: str) -> str:
    """Return code for a cell of a table; Markdown's readers disagree on a bar between backticks there."""
    return f"<code>{html.escape(text, quote=False).replace('|', '&#124;')}</code>"


def _marked(text: str) -> str:
    """Return prose with options and arguments as code, which Markdown would otherwise read as dashes or tags."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _OPTION.sub(r"`\1`", part) for part in parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def main() -> int:
    """Compare or write the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the pages, and delete those of no command")
    write = parser.parse_args().write
    texts = pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    stale = [name for name, text in texts.items() if there.get(name) != text]
    gone = sorted(there.keys() - texts.keys())
    if not write:
        sys.stdout.writelines(f"docs/commands/{name} is out of date\n" for name in (*stale, *gone))
        return 1 if stale or gone else 0
    for name in stale:
        (FOLDER / name).write_text(texts[name], encoding="utf-8")
    for name in gone:
        (FOLDER / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())

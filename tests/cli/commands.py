"""All commands of the command line, those of a group by their whole name: `package triton`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from jr_onnx.cli.app import COMMANDS, app
from jr_onnx.cli.command import Command


def leaves(command: click.Command, name: str) -> Iterator[tuple[str, Command]]:
    """Yield the commands below one, with their names."""
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from leaves(child, f"{name} {child.name}")
    else:
        assert isinstance(command, Command), f"{name} is not made with cli_command"
        yield name, command


def _all() -> Iterator[tuple[str, Command]]:
    for name in COMMANDS:
        command = app.get_command(click.Context(app), name)
        assert command is not None
        yield from leaves(command, name)


LEAVES = dict(_all())


def help_of(name: str) -> str:
    """Return what `jr-onnx NAME --help` prints."""
    context = click.Context(app, info_name="jr-onnx", **app.context_settings)
    *groups, last = name.split()
    for word in groups:
        context = click.Context(click.Group(word), info_name=word, parent=context)
    return LEAVES[name].get_help(click.Context(LEAVES[name], info_name=last, parent=context))

"""All commands of the command line, those of a group by their whole name: `package triton`."""

from __future__ import annotations

from tools.command_pages import commands

_FOUND = commands()
LEAVES = {name: command for name, (command, _) in _FOUND.items()}


def help_of(name: str) -> str:
    """Return what `jr-onnx NAME --help` prints."""
    command, context = _FOUND[name]
    return command.get_help(context)

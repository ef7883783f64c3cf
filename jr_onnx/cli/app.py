"""The root command: lists the commands without importing them, and turns errors into one line and an exit code."""

from __future__ import annotations

import gc
import importlib
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from jr_onnx._version import __version__
from jr_onnx.errors import EXIT_CODES, JrError, PrintableFormatter, printable_lines

_OUTPUT_EXIT = 74  # as sysexits.h calls an error of input or output
_MANY_OBJECTS = {"inspect", "rewrite", "fuse", "restore", "verify"}
# Group -> command -> the line that `jr-onnx --help` shows without importing the command's module.
GROUPS: dict[str, dict[str, str]] = {
    "Rewrite and prove": {
        "inspect": "List every ReLU of a model: what can be rewritten, what cannot and why.",
        "rewrite": "Replace the ReLUs of a model with JumpReLU, and change nothing else.",
        "fuse": "Make one operator of every jump that a model has itself, with its own thresholds.",
        "restore": "Undo a rewrite: restore the original model.",
        "verify": "Prove that a retrofit computes what it should.",
    },
    "Measure robustness": {
        "attack": "Attack a model and its retrofit, and say what the results are worth.",
        "report": "Merge the results of attack and other commands, and write them as one page.",
        "tune": "Choose kappa on validation data, and say whether any is worth it.",
        "detect": "Test a detector of adversarial examples on a model and its retrofit.",
        "reproduce": "Reproduce the tables and figures of the JumpReLU paper.",
    },
    "Make it harder to fool": {
        "harden": "Train the weights of a model against attacks, and change nothing else.",
    },
    "Make it fast": {
        "bench": "Measure what a retrofit costs, against its original, in one interleaved run.",
        "optimize": "Save a retrofit as ONNX Runtime optimised it for this host.",
    },
    "Deploy": {
        "package": "Write a package for an inference server: Triton, KServe or Docker Compose.",
        "verify-package": "Check that a package is what was packaged, and by whom.",
        "serve": "Serve models over REST and gRPC, as Triton and KServe do.",
    },
    "This installation": {
        "doctor": "Show versions, providers, what is built and what is missing.",
    },
}
COMMANDS: dict[str, str] = {
    name: f"jr_onnx.cli.{name.replace('-', '_')}" for commands in GROUPS.values() for name in commands
}
"""Command -> the module that holds it."""
_NAME_WIDTH = max(map(len, COMMANDS))


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the work, not of the alphabet."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name]}.command is not a click command")
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; a broken pipe, which click takes for that of the output and exits silently, is an error.

        Raises:
            OSError: A pipe to another process broke. The output never raises (`jr_onnx.cli.streams`).
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise OSError("a pipe to another process broke") from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups of commands from the table above, importing none of them."""
        del ctx
        for group, commands in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(f"{name:<{_NAME_WIDTH}}", line) for name, line in commands.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes."""
        del ctx
        with formatter.section("Exit codes"):
            formatter.write_dl([(f"{code:<{_NAME_WIDTH}}", meaning) for code, meaning in EXIT_CODES.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100},
)
@click.version_option(__version__, prog_name="jr-onnx")
@click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback when something fails.")
def app() -> None:
    """Retrofit JumpReLU into exported ONNX classifiers, and measure what it buys.

    Every command has its own --help, with an example.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    from jr_onnx.cli.streams import output_failure, protect_standard_streams

    protect_standard_streams()
    if logging.lastResort is not None:  # prints warnings if logging is not configured
        logging.lastResort.setFormatter(PrintableFormatter())
    _collect_rarely(sys.argv[1:] if arguments is None else arguments)
    code = run(arguments)
    failure = output_failure()
    if failure is not None and code == 0:
        code = _fail(f"the output cannot be written: {failure.strerror or failure}", _OUTPUT_EXIT, debug=False)
    sys.exit(code)


def _collect_rarely(words: Sequence[str]) -> None:
    """Run Python's garbage collector rarely, for a command that makes millions of objects and no cycles.

    At its usual rate it would take a sixth of the time on a model of many nodes.
    """
    if next((word for word in words if not word.startswith("-")), "") in _MANY_OBJECTS:
        gc.set_threshold(100_000, 50, 100)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        result: Any = app.main(args=words, prog_name="jr-onnx", standalone_mode=False, obj=words)
        return result if isinstance(result, int) else 0
    except getattr(click.exceptions, "NoArgsIsHelpError", ()) as error:
        _print_error(error.format_message())
        return int(error.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f". {context.command_path} --help lists the options" if context is not None else ""
        return _fail(error.format_message().rstrip(".") + hint, error.exit_code, debug=debug)
    except (click.Abort, KeyboardInterrupt):
        _print_error("jr-onnx: interrupted")
        return 130
    except JrError as error:
        return _fail(str(error), error.exit_code, debug=debug)
    except MemoryError:
        return _fail("out of memory", 71, debug=debug)
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}", _OUTPUT_EXIT, debug=debug)
    except Exception as error:  # noqa: BLE001 - the last resort: a defect still gets one line
        text = f"internal error: {type(error).__name__}: {error}. Run again with --debug and report it"
        return _fail(text, 70, debug=debug)


def _fail(text: str, exit_code: int, *, debug: bool) -> int:
    if debug:
        _print_error(traceback.format_exc())
    _print_error("jr-onnx: " + " ".join(text.split()))
    return exit_code


def _print_error(text: str) -> None:
    click.echo(printable_lines(text), err=True)

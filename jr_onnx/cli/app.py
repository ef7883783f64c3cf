"""The root command: lists the commands without importing them, and turns errors into one line and an exit code."""

from __future__ import annotations

import gc
import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from jr_onnx._version import __version__
from jr_onnx.errors import JrError, PrintableFormatter, printable_lines

_OUTPUT_EXIT = 74  # as sysexits.h calls an error of input or output
_MANY_OBJECTS = {"inspect", "rewrite", "restore", "verify"}
# Command -> module, and the line that `jr-onnx --help` shows without importing that module.
COMMANDS: dict[str, tuple[str, str]] = {
    "inspect": ("jr_onnx.cli.inspect", "List every ReLU of a model, and what cannot be rewritten and why."),
    "rewrite": ("jr_onnx.cli.rewrite", "Replace the ReLUs of a model by JumpReLU, and change nothing else."),
    "restore": ("jr_onnx.cli.restore", "Undo a rewrite: give the original model back."),
    "verify": ("jr_onnx.cli.verify", "Prove that a retrofit computes what it should."),
    "optimize": ("jr_onnx.cli.optimize", "Save a retrofit as ONNX Runtime optimised it for this host."),
    "bench": ("jr_onnx.cli.bench", "Measure what a retrofit costs, against its original, in one interleaved run."),
    "package": ("jr_onnx.cli.package", "Bring a model to an inference server: Triton, KServe or compose."),
    "verify-package": ("jr_onnx.cli.verify_package", "Check that a package is what was packaged, and by whom."),
    "serve": ("jr_onnx.cli.serve", "Answer requests over REST and gRPC, as Triton and KServe speak them."),
    "attack": ("jr_onnx.cli.attack", "Attack a model and its retrofit, and say what the results are worth."),
    "detect": ("jr_onnx.cli.detect", "Test a detector of adversarial examples on a model and its retrofit."),
    "tune": ("jr_onnx.cli.tune", "Choose kappa on validation data, and say whether any is worth it."),
    "report": ("jr_onnx.cli.report", "Write the results of an attack, all shards together, as one HTML page."),
    "doctor": ("jr_onnx.cli.doctor", "Show versions, providers, what is built and what is missing."),
}


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
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name][0]}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table above, importing none of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jr-onnx")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
@click.pass_context
def app(ctx: click.Context, debug: bool) -> None:
    """Retrofit JumpReLU into exported ONNX classifiers, and know what it buys."""
    ctx.obj = {"debug": debug}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    from jr_onnx.cli.streams import output_failure, protect_standard_streams

    protect_standard_streams()
    if logging.lastResort is not None:  # what prints warnings where nobody has set up logging
        logging.lastResort.setFormatter(PrintableFormatter())
    _collect_seldom(sys.argv[1:] if arguments is None else arguments)
    code = run(arguments)
    failure = output_failure()
    if failure is not None and code == 0:
        code = _fail(f"the output cannot be written: {failure.strerror or failure}", _OUTPUT_EXIT, debug=False)
    sys.exit(code)


def _collect_seldom(words: Sequence[str]) -> None:
    """Have Python look for unreachable cycles seldom, where a command makes objects by the million and no cycles.

    Looking through them all again and again would be a sixth of the time that a model of many nodes takes.
    """
    if next((word for word in words if not word.startswith("-")), "") in _MANY_OBJECTS:
        gc.set_threshold(100_000, 50, 100)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        result: Any = app.main(args=words, prog_name="jr-onnx", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(file=shown)  # it repeats words of the command line, which may be names of files
        _say(shown.getvalue().rstrip("\n"))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("jr-onnx: interrupted")
        return 130
    except BrokenPipeError:
        # The reader has gone (`jr-onnx inspect ... | head`); keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
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
        _say(traceback.format_exc())
    _say("jr-onnx: " + " ".join(text.split()))
    return exit_code


def _say(text: str) -> None:
    click.echo(printable_lines(text), err=True)

"""What every command is made with: typed arguments, examples at the end of the help, and old spellings that warn.

@dataclass(frozen=True, kw_only=True)
class Arguments(DataArguments):  # the fields of `data_options`, and the command's own
    model: Path
    kappa: float | None

@cli_command("attack", Arguments, examples=("jr-onnx attack model.onnx --kappa 0.5",))
@model_argument
@data_options
@option("--kappa", type=float, help="...")
@renamed_option("--jump", "--kappa", type=float)
def command(given: Arguments) -> None:
    '''Attack MODEL and its retrofit.'''
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jr_onnx.cli.output import print_message

if TYPE_CHECKING:
    from click.types import OptionHelpExtra

_Arguments = TypeVar("_Arguments")
_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


class Command(click.Command):
    """A command whose help ends with examples.

    Attributes:
        examples: Command lines that run as they stand in a folder with a model.onnx.
        arguments: The type that holds the command's arguments and options.
        new_flags: Flags that took a value in an earlier release -> the option that takes it now.
    """

    def __init__(
        self,
        name: str | None,
        *,
        callback: Callable[..., object] | None = None,
        params: list[click.Parameter] | None = None,
        help: str | None = None,  # noqa: A002 - as click names it
        examples: Sequence[str],
        arguments: type[object],
        new_flags: Mapping[str, str],
    ) -> None:
        super().__init__(name, callback=callback, params=params, help=help)
        self.examples = tuple(examples)
        self.arguments = arguments
        self.new_flags = dict(new_flags)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words; say what to write where a flag is given the value that it took in an earlier release."""
        words = list(args)  # click empties its list
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            for flag, option in self.new_flags.items():
                value = _refused_value(flag, words, error)
                if value is not None:
                    raise click.UsageError(f"{flag} takes no value any more, write {option} {value}", ctx) from error
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, one a line and never wrapped, so that they can be copied."""
        del ctx
        with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class Option(click.Option):
    """An option as the help shows it: numbers as NUMBER, a default in words like a value, without parentheses."""

    def make_metavar(self, ctx: click.Context) -> str:
        """Return what stands for the value."""
        return "NUMBER" if self.metavar is None and self.type is click.FLOAT else super().make_metavar(ctx)

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        """Return what follows the text of the help."""
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        return extra


def option(*names: str, **settings: object) -> Callable[[_Decorated], _Decorated]:
    """Add an option to a command, as `click.option` does."""
    return click.option(*names, cls=Option, **settings)


class RenamedOption(click.Option):
    """An old spelling of an option: hidden from the help, accepted for one more release with a warning."""

    def __init__(
        self,
        param_decls: Sequence[str] | None = None,
        *,
        type: click.ParamType[object] | None = None,  # noqa: A002 - as click names it
        is_flag: bool | None = None,
        help: str | None = None,  # noqa: A002 - as click names it
        new: str,
        target: str,
        convert: Callable[..., object],
    ) -> None:
        super().__init__(param_decls, type=type, is_flag=is_flag, help=help, hidden=True)
        self.new, self.target, self.convert = new, target, convert


def renamed_option(
    old: str,
    new: str,
    *,
    convert: Callable[..., object] = lambda value: value,
    type: click.ParamType[object] | None = None,  # noqa: A002 - as click names it
    is_flag: bool | None = None,
) -> Callable[[_Decorated], _Decorated]:
    """Accept the old spelling of an option for one more release.

    Args:
        old: The old spelling, such as `--out`.
        new: The new one, such as `--output`.
        convert: Makes the new option's value of the old one's.
        type: Of the old option's value.
        is_flag: Whether the old option takes no value.
    """
    target, old_name = (name.removeprefix("--").replace("-", "_") for name in (new, old))
    return click.option(
        old,
        f"old_{old_name}",
        cls=RenamedOption,
        new=new,
        target=target,
        convert=convert,
        help=f"Old spelling of {new}.",
        type=type,
        is_flag=is_flag,
    )


def cli_command(
    name: str,
    arguments: Callable[..., _Arguments],
    *,
    examples: Sequence[str],
    new_flags: Mapping[str, str] | None = None,
) -> Callable[[Callable[[_Arguments], int | None]], Command]:
    """Make a command of a function that takes one typed object.

    Args:
        name: The command's name.
        arguments: A dataclass with a field for every argument and option of the command.
        examples: Command lines for the end of the help. `tests/cli/test_examples.py` runs them.
        new_flags: Flags that took a value in an earlier release -> the option that takes it now.
    """

    def decorate(function: Callable[[_Arguments], int | None]) -> Command:
        @functools.wraps(function)
        def call(**given: Any) -> int | None:
            return function(arguments(**_renamed(click.get_current_context(), given)))

        made: Command = click.command(
            name, cls=Command, examples=examples, arguments=arguments, new_flags=new_flags or {}
        )(call)
        return made

    return decorate


def _refused_value(flag: str, words: Sequence[str], error: click.UsageError) -> str | None:
    """Return the value of a flag in `--json FILE` or `--json=FILE` if it is what click refused, else None."""
    if isinstance(error, click.BadOptionUsage) and error.option_name == flag:
        return next((word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")), None)
    following = (after for word, after in itertools.pairwise(words) if word == flag)
    return next((value for value in following if error.message.endswith(f"({value})")), None)


def was_given(name: str) -> bool:
    """Tell whether an option was given on the command line, rather than left at its default.

    Args:
        name: The name of its value.
    """
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def _renamed(context: click.Context, given: dict[str, Any]) -> dict[str, Any]:
    """Return the values with those of old spellings under their new names, each with a warning.

    Raises:
        click.UsageError: An option was given in both spellings.
    """
    for option in context.command.params:
        if not isinstance(option, RenamedOption):
            continue
        value = given.pop(str(option.name))
        if not was_given(str(option.name)):
            continue
        if was_given(option.target):
            raise click.UsageError(f"{option.opts[0]} is the old spelling of {option.new}, give only the latter")
        print_message(
            f"warning: {option.opts[0]} is now {option.new}; the old spelling will be removed in the next release"
        )
        given[option.target] = option.convert(value)
    return given

"""What every command is made with: typed arguments, examples, old spellings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from jr_onnx.cli import app as app_module
from jr_onnx.cli.command import RenamedOption, cli_command, renamed_option
from jr_onnx.cli.types import PATH
from tests.cli.commands import LEAVES, help_of
from tests.cli.conftest import Outcome

Jr = Callable[..., Outcome]


@pytest.mark.parametrize("name", LEAVES)
def test_the_arguments_are_the_parameters(name: str) -> None:
    command = LEAVES[name]
    fields = {field.name for field in dataclasses.fields(command.arguments)}  # type: ignore[arg-type] # a dataclass
    assert fields == {item.name for item in command.params if not isinstance(item, RenamedOption)}


@pytest.mark.parametrize("name", LEAVES)
def test_the_help_ends_with_examples(name: str) -> None:
    command = LEAVES[name]
    assert command.examples
    lines = help_of(name).splitlines()
    title = "Example:" if len(command.examples) == 1 else "Examples:"
    assert lines[-1 - len(command.examples) :] == [title, *(f"  {line}" for line in command.examples)]
    assert all(line.startswith(f"jr-onnx {name} ") or line == f"jr-onnx {name}" for line in command.examples)


@pytest.mark.parametrize("name", LEAVES)
def test_a_default_is_written_in_one_way(name: str) -> None:
    for item in LEAVES[name].params:
        if isinstance(item, click.Option):
            text = (item.help or "").lower()
            assert item.help, item.opts
            assert "default:" not in text, f"{item.opts[0]}: give show_default"
            assert "without it" not in text, f"{item.opts[0]}: give show_default"
    assert "[default: (" not in " ".join(help_of(name).split())


@pytest.mark.parametrize("name", LEAVES)
def test_one_word_means_one_thing(name: str) -> None:
    options = {
        word: item
        for item in LEAVES[name].params
        if isinstance(item, click.Option) and not item.hidden
        for word in item.opts
    }
    if "--json" in options:
        assert options["--json"].is_flag
    assert ("-o" in options) == ("--output" in options)
    assert not {"--out", "--providers", "--target", "--accelerator"} & set(options)
    if "--force" in options:
        assert options["--force"].help is not None
        assert options["--force"].help.startswith("Replace ")
    if "--provider" in options and isinstance(options["--provider"].type, click.Choice):
        assert set(options["--provider"].type.choices) <= {"cpu", "cuda", "tensorrt"}
    if "--device" in options:
        assert options["--device"].help == "Where torch computes."
    if "--gpus" in options:
        assert options["--gpus"].type.name == "N,..."
    if "--kappa-map" in options:
        assert "file with a kappa for each site" in (options["--kappa-map"].help or "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    output: Path | None
    provider: str
    loud: bool


@cli_command("example", Arguments, examples=("jr-onnx example",), new_flags={"--loud": "--output"})
@click.option("-o", "--output", type=PATH, help="What is written.")
@click.option("--provider", default="cpu", help="Where.")
@click.option("--loud", is_flag=True, help="Loudly.")
@renamed_option("--out", "--output", type=PATH)
@renamed_option("--device", "--provider", convert={"gpu": "cuda"}.__getitem__)
def example(given: Arguments) -> None:
    """Show what was given."""
    click.echo(f"{given.output} {given.provider}")


@pytest.fixture
def run_example(jr: Jr, monkeypatch: pytest.MonkeyPatch) -> Jr:
    monkeypatch.setattr(app_module.LazyGroup, "get_command", lambda *_: example)
    return lambda *words: jr("example", *words)


def test_an_old_spelling_works_and_warns_in_one_line(run_example: Jr) -> None:
    done = run_example("--out", "there", "--device", "gpu")
    assert (done.exit_code, done.out) == (0, "there cuda\n")
    assert done.err == (
        "warning: --out is now --output; the old spelling will be removed in the next release\n"
        "warning: --device is now --provider; the old spelling will be removed in the next release\n"
    )


def test_the_new_spelling_does_not_warn(run_example: Jr) -> None:
    done = run_example("-o", "there")
    assert (done.exit_code, done.out, done.err) == (0, "there cpu\n", "")


def test_both_spellings_are_refused(run_example: Jr) -> None:
    done = run_example("-o", "here", "--out", "there")
    assert (done.exit_code, done.out) == (2, "")
    assert "--out is the old spelling of --output, give only the latter" in done.err


def test_an_old_spelling_is_not_in_the_help(run_example: Jr) -> None:
    shown = run_example("--help").out
    assert "--output" in shown
    assert "--out " not in shown
    assert "--device" not in shown


@pytest.mark.parametrize("words", [["--loud", "there"], ["--loud=there"]])
def test_the_value_of_what_is_a_flag_now_is_refused_with_what_to_write(run_example: Jr, words: list[str]) -> None:
    done = run_example(*words)
    assert (done.exit_code, done.out) == (2, "")
    assert "--loud takes no value any more, write --output there" in done.err


@pytest.mark.parametrize("words", [["--loud", "--unknown"], ["there", "--loud"], ["--unknown", "--loud", "there"]])
def test_another_mistake_beside_a_new_flag_keeps_its_message(run_example: Jr, words: list[str]) -> None:
    done = run_example(*words)
    assert (done.exit_code, done.out) == (2, "")
    assert "takes no value any more" not in done.err


@pytest.mark.parametrize(
    ("command", "flag", "option"), [("bench", "--json", "--output"), ("triton", "--op-library", "--op-library-file")]
)
def test_flags_that_took_a_file_name_the_option_that_takes_it(command: str, flag: str, option: str) -> None:
    made = next(made for name, made in LEAVES.items() if name.split()[-1] == command)
    named = {spelling for parameter in made.params for spelling in parameter.opts}
    assert made.new_flags == {flag: option}
    assert {flag, option} <= named

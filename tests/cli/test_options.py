"""Options that commands share: one spelling, one meaning, one answer to nonsense."""

from __future__ import annotations

from pathlib import Path

import pytest

from jr_onnx.cli import options
from jr_onnx.cli.command import RenamedOption
from jr_onnx.deploy.releases import DEFAULT_RELEASE
from jr_onnx.errors import OutputError
from tests.cli.commands import LEAVES


def test_the_release_is_that_of_the_package() -> None:
    assert options.TRITON_RELEASE == DEFAULT_RELEASE


@pytest.mark.parametrize("command", ["attack", "tune", "detect", "verify"])
@pytest.mark.parametrize("spelling", ["--preprocess", "--preprocessing"])
def test_preprocessing_has_one_name_in_all_commands(jr, command: str, spelling: str) -> None:
    outcome = jr(command, "model.onnx", spelling, "sepia")
    assert "no such option" not in outcome.err.lower()


@pytest.mark.parametrize("command", ["attack", "tune", "detect", "verify", "bench"])
def test_a_negative_seed_is_refused(jr, command: str) -> None:
    outcome = jr(command, "model.onnx", "--seed", -1)
    assert outcome.exit_code == 2
    assert "--seed" in outcome.err


@pytest.mark.parametrize(
    ("command", "option", "words"),
    [
        ("verify", "--shape", ("x=1", "x=2")),
        ("bench", "--shape", ("x=1,2", "x=1,2")),
        ("attack", "--value", ("keep_prob=1", "keep_prob=0.5")),
        ("package triton", "--warmup-shape", ("x=1", "x=2")),
    ],
)
def test_a_name_that_stands_twice_is_refused(jr, command: str, option: str, words: tuple[str, str]) -> None:
    outcome = jr(*command.split(), "model.onnx", option, words[0], option, words[1])
    assert outcome.exit_code == 2
    assert f"'{option}': '{words[0].partition('=')[0]}' is given twice" in outcome.err


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("attack", "--out", "--output"),
        ("attack", "--batch", "--chunk"),
        ("attack", "--replay-provider", "--provider"),
        ("attack", "--force", "--allow-poor-accuracy"),
        ("tune", "--kappa-map", "--output"),
        ("tune", "--force", "--allow-poor-accuracy"),
        ("detect", "--force", "--allow-poor-accuracy"),
        ("tune", "--rounds", "--passes"),
        ("harden", "--batch", "--batch-size"),
        ("harden", "--labels", "--labels-from"),
        ("bench", "--providers", "--provider"),
        ("rewrite", "--target", "--provider"),
        ("optimize", "--target", "--provider"),
        ("package triton", "--with-op-library", "--op-library"),
        ("package triton", "--delay-us", "--batch-delay-us"),
        ("package triton", "--device", "--provider"),
        ("package triton", "--accelerator", "--provider"),
        ("package kserve", "--gpus", "--gpus-per-replica"),
    ],
)
def test_an_old_spelling_leads_to_an_option_of_the_command(command: str, old: str, new: str) -> None:
    found = {item.opts[0]: item for item in LEAVES[command].params if isinstance(item, RenamedOption)}[old]
    assert found.new == new
    target = next(item for item in LEAVES[command].params if new in item.opts)
    assert found.target == target.name
    assert (found.is_flag, found.nargs) == (target.is_flag, target.nargs)  # type: ignore[attr-defined] # an option


def test_an_old_spelling_of_an_output_is_used(jr, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for words in (
        ("attack", "model.onnx", "--kappa", 1, "--out", taken),
        ("tune", "model.onnx", "--kappa-map", tmp_path),
    ):
        outcome = jr(*words)
        assert outcome.exit_code == 2
        warning, error = outcome.err.splitlines()
        assert warning == (
            f"warning: {words[-2]} is now --output; the old spelling will be removed in the next release"
        )
        assert str(words[-1]) in error


def test_an_old_target_becomes_a_provider(jr, model: Path) -> None:
    for target, lowering in (("portable", "thresholded"), ("cuda", "custom")):
        outcome = jr("rewrite", model, "--kappa", 1, "--target", target, "--dry-run")
        assert (outcome.exit_code, outcome.out.splitlines()[1].split()[-1]) == (0, lowering)
        assert "--target is now --provider" in outcome.err


def test_a_bad_budget_is_one_line(jr) -> None:
    outcome = jr("attack", "model.onnx", "--eps", "8%")
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert outcome.err == (
        "jr-onnx: Invalid value for '--eps': '8%', expected a positive number or fraction, for instance 8/255. "
        "jr-onnx attack --help lists the options\n"
    )


@pytest.mark.parametrize("command", ["attack", "tune", "detect"])
@pytest.mark.parametrize(("eps", "said"), [("8", "For pixels from 0 to 255 give --eps 8/255"), ("300", "below 1")])
def test_a_budget_for_bytes_is_recognised(jr, command: str, eps: str, said: str) -> None:
    more = ["--kappa", 1] if command != "tune" else []
    outcome = jr(command, "model.onnx", "--eps", eps, *more)
    assert outcome.exit_code == 2
    assert said in outcome.err
    options.check_budget("l2", 8.0)
    options.check_budget("linf", 1.0)


def test_results_cannot_go_into_a_file(jr, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for out in (taken, taken / "below" / "it"):
        outcome = jr("attack", "model.onnx", "--kappa", 1, "--limit", 1, "-o", out)
        assert outcome.exit_code == 2
        assert f"{taken} is a file" in outcome.err
    assert taken.read_text() == "mine"
    assert options.output_folder(tmp_path / "new" / "one") == tmp_path / "new" / "one"


@pytest.mark.parametrize("command", ["tune", "bench"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--plot", "figure.jpgg"], "the plot figure.jpgg ends in '.jpgg'. Use one of .png, .svg, .pdf"),
        (["--plot", "missing/figure.png"], "the folder missing does not exist"),
        (["--plot", "/dev/null"], "/dev/null is a device or a pipe"),
    ],
)
def test_outputs_are_refused_before_the_work(jr, command: str, words: list[str], said: str) -> None:
    pytest.importorskip("matplotlib")
    outcome = jr(command, "model.onnx", *words)
    assert outcome.exit_code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_further_outputs_are_refused_before_the_work(jr, tmp_path: Path) -> None:
    for words in (["tune", "model.onnx", "-o"], ["bench", "model.onnx", "-o"]):
        outcome = jr(*words, tmp_path)
        assert outcome.exit_code == 2
        assert f"{tmp_path} is a directory, expected a file name" in outcome.err


def test_a_read_only_folder_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options.os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(OutputError, match=r"cannot write .*x\.json: its folder is read-only"):
        options.check_outputs(tmp_path / "x.json")


def test_the_default_budget_is_doubted_in_other_norms(capsys: pytest.CaptureFixture[str]) -> None:
    options.check_budget("linf", 8 / 255)
    options.check_budget("l2", 0.5)
    assert capsys.readouterr().err == ""
    options.check_budget("l2", 8 / 255)
    assert "in l2, which sums over the pixels, it is next to nothing" in capsys.readouterr().err

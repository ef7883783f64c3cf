"""Options that commands share: one spelling, one meaning, one answer to nonsense."""

from __future__ import annotations

import pytest

from jr_onnx.cli import options
from jr_onnx.deploy.releases import DEFAULT_RELEASE
from jr_onnx.errors import InputError


def test_the_release_is_that_of_the_package() -> None:
    assert options.TRITON_RELEASE == DEFAULT_RELEASE


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0.1", 0.1), ("1/4", 0.25)])
def test_a_budget_is_a_number_or_a_fraction(text: str, value: float) -> None:
    assert options.fraction(text) == value


@pytest.mark.parametrize("text", ["", "0", "-0.1", "nan", "inf", "1/0", "8/255/2", "8%"])
def test_a_budget_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected a positive number or fraction"):
        options.fraction(text)


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


def test_a_bad_budget_is_one_line(jr) -> None:
    outcome = jr("attack", "model.onnx", "--eps", "8%")
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert outcome.err == "jr-onnx: --eps is '8%', expected a positive number or fraction, for instance 8/255\n"

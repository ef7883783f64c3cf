"""Options that are not finite numbers, or out of range, are refused at once, in one line."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Any

import pytest

from jr_onnx.cli.app import run
from jr_onnx.errors import InputError
from jr_onnx.serve import options
from jr_onnx.serve.options import Limits, Running

OF_CLASS: dict[type[Any], dict[str, tuple[str, float, float]]] = {
    Limits: options._LIMIT_RANGES,
    Running: options._RUNNING_RANGES,
}


def numbers(kind: type[Any]) -> set[str]:
    """Return the fields of a class that hold a number."""
    hints = typing.get_type_hints(kind)
    return {
        field.name for field in dataclasses.fields(kind) if hints[field.name] in (int, float, int | None, float | None)
    }


@pytest.mark.parametrize("kind", OF_CLASS)
def test_every_number_has_a_range(kind: type[Any]) -> None:
    assert numbers(kind) == set(OF_CLASS[kind])
    default = kind()
    for name, (_, low, high) in OF_CLASS[kind].items():
        value = getattr(default, name)
        assert value is None or low <= value <= high


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**30, -1])
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in OF_CLASS for name in sorted(numbers(kind))])
def test_no_number_outside_its_range_is_taken(kind: Callable[..., Any], name: str, value: float) -> None:
    with pytest.raises(InputError, match=r" is .*, expected [\d.]+ to "):
        kind(**{name: value})


@pytest.mark.parametrize(
    "words",
    [
        ("--timeout", "nan"), ("--drain", "inf"), ("--drain-delay", "nan"), ("--timeout", "1e300"),
        ("--max-queue", "1000000000000"), ("--max-body-mib", "2048", "--max-total-mib", "4096"),
        ("--max-rows", str(10**12)), ("--threads", "100000"), ("--instances", str(10**9)), ("--batch-delay-us", "-1"),
        ("--http-port", "65536"), ("--max-json-mib", "0"), ("--max-batch", str(2**40)),
    ],
)  # fmt: skip
def test_the_command_says_so_in_one_line(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "model.onnx", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("jr-onnx: ")
    assert said.count("\n") == 1

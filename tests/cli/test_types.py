"""Types of option values: what is understood, and what is refused with an example."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import click
import pytest

from jr_onnx.cli.types import COUNT, Budget, DateOrTime, NamedNumber, NamedShape, Numbers, Words


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Budget(), "8/255", 8 / 255),
        (Budget(), "0.1", 0.1),
        (Budget(), "1/4", 0.25),
        (Numbers(), "0", (0,)),
        (Numbers(), "1, 8", (1, 8)),
        (Words(), "plain, optimised", ("plain", "optimised")),
        (Words(), ",", ()),
        (NamedShape(), "x=3,224,224", ("x", (3, 224, 224))),
        (NamedShape(), "a=b:0=1", ("a=b:0", (1,))),
        (NamedShape(), "n=", ("n", ())),
        (NamedNumber(), "a=b=2.5", ("a=b", 2.5)),
        (NamedNumber(), "training=False", ("training", 0.0)),
        (NamedNumber(), "is_training=true", ("is_training", 1.0)),
        (DateOrTime(), "2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        (DateOrTime(), "2026-11-01T12:00:00+01:00", datetime(2026, 11, 1, 12, tzinfo=timezone(timedelta(hours=1)))),
    ],
)
def test_a_value_is_understood(kind: click.ParamType, text: str, value: object) -> None:
    found = kind.convert(text, None, None)
    assert found == value
    assert kind.convert(found, None, None) == value, "a default may be a value that is converted already"


@pytest.mark.parametrize(
    ("kind", "texts", "message"),
    [
        (Budget(), ["", "0", "-0.1", "nan", "inf", "1/0", "8/255/2", "8%"], "expected a positive number or fraction"),
        (Numbers(), ["", "a", "1;2", "1,,2", "-1", "1.5", "²"], "expected whole numbers separated by commas"),
        (NamedShape(), ["3,8,8", "=3", "x:3,8,8"], "expected a name and sizes"),
        (NamedNumber(), ["x", "=1", "x=one", "x="], "expected a name and a number"),
        (NamedShape(), ["x=3,b", "x=-1"], "expected whole numbers separated by commas"),
        (DateOrTime(), ["", "yesterday", "2026-13-01"], "expected a date or a time"),
    ],
)
def test_a_value_is_refused(kind: click.ParamType, texts: list[str], message: str) -> None:
    for text in texts:
        with pytest.raises(click.BadParameter, match=message):
            kind.convert(text, None, None)


def test_a_number_that_no_record_holds_is_refused() -> None:
    assert COUNT.convert(str(2**63 - 1), None, None) == 2**63 - 1
    with pytest.raises(click.BadParameter, match="too large"):
        COUNT.convert(str(2**63), None, None)

"""Types of option values: text from the command line, checked and converted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import click

Value = TypeVar("Value")

if TYPE_CHECKING:
    from datetime import datetime

PATH = click.Path(path_type=Path)


class Integer(click.types.IntParamType):
    """A whole number, shown as N in the help."""

    name = "N"


class Count(click.IntRange):
    """A whole number within bounds, shown as N in the help; of 63 bits at most, as records hold no longer one."""

    name = "N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse a number, and refuse one that a result could not be read back with."""
        number = super().convert(cast("int", value), param, ctx)  # declared too narrowly by click
        if number >= 1 << 63:
            self.fail(f"{number} is too large, expected less than 2 to the power of 63", param, ctx)
        return number


INTEGER = Integer()
COUNT = Count(min=1)
"""A whole number of at least one."""


class DateOrTime(click.ParamType["datetime"]):
    """A date or a time, in UTC where no zone is named."""

    name = "DATE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse 2026-11-01 or 2026-11-01T12:00:00Z."""
        from datetime import UTC, datetime

        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r}, expected a date or a time, for instance 2026-11-01T12:00:00Z", param, ctx)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class Words(click.ParamType[tuple[str, ...]]):
    """Words separated by commas."""

    name = "NAME,..."

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parse plain,optimised into ("plain", "optimised")."""
        del param, ctx
        if isinstance(value, tuple):
            return value
        return tuple(word.strip() for word in str(value).split(",") if word.strip())


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers separated by commas."""

    name = "N,..."

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse 0,1 into (0, 1)."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and part.isascii() for part in parts):
            self.fail(f"{value!r}, expected whole numbers separated by commas, for instance 0,1", param, ctx)
        return tuple(int(part) for part in parts)


class NamedShape(click.ParamType[tuple[str, tuple[int, ...]]]):
    """An input's name and sizes, the sizes after the last equals sign."""

    name = "NAME=N,..."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """Parse x=3,224,224 into ("x", (3, 224, 224)), and x= into ("x", ()), a scalar."""
        if isinstance(value, tuple):
            return value
        name, _, sizes = str(value).rpartition("=")
        if not name:
            self.fail(f"{value!r}, expected a name and sizes, for instance x=3,224,224", param, ctx)
        return name, Numbers().convert(sizes, param, ctx) if sizes else ()


class NamedNumber(click.ParamType[tuple[str, float]]):
    """An input's name and a number, the number after the last equals sign."""

    name = "NAME=NUMBER"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """Parse keep_prob=1 into ("keep_prob", 1.0); true is 1 and false is 0."""
        if isinstance(value, tuple):
            return value
        name, _, text = str(value).rpartition("=")
        try:
            number = {"true": 1.0, "false": 0.0}[text.lower()] if text.lower() in ("true", "false") else float(text)
        except ValueError:
            name, number = "", 0.0
        if not name:
            self.fail(f"{value!r}, expected a name and a number, for instance keep_prob=1", param, ctx)
        return name, number


def by_name(ctx: click.Context, param: click.Parameter, pairs: tuple[tuple[str, Value], ...]) -> dict[str, Value]:
    """Return the pairs of a repeatable option as a dictionary; a callback of that option.

    Raises:
        click.BadParameter: A name is given twice.
    """
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise click.BadParameter(f"{name!r} is given twice", ctx, param)
    return dict(pairs)


class Budget(click.ParamType[float]):
    """The size of a perturbation in pixel scale [0, 1]: a number or a fraction."""

    name = "NUMBER"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse 8/255 or 0.03."""
        import math

        first, slash, second = str(value).partition("/")
        try:
            number = float(first) / float(second) if slash else float(first)
        except (ValueError, ZeroDivisionError):
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            self.fail(f"{value!r}, expected a positive number or fraction, for instance 8/255", param, ctx)
        return number

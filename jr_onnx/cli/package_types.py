"""Types of options that the `package` commands share."""

from __future__ import annotations

from typing import Any

import click


class Numbers(click.ParamType[tuple[int, ...]]):
    """Numbers with commas between."""

    name = "N,N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse 0,1 into (0, 1)."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() and part.isascii() for part in parts):
            self.fail(f"{value!r}, expected numbers with commas between, for instance 0,1", param, ctx)
        return tuple(int(part) for part in parts)


class NamedShape(click.ParamType[tuple[str, tuple[int, ...]]]):
    """An input's name and sizes, the sizes after the last colon."""

    name = "NAME:N,N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """Parse x:3,224,224 into ("x", (3, 224, 224))."""
        if isinstance(value, tuple):
            return value
        name, _, sizes = str(value).rpartition(":")
        if not name:
            self.fail(f"{value!r}, expected a name and sizes, for instance x:3,224,224", param, ctx)
        return name, Numbers().convert(sizes, param, ctx)

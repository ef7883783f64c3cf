"""How far long work is, with the time left, on stderr: a bar on a terminal, about ten plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jr_onnx.cli.output import say
from jr_onnx.errors import printable

Notify = Callable[[int, int, str], None]
"""Takes how many pieces are done, how many there are, and what the last one was."""

LINES = 10


@contextmanager
def progress(title: str) -> Iterator[Notify]:
    """Show progress while the context is open.

    Args:
        title: What is being done.
    """
    if sys.stderr.isatty():
        yield from _bar(title)
    else:
        yield _Lines(title)


def _bar(title: str) -> Iterator[Notify]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(title, total=None)

        def notify(done: int, total: int, what: str) -> None:
            display.update(task, total=total, completed=done, description=escape(printable(f"{title}: {what}")))

        yield notify


class _Lines:
    """Prints a line whenever another tenth is done."""

    def __init__(self, title: str) -> None:
        self.title, self.began, self.shown = title, time.monotonic(), 0
        self.first: int | None = None

    def __call__(self, done: int, total: int, what: str) -> None:
        """Note a finished piece."""
        del what
        if self.first is None:
            self.first = done - 1
        step = done * LINES // max(1, total)
        if step <= self.shown:
            return
        self.shown = step
        passed = time.monotonic() - self.began
        left = passed / max(1, done - self.first) * (total - done)
        say(f"{self.title}: {done} of {total}, {_words(passed)} passed, {_words(left)} left")


def _words(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"

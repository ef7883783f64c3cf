"""Progress of long work on stderr, with the time left: a bar on a terminal, about ten plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from jr_onnx.cli.output import print_message
from jr_onnx.errors import printable

LINES = 10


class Notify(Protocol):
    """Is told about progress."""

    def __call__(self, done: int, total: int, what: str, left_s: float | None = None) -> None:
        """Note a finished piece.

        Args:
            done: Pieces that are done, those of earlier runs included.
            total: All pieces.
            what: The last one; "" for a call before the first piece, which reports what earlier runs did.
            left_s: Seconds that the rest takes; None to take the pieces as equal.
        """


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


@contextmanager
def resumable() -> Iterator[None]:
    """On Ctrl-C, say that nothing is lost; for work of which every finished piece is on disk."""
    try:
        yield
    except KeyboardInterrupt:
        print_message("interrupted: finished work is kept; run the same command again to resume")
        raise


class _Clock:
    """Estimates how long the rest takes."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.earlier: int | None = None

    @property
    def passed_s(self) -> float:
        return time.monotonic() - self.began

    def left(self, done: int, total: int, what: str, left_s: float | None) -> float | None:
        """Return the seconds left, None while there is nothing to go by."""
        if self.earlier is None:
            self.earlier = done - 1 if what else done
        if left_s is not None or done == self.earlier:
            return left_s
        return self.passed_s / (done - self.earlier) * (total - done)


def _bar(title: str) -> Iterator[Notify]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )  # fmt: skip
    clock = _Clock()
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(title, total=None, left="")

        def notify(done: int, total: int, what: str, left_s: float | None = None) -> None:
            left = clock.left(done, total, what, left_s)
            text = "" if left is None else f"{_words(left)} left"
            shown = escape(printable(f"{title}: {what}" if what else title))
            display.update(task, total=total, completed=done, description=shown, left=text)

        yield notify


class _Lines:
    """Prints a line for every tenth of the work."""

    def __init__(self, title: str) -> None:
        self.title, self.clock, self.shown = title, _Clock(), 0

    def __call__(self, done: int, total: int, what: str, left_s: float | None = None) -> None:
        """Note a finished piece."""
        left = self.clock.left(done, total, what, left_s)
        step = done * LINES // max(1, total)
        if not what:
            self.shown = step
            if done:
                print_message(f"{self.title}: {done} of {total} were already done")
        elif step > self.shown:
            self.shown = step
            rest = "" if left is None else f", {_words(left)} left"
            print_message(f"{self.title}: {done} of {total}, {_words(self.clock.passed_s)} elapsed{rest}")


def _words(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"

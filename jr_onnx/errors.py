"""One tree of errors: what is wrong, what to do, and how it maps to an exit code and an HTTP status.

Every error that a user can cause is raised as one of these. The command line prints `message` and `hint` on one
line and exits with `exit_code`; the server answers with `http_status`.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Final

EXIT_CODES: Final[Mapping[int, str]] = {
    0: "success",
    1: "verification failed: outputs disagree, or a graph contradicts its provenance",
    2: "unusable input: a file, an option, data, or a place to write to",
    3: "the model has no ReLU that can be rewritten, or no jump that can be fused",
    4: "refused, because the result would be wrong, slow or surprising",
    5: "something is not installed: an extra, or the op library",
    6: "the model has operators that torch cannot evaluate here",
    7: "a package does not match its manifest or its signature",
    8: "the original does not run on the inputs",
    9: "the sites are proved, but the model could not be run",
    70: "internal error, a defect of jr-onnx: please report it",
    71: "out of memory",
    74: "reading or writing failed, for instance on a full disk",
    130: "interrupted",
}
"""Exit code of the command line -> what it means."""


def printable(text: str) -> str:
    r"""Return a line of text with every control character escaped, so that a terminal shows it and does nothing else.

    Names come from files that anyone may have written: a node called "x\x1b[2J" must not clear the screen.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )


def printable_lines(text: str) -> str:
    """Return several lines of text, each safe to print on a terminal."""
    return "\n".join(printable(line) for line in text.split("\n"))


class PrintableFormatter(logging.Formatter):
    """Formats log lines that are safe to print on a terminal, whatever a file or a client put into them."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, with control characters escaped."""
        return printable_lines(super().format(record))


class JrError(Exception):
    """Base of all errors of this package.

    Attributes:
        message: Which thing, what was found, what was expected.
        hint: What to do about it; may be empty.
    """

    exit_code = 1
    http_status = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Join message and hint into one line that is safe to print on a terminal."""
        return printable_lines(f"{self.message.rstrip('.')}. {self.hint}" if self.hint else self.message)

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the keyword-only hint, and what a subclass adds, when pickled (multiprocessing)."""
        return (_rebuild, (type(self), self.message, self.hint), self.__dict__)


def _rebuild(cls: type[JrError], message: str, hint: str) -> JrError:
    return cls(message, hint=hint)


class InputError(JrError):
    """The user's input (a file, an option, an array) is not usable."""

    exit_code = 2
    http_status = 400


class ModelError(InputError):
    """A file or proto is not a usable ONNX model."""


class KappaError(InputError):
    """A kappa value, map or range is not usable."""


class DataError(InputError):
    """A data set is missing, malformed or does not fit the model."""


class OutputError(InputError):
    """The result cannot be written where it was asked for."""


class NoSiteError(JrError):
    """The model has no ReLU that can be retrofitted."""

    exit_code = 3
    http_status = 400


class RefusalError(JrError):
    """A transformation stops because the result would be wrong, slow or surprising."""

    exit_code = 4
    http_status = 400


class OpsetError(RefusalError):
    """A lowering does not exist at the model's opset; the caller may try to convert the model."""


class ContractError(JrError):
    """A transformation broke its own contract; a defect of this package, caught before anything is written."""

    exit_code = 70


class VerificationError(JrError):
    """Two evaluations that must agree do not."""

    exit_code = 1


class ModelNotRunError(VerificationError):
    """Everything that was compared agrees, but the model itself could not be run, so it is not verified."""

    exit_code = 9


class MissingExtraError(JrError):
    """An optional dependency is not installed."""

    exit_code = 5
    http_status = 501


class OpLibraryError(JrError):
    """The op library is not built, or ONNX Runtime cannot load it."""

    exit_code = 5
    http_status = 501


class UnsupportedOpsError(JrError):
    """A model has operators that a back end cannot evaluate; `ops` lists them all."""

    exit_code = 6
    http_status = 400

    def __init__(self, message: str, *, hint: str = "", ops: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.ops = ops


class IntegrityError(JrError):
    """A package does not match its manifest or signature."""

    exit_code = 7
    http_status = 500


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency or say which extra brings it.

    Args:
        module: Dotted name of the module, for instance `"onnxruntime"`.
        extra: The extra of this package that installs it, for instance `"cpu"`.

    Raises:
        MissingExtraError: The module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not module.startswith(error.name):
            raise
        raise MissingExtraError(
            f"this needs the Python module {module!r}, which is not installed",
            hint=f"Install it with: pip install 'jr-onnx[{extra}]'",
        ) from None


def one_line(found: BaseException | str, limit: int = 400) -> str:
    """Return text, or another library's error, as one line of at most `limit` characters.

    Line breaks and control characters (such as those that move a terminal's cursor) become spaces. An error without
    text gives the name of its class.
    """
    printable = "".join(character if character.isprintable() else " " for character in str(found))
    line = " ".join(printable.split()) or (found if isinstance(found, str) else type(found).__name__)
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


@contextlib.contextmanager
def blaming(what: str, kind: type[JrError] = InputError, *, hint: str = "") -> Iterator[None]:
    """Run a call into another library, and turn whatever it raises into one of these errors.

    On unexpected input a library may raise anything: its own errors, KeyError, RuntimeError.

    Args:
        what: What could not be done with which input; the library's error is appended.
        kind: The error to raise.
        hint: What to do about it.

    Raises:
        JrError: The library raised. Errors of this package and MemoryError pass unchanged.
    """
    try:
        yield
    except (JrError, MemoryError):
        raise
    except Exception as error:
        raise kind(f"{what}: {one_line(error)}", hint=hint) from error


def require_choice(what: str, value: object, known: Sequence[object]) -> None:
    """Refuse a value that is not among the known ones; the command line checks by itself, Python callers do not.

    Raises:
        InputError: It is not.
    """
    if value not in known:
        raise InputError(f"{what} is {value!r}, expected one of {', '.join(map(str, known))}")


def require_number(what: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside a range, NaN included.

    Raises:
        InputError: The value is not from low to high.
    """
    if not low <= value <= high:
        raise InputError(f"{what} is {value}, expected {_plain(low)} to {_plain(high)}")


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"

"""Words of the command line: NAME=1,3,224,224 and NAME=NUMBER."""

from __future__ import annotations

from collections.abc import Iterable

from jr_onnx.errors import InputError

_WORDS = {"true": 1.0, "false": 0.0}


def parse_shapes(words: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Read NAME=1,3,224,224; NAME= is a scalar.

    Raises:
        InputError: Something else, a negative size, or a name that stands twice.
    """
    result: dict[str, tuple[int, ...]] = {}
    for word in words:
        name, text = _split(word, "--shape", "NAME=1,3,224,224", result)
        try:
            shape = tuple(int(part) for part in text.split(",")) if text else ()
        except ValueError:
            raise InputError(f"--shape {word!r} holds no sizes, expected NAME=1,3,224,224") from None
        if any(size < 0 for size in shape):
            raise InputError(f"--shape {word!r} holds a negative size")
        result[name] = shape
    return result


def parse_values(words: Iterable[str]) -> dict[str, float]:
    """Read NAME=NUMBER; true is 1 and false is 0.

    Raises:
        InputError: Something else, or a name that stands twice.
    """
    result: dict[str, float] = {}
    for word in words:
        name, text = _split(word, "--value", "NAME=NUMBER", result)
        try:
            result[name] = _WORDS[text.lower()] if text.lower() in _WORDS else float(text)
        except ValueError:
            raise InputError(f"--value {word!r} holds no number, expected NAME=NUMBER") from None
    return result


def _split(word: str, option: str, form: str, known: Iterable[str]) -> tuple[str, str]:
    # Tensor names may hold "="; the value never does.
    name, sign, text = word.rpartition("=")
    if not sign or not name:
        raise InputError(f"{option} {word!r} is not understood, expected {form}")
    if name in known:
        raise InputError(f"{option} names {name!r} twice")
    return name, text

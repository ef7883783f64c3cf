"""Turn what a hostile or damaged proto makes Python raise into the one line of a ModelError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.message import DecodeError, EncodeError

from jr_onnx.errors import ModelError, one_line


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Run code that walks through a model.

    Protobuf accepts bytes that are not text in a name, and raises only where the name is read; nesting that exceeds
    Python's stack shows as RecursionError.

    Args:
        what: The model, for the message.

    Raises:
        ModelError: The model is nested too deeply, holds a name that is not text, or cannot be serialised.
    """
    try:
        yield
    except RecursionError:
        raise ModelError(
            f"{what} is nested too deeply: sub-graphs or function calls lie hundreds of levels inside each other",
            hint="Flatten it, for instance with onnx.inliner.inline_local_functions",
        ) from None
    except UnicodeDecodeError as error:
        damaged = bytes(error.object[:40])
        raise ModelError(
            f"{what} holds a name that is not UTF-8 text: {damaged!r}", hint="The file is damaged; export it again"
        ) from None
    except (DecodeError, EncodeError) as error:
        raise ModelError(f"{what} cannot be parsed or serialised: {one_line(error)}") from None

"""ONNX Runtime as an evaluator: sessions that give the same bits every time, at several settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jr_onnx.element_types import Array
from jr_onnx.errors import ModelError, one_line
from jr_onnx.modelfile import ModelFile, serialised
from jr_onnx.runtime.running import SessionOptions, open_model, quiet_options
from jr_onnx.runtime.skeleton import FOLDER_KEY
from jr_onnx.verifier.evaluators import device
from jr_onnx.verifier.evaluators.errors import (
    CannotLoadError,
    CannotRunError,
    LackingError,
    NoKernelError,
    TooNewError,
    UnknownOperatorError,
)

Level = Literal["plain", "optimised", "tf32", "session"]
LEVELS: tuple[Level, ...] = ("plain", "optimised")
"""The settings that both providers have; on CUDA `served` looks at what is served, too."""
Feeds = Mapping[str, Array]

# Words of ONNX Runtime's complaints, whose status codes do not tell these causes apart.
_LACKING: tuple[tuple[str, type[LackingError]], ...] = (
    ("NOT_IMPLEMENTED", NoKernelError),
    ("is not a registered function/op", UnknownOperatorError),
    ("No Op registered for", UnknownOperatorError),
    ("Unsupported model IR version", TooNewError),
    ("*guarantees* support for models stamped with", TooNewError),
)


@dataclass(frozen=True)
class Runnable:
    """A model as an evaluator takes it.

    Attributes:
        name: For messages.
        file: The model; its payloads may be tokens, its external data lies in its folder.
        as_file: Whether the file itself is run, by its path: its own bytes are the subject.
        library: Whether the op library is registered.
    """

    name: str
    file: ModelFile
    as_file: bool = False
    library: bool = False

    def content(self) -> bytes:
        """Return the serialised model with its payloads.

        Raises:
            CannotLoadError: It exceeds protobuf's 2 GB, or its file was changed.
        """
        try:
            return serialised(self.file.proto, self.file.payloads)
        except ModelError as error:
            raise CannotLoadError(f"{self.name} cannot be loaded: {error.message}") from error


class OrtSession:
    """One model in ONNX Runtime, one thread, so that a second run gives the same bits; see `device` for where.

    Args:
        model: The model.
        level: ONNX Runtime's optimisation off or on; on CUDA also on with TF32 and cuDNN's fastest algorithms, and
            this package's session, which retrofits after optimisation.
        written: Where to write the graph that ONNX Runtime optimised; None writes nothing.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        LackingError: ONNX Runtime lacks what the model needs.
        CannotLoadError: ONNX Runtime cannot load the model for another reason: the file is broken.
    """

    def __init__(self, model: Runnable, level: Level, *, written: Path | None = None) -> None:
        options = quiet_options(threads=1, optimised=level != "plain")
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = level != "tf32"
        if written is not None:
            options.optimized_model_filepath = os.fspath(written)
        if level != "session" and model.library:
            from jr_onnx.runtime.ops_library import register

            register(options, device.target())
        self.name = model.name
        self._session = open_model(
            _source(model, options),
            model.name,
            options=options,
            providers=device.providers(tf32=level == "tf32"),
            retrofit="auto" if level == "session" else None,
            may_fall_back=True,
            failure=lambda error: _kind(error)(f"ONNX Runtime cannot load {model.name}: {one_line(error)}"),
        )
        if self._session.get_providers()[0] != device.provider():
            raise LackingError(f"{model.name} runs on {self._session.get_providers()[0]}, not on {device.provider()}")

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> list[Array]:
        """Return the outputs, all in the model's order or those that are named.

        Raises:
            CannotRunError: ONNX Runtime fails on these inputs.
        """
        try:
            result = self._session.run(list(outputs) if outputs is not None else None, dict(feeds))
        except Exception as error:
            raise CannotRunError(f"ONNX Runtime cannot run {self.name}: {one_line(error)}") from error
        return result


def loads(model: Runnable) -> bool:
    """Tell whether ONNX Runtime loads a model as it is."""
    try:
        OrtSession(model, "plain")
    except CannotLoadError:
        return False
    return True


def _kind(error: Exception) -> type[CannotLoadError]:
    return next((kind for words, kind in _LACKING if words in str(error)), CannotLoadError)


def _source(model: Runnable, options: SessionOptions) -> str | bytes:
    if model.as_file and model.file.path is not None and _is_text(model.file.path):
        return str(model.file.path)
    if model.file.folder is not None:
        options.add_session_config_entry(FOLDER_KEY, os.fspath(model.file.folder.resolve()))
    return model.content()


def _is_text(path: Path) -> bool:
    """Tell whether ONNX Runtime can be given a path: it takes no names that are not valid UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True

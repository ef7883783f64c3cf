"""Open and run models that come from anyone: failures have reasons, and a session runs where it was asked to.

ONNX Runtime falls back to the CPU silently, logs what its exceptions say anyway, and a model may open and yet fail
on every input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from jr_onnx.element_types import Array
from jr_onnx.errors import InputError, JrError, ModelError, one_line, require
from jr_onnx.runtime.providers import CPU, ProviderChoice


class SessionValue(Protocol):
    """An input or output of a session."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def type(self) -> str:
        """Its type, such as `tensor(float)`."""

    @property
    def shape(self) -> list[int | str | None]:
        """Its axes; a name or None where they are dynamic."""


class Session(Protocol):
    """What this package uses of a session: ONNX Runtime's, or `jr_onnx.InferenceSession`."""

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Array]) -> list[Array]:
        """Return outputs; sequences come as lists, maps as dictionaries."""

    def get_inputs(self) -> Sequence[SessionValue]:
        """Return the inputs that have to be fed."""

    def get_outputs(self) -> Sequence[SessionValue]:
        """Return the outputs."""

    def get_overridable_initializers(self) -> Sequence[SessionValue]:
        """Return the inputs that have a default."""

    def get_providers(self) -> list[str]:
        """Return the providers, the one that computes first."""

    def end_profiling(self) -> str:
        """Return the path of the profile."""


class SessionOptions(Protocol):
    """What this package uses of onnxruntime.SessionOptions."""

    log_severity_level: int
    intra_op_num_threads: int
    inter_op_num_threads: int
    graph_optimization_level: object
    use_deterministic_compute: bool
    optimized_model_filepath: str
    enable_profiling: bool
    profile_file_prefix: str

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Set a configuration entry."""

    def get_session_config_entry(self, key: str) -> str:
        """Return a configuration entry; an error of ONNX Runtime's where it is not set."""

    def register_custom_ops_library(self, path: str) -> None:
        """Load a library of operators."""

    def add_external_initializers_from_files_in_memory(
        self, names: Sequence[str], contents: Sequence[bytes | memoryview], lengths: Sequence[int]
    ) -> None:
        """Take the contents of files of external data; ONNX Runtime 1.24 and later."""


def quiet_options(*, threads: int = 0, optimised: bool = True) -> SessionOptions:
    """Return session options for `open_model`: ONNX Runtime's log off, for its reasons come as exceptions.

    Args:
        threads: Threads within an operator; 0 leaves that to ONNX Runtime.
        optimised: Whether ONNX Runtime optimises the graph.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
    """
    ort: Any = require("onnxruntime", "cpu")
    options: SessionOptions = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def open_model(
    source: str | bytes,
    name: str,
    *,
    options: SessionOptions | None = None,
    providers: Sequence[ProviderChoice] = (CPU,),
    retrofit: str | None = None,
    may_fall_back: bool = False,
    failure: Callable[[Exception], JrError] | None = None,
    **arguments: object,
) -> Session:
    """Open a model in ONNX Runtime.

    Args:
        source: Its path, or its bytes.
        name: What to call the model in an error.
        options: Session options; those of `quiet_options` by default.
        providers: Where it may compute, as ONNX Runtime takes them; the first has to be used, the others may help.
        retrofit: How `jr_onnx.InferenceSession` is to open it (auto, optimised, plain); None for ONNX Runtime's class.
        may_fall_back: Whether it may compute on another provider than the first.
        failure: Returns the error to raise in the place of ONNX Runtime's; a ModelError by default.
        arguments: Further arguments of the session.

    Raises:
        ModelError: ONNX Runtime cannot open it.
        InputError: The session computes on another provider.
        MissingExtraError: ONNX Runtime is not installed.
    """
    session_class: Any = require("onnxruntime", "cpu").InferenceSession
    if retrofit is not None:
        from jr_onnx.runtime.session import InferenceSession

        session_class = InferenceSession
        arguments["retrofit"] = retrofit
    chosen = quiet_options() if options is None else options
    try:
        given = {"providers": list(providers), "enable_fallback": 0, **arguments}
        session: Session = session_class(source, chosen, **given)
    except JrError:
        raise
    except Exception as error:
        raise (_model_error(name, error) if failure is None else failure(error)) from error
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    used = session.get_providers()[0]
    if used != wanted and not may_fall_back:
        raise InputError(
            f"{name} runs on {used}, although {wanted} was asked for",
            hint="jr-onnx doctor says which providers work, and why the others do not",
        )
    return session


def _model_error(name: str, error: Exception) -> ModelError:
    # It has no kernel for the types of a node: those of float32 are the most complete.
    hint = "Export the model in float32" if "NOT_IMPLEMENTED" in str(error) else ""
    return ModelError(f"ONNX Runtime cannot open {name}: {one_line(error)}", hint=hint)


def run(session: Session, outputs: Sequence[str], feeds: Mapping[str, Array], name: str) -> list[Array]:
    """Return outputs of a session.

    Args:
        session: An ONNX Runtime session, or `jr_onnx.InferenceSession`.
        outputs: Names of outputs.
        feeds: The inputs by name.
        name: What to call the model in an error.

    Raises:
        ModelError: ONNX Runtime fails on it.
    """
    try:
        found: list[Array] = session.run(list(outputs), dict(feeds))
    except JrError:
        raise
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no base class
        raise ModelError(f"ONNX Runtime cannot run {name}: {one_line(error)}") from None
    return found

"""Decide how a session opens a retrofit, and prepare it: the optimised way, or the plain one with a reason."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from jr_onnx.errors import OpLibraryError, RefusalError
from jr_onnx.provenance import Provenance
from jr_onnx.rewriter.agreement import Agreement
from jr_onnx.runtime import saved
from jr_onnx.runtime.info import RetrofitInfo, Way
from jr_onnx.runtime.markers import NotFollowedError
from jr_onnx.runtime.ops_library import Target, register
from jr_onnx.runtime.optimizer import optimise
from jr_onnx.runtime.options import copy_options, knows_jump
from jr_onnx.runtime.providers import CPU, CUDA, ProviderChoice, prefers_nhwc
from jr_onnx.runtime.running import SessionOptions
from jr_onnx.runtime.skeleton import Feed, Skeleton, foreign_domain

_ON_CPU = {CPU, "AzureExecutionProvider"}  # Azure's takes only the calls to its own services

_NHWC = (
    "with prefer_nhwc, ONNX Runtime puts two Transposes around every custom operator between two convolutions, "
    "and none around standard operators"
)
_log = logging.getLogger("jr_onnx.runtime")


@dataclass(frozen=True)
class Prepared:
    """What a session is opened with.

    Attributes:
        feed: The optimised model; None to open the source itself.
        options: Session options.
        info: Which way, and why.
    """

    feed: Feed | None
    options: SessionOptions
    info: RetrofitInfo


class Opening:
    """One opening of one retrofit.

    Args:
        skeleton: The model; used up.
        agreement: What comparing its graph with its provenance found; without a provenance it is a model that calls
            the op library without being a retrofit.
        options: The caller's session options, left as they are, or None.
        providers: As the session was given them.
        arguments: Further arguments of ONNX Runtime's session.
        way: What the caller asked for.
        wants_library: Whether the op library is registered where it is built.
        cuda: The options of the CUDA provider.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        agreement: Agreement,
        options: SessionOptions | None,
        providers: Sequence[ProviderChoice] | None,
        arguments: Mapping[str, object],
        way: Way,
        *,
        wants_library: bool = True,
        cuda: Mapping[str, object] | None = None,
    ) -> None:
        self._skeleton = skeleton
        self._agreement = agreement
        self._record = agreement.record
        self._kappa_input = _kappa_input(skeleton.proto, agreement.record)
        self._options = options
        self._providers = _names(providers)
        self._arguments = arguments
        self._way = way
        # The op library's kernels would run in place of the bodies of functions that the file brings.
        self._wants_library = wants_library and not agreement.has_foreign_body
        self._target: Target = "cuda" if CUDA in self._providers else "cpu"
        self._nhwc = cuda if cuda and prefers_nhwc(cuda) else None

    def prepare(self) -> Prepared:
        """Choose the way and prepare it.

        Raises:
            InputError: The file was optimised for another host.
            RefusalError: The caller wants the optimised way only, and it is impossible.
        """
        mark = saved.read_mark(self._skeleton.proto)
        if mark is not None:
            self._warn("the optimised file")
            return self._saved(mark)
        if self._record is None:
            self._warn("the model")
            options, info = self._plain_options()
            return Prepared(None, options, replace(info, mode="none", sites=0))
        if self._way == "plain":
            self._warn("the retrofit")
            return self._plain("asked for")
        try:
            return self._optimised()
        except NotFollowedError as error:
            return self.fall_back(error)

    def fall_back(self, error: NotFollowedError) -> Prepared:
        """Go the plain way because the optimised one failed, and say so in the log.

        Raises:
            RefusalError: The caller wants the optimised way only.
        """
        prepared = self._plain(str(error))
        _log.warning(
            "the retrofit runs the plain way, which may be slower (1.2 to 4 times the ReLU model's time): %s", error
        )
        return prepared

    def _warn(self, what: str) -> None:
        """Say in the log where the graph and its provenance disagree; what runs is the graph."""
        if not self._agreement:
            _log.warning("%s runs its graph as it is: %s", what, self._agreement.reason)

    def _plain(self, reason: str) -> Prepared:
        if self._way == "optimised":
            raise RefusalError(
                f"the session cannot retrofit after optimisation: {reason}",
                hint='Use retrofit="auto" to fall back to the plain way',
            )
        options, info = self._plain_options()
        _log.info("the retrofit runs the plain way: %s", reason)
        return Prepared(None, options, replace(info, mode="plain", reason=reason))

    def _optimised(self) -> Prepared:
        if not self._agreement:
            raise NotFollowedError(f"its graph does not compute what its provenance says: {self._agreement.reason}")
        other = next((name for name in self._providers if name not in (*_ON_CPU, CUDA)), None)
        if other is not None:
            return self._plain(f"it is for the CPU and CUDA only, and the session asks for {other}")
        level = self._options.graph_optimization_level if self._options is not None else None
        if level == _levels().ORT_DISABLE_ALL:
            return self._plain("the session options disable optimisation")
        reason = self._why_not_copied()
        if reason is not None:
            raise NotFollowedError(reason)
        options = copy_options(self._options)
        info = self._registered(options)
        if self._target == "cuda" and info.library is None:
            return self._plain(f"on CUDA it needs the op library, which is not there: {info.library_problem}")
        result = optimise(
            self._skeleton, self._agreement, copy_options(self._options), has_library=info.library is not None,
            arguments=self._arguments, target=self._target, nhwc=self._nhwc,
        )  # fmt: skip
        if self._target == "cpu" or self._nhwc:
            options.graph_optimization_level = _levels().ORT_DISABLE_ALL
        feed = result.feed()
        feed.prepare(options)
        return Prepared(feed, options, replace(info, mode="optimised", jumps=result.jumps, fused=result.fused))

    def _saved(self, mark: saved.Mark) -> Prepared:
        mark.check(self._providers)
        saved.check_blocks(self._skeleton.proto)
        if self._nhwc:
            _log.warning("the optimised file runs slower than it could: %s", _NHWC)
        options = copy_options(self._options)
        info = self._registered(options)
        if mark.needs_library and info.library is None:
            raise OpLibraryError(
                f"the optimised model needs the op library, which is not there: {info.library_problem}",
                hint="Run jr-onnx optimize on this host again, which does without the library",
            )
        if mark.target == "cpu":
            options.graph_optimization_level = _levels().ORT_DISABLE_ALL
        return Prepared(None, options, replace(info, mode="saved", jumps=mark.jumps, fused=mark.fused))

    def _plain_options(self) -> tuple[SessionOptions, RetrofitInfo]:
        """Return options for the plain way, the library registered with them where it serves.

        It does not where CUDA is asked for the layout (N, H, W, C), which passes by standard operators only, unless it
        draws kappa.
        """
        serves = not self._nhwc or self._draws()
        if self._options is None or self._why_not_copied() is None:
            options = copy_options(self._options)
            return options, self._registered(options, serves=serves)
        # Custom operators and devices of the caller's only exist in the very object that the caller gave.
        if knows_jump(self._options):
            return self._options, replace(self._info(), library="registered by the caller")
        return self._options, self._registered(self._options, serves=serves)

    def _draws(self) -> bool:
        """Tell whether the op library draws kappa."""
        random = self._record.plan.random if self._record is not None else None
        return random is not None and random.source == "op"

    def _why_not_copied(self) -> str | None:
        """Return why the caller's options must be used themselves, None if a copy does."""
        if self._options is None:
            return None
        domain = foreign_domain(self._skeleton.proto)
        if domain is not None:
            return f"operators of domain {domain!r} come with the session options, which cannot be copied"
        if getattr(self._options, "has_providers", lambda: False)():
            return "the session options choose devices themselves"
        return None

    def _registered(self, options: SessionOptions, *, serves: bool = True) -> RetrofitInfo:
        """Register the op library if it is there, wanted and of use, and note it."""
        if not (self._wants_library and serves):
            return replace(self._info(), library_problem=_NHWC if self._wants_library else "not wanted")
        try:
            return replace(self._info(), library=str(register(options, self._target)))
        except OpLibraryError as error:
            return replace(self._info(), library_problem=str(error))

    def _info(self) -> RetrofitInfo:
        record = self._record
        if record is None:
            return RetrofitInfo("none", mismatch=self._agreement.reason)
        return RetrofitInfo(
            "plain", sites=len(record.sites), kappa_input=self._kappa_input, mismatch=self._agreement.reason
        )


def _kappa_input(model: onnx.ModelProto, record: Provenance | None) -> str | None:
    """Return the input that the provenance calls the kappa input, where it can be one: an optional float scalar."""
    named = record.undo.inputs_added if record is not None else ()
    defaults = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        is_scalar = tensor.elem_type == onnx.TensorProto.FLOAT and tensor.HasField("shape") and not tensor.shape.dim
        if value.name in named and value.name in defaults and is_scalar:
            return str(value.name)
    return None


def _names(providers: Sequence[ProviderChoice] | None) -> tuple[str, ...]:
    import onnxruntime

    if not providers:
        return tuple(onnxruntime.get_available_providers())
    return tuple(str(item[0]) if isinstance(item, tuple) else str(item) for item in providers)


def _levels() -> Any:
    import onnxruntime

    return onnxruntime.GraphOptimizationLevel

"""ONNX Runtime's InferenceSession for retrofitted models: same class, same signature, three additions.

1. The op library is registered, where it is built.
2. A random kappa that is a model input is drawn from the operating system's entropy for every run, and for every replay
   of a captured CUDA graph.
3. On the CPU the retrofit happens after ONNX Runtime's own optimisation (`optimizer`), which costs little.

`session.retrofit` says which way the session took, and why. Whenever the fast way is not certain to be right, the plain
one is taken, where ONNX Runtime optimises the file as it is.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jr_onnx import provenance
from jr_onnx.element_types import Array
from jr_onnx.errors import InputError, RefusalError, one_line, require
from jr_onnx.kappa import RandomKappa
from jr_onnx.modelfile import absorb
from jr_onnx.rewriter.agreement import examine
from jr_onnx.runtime import entropy
from jr_onnx.runtime.binding import KappaBinding, bind_kappa
from jr_onnx.runtime.graphs import CapturedGraphs, without_graph
from jr_onnx.runtime.info import RetrofitInfo, Way
from jr_onnx.runtime.markers import NotFollowedError
from jr_onnx.runtime.opening import Opening
from jr_onnx.runtime.options import copy_options
from jr_onnx.runtime.providers import (
    CUDA,
    ProviderChoice,
    ProviderOptions,
    captures_graphs,
    cuda_options,
    device_id,
    without_unusable_cuda,
)
from jr_onnx.runtime.skeleton import add_external_files, read_skeleton
from jr_onnx.semantics import OP_DOMAIN

if TYPE_CHECKING:
    from onnxruntime import IOBinding, OrtValue, RunOptions, SessionOptions

_ort: Any = require("onnxruntime", "cpu")

_WAYS = ("auto", "plain", "optimised")
_OWN_ARGUMENTS = ("retrofit", "op_library", "external_data")
_log = logging.getLogger("jr_onnx.runtime")


class InferenceSession(_ort.InferenceSession):  # type: ignore[misc] # onnxruntime has no type information
    """ONNX Runtime's session, which runs retrofitted models at the speed of their originals.

    Args:
        path_or_bytes: A model file or a serialised model.
        sess_options: Session options; copied, so that they can be used for other sessions.
        providers: Execution providers, as ONNX Runtime takes them.
        provider_options: Their options, as ONNX Runtime takes them.
        retrofit: "auto"; "plain" to leave the file to ONNX Runtime; "optimised" to fail rather than fall back to it.
        op_library: False does without the op library.
        external_data: Contents of external data by location, for a serialised model whose data is not to be read from
            a disk, where it may change.
        **kwargs: Further arguments of ONNX Runtime's session, which ignores those it does not know.

    Attributes:
        retrofit: Which way the session went, and why.

    Raises:
        InputError: `retrofit` is not one of the three, the name of an argument is misspelt, or the file was optimised
            for another host.
        ModelError: The model's provenance cannot be understood.
        RefusalError: `retrofit="optimised"` and that is impossible.
    """

    retrofit: RetrofitInfo

    def __init__(
        self,
        path_or_bytes: str | bytes | os.PathLike[str],
        sess_options: SessionOptions | None = None,
        providers: Sequence[ProviderChoice] | None = None,
        provider_options: ProviderOptions | None = None,
        *,
        retrofit: Way = "auto",
        op_library: bool = True,
        external_data: Mapping[str, bytes | bytearray | memoryview] | None = None,
        **kwargs: object,
    ) -> None:
        if retrofit not in _WAYS:
            raise InputError(f"retrofit is {retrofit!r}, expected one of {', '.join(_WAYS)}")
        _refuse_misspelt(kwargs)
        self._way: Way = retrofit
        self._wants_library = op_library
        self._external = {name: memoryview(content).cast("B") for name, content in (external_data or {}).items()}
        self._given = (path_or_bytes, sess_options, kwargs)
        self._random: RandomKappa | None = None
        self._open(providers, provider_options)

    def set_providers(
        self, providers: Sequence[ProviderChoice] | None = None, provider_options: ProviderOptions | None = None
    ) -> None:
        """Open the model again on other providers; see ONNX Runtime's method of this name."""
        self._release_captured_graphs_if_any()
        self._open(providers, provider_options)

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, object],
        run_options: RunOptions | None = None,
    ) -> list[Array]:
        """Compute the outputs; see ONNX Runtime's method of this name.

        Returns:
            An output each: an array, or for the ONNX types sequence, map and sparse tensor what ONNX Runtime makes of
            them.

        Raises:
            KappaError: The kappa that was fed is invalid.
            InputError: The session captures CUDA graphs, and the run options name one: it takes bound inputs.
        """
        outputs: list[Array] = super().run(output_names, self._with_kappa(input_feed), self._eager(run_options))
        return outputs

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, object],
        callback: Callable[..., None],
        user_data: object,
        run_options: RunOptions | None = None,
    ) -> None:
        """Compute the outputs in another thread; see ONNX Runtime's method of this name."""
        super().run_async(output_names, self._with_kappa(input_feed), callback, user_data, self._eager(run_options))

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """Compute the outputs from OrtValues; see ONNX Runtime's method of this name."""
        name = self.retrofit.kappa_input
        feed = dict(input_dict_ort_values)
        if name is not None and name in feed:
            entropy.checked(feed[name].numpy(), name)
        elif name is not None and self._random is not None:
            feed[name] = _ort.OrtValue.ortvalue_from_numpy(entropy.draw(self._random))
        outputs: list[OrtValue] = super().run_with_ort_values(output_names, feed, self._eager(run_options))
        return outputs

    def io_binding(self) -> IOBinding:
        """Return an object to bind inputs and outputs to; it notes whether kappa is bound."""
        device = device_id(self.get_provider_options()) if self._graphs is not None else None
        return KappaBinding(self, self.retrofit.kappa_input, device)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions | None = None) -> None:
        """Compute with bound inputs and outputs; a random kappa that is not bound is drawn and bound for this run.

        Raises:
            InputError: A captured CUDA graph would use other memory than what is bound, or was not captured whole.
        """
        name = self.retrofit.kappa_input
        if name is not None and self._random is not None and not getattr(iobinding, "has_kappa", False):
            if isinstance(iobinding, KappaBinding):
                iobinding.set_kappa(name, entropy.draw(self._random))
            else:
                bind_kappa(iobinding, name, entropy.draw(self._random))
        if self._graphs is None:
            super().run_with_iobinding(iobinding, run_options)
        else:
            run = super().run_with_iobinding
            self._graphs.run(lambda: run(iobinding, run_options), iobinding, run_options)

    def _eager(self, run_options: RunOptions | None) -> RunOptions | None:
        return run_options if self._graphs is None else without_graph(run_options)

    def _with_kappa(self, feed: Mapping[str, object]) -> Mapping[str, object]:
        name = self.retrofit.kappa_input
        if name is None:
            return feed
        if name in feed:
            to_numpy = getattr(feed[name], "numpy", None)
            if to_numpy is not None:  # an OrtValue
                entropy.checked(to_numpy(), name)
                return feed
            return {**feed, name: entropy.checked(feed[name], name)}
        return feed if self._random is None else {**feed, name: entropy.draw(self._random)}

    def _open(self, providers: Sequence[ProviderChoice] | None, provider_options: ProviderOptions | None) -> None:
        source, options, arguments = self._given
        asked_for_cuda = bool(providers)
        providers, provider_options, reason = without_unusable_cuda(providers, provider_options)
        if reason and asked_for_cuda:
            _log.warning("%s was asked for and is not usable here, so the session runs without it: %s", CUDA, reason)
        skeleton = read_skeleton(source, options)
        record = provenance.read(skeleton.proto) if skeleton is not None else None
        calls_op = skeleton is not None and any(entry.domain == OP_DOMAIN for entry in skeleton.proto.opset_import)
        if skeleton is None or (record is None and not calls_op):
            self.retrofit = RetrofitInfo("none")
            if self._external:
                options = copy_options(options)
                add_external_files(options, self._external)
            super().__init__(source, options, providers, provider_options, **arguments)
            self._note_capture(None)
            return
        absorb(skeleton.proto, self._external, skeleton.payloads)
        agreement = examine(skeleton.proto, skeleton.payloads, skeleton.folder)
        opening = Opening(
            skeleton, agreement, options, providers, arguments, self._way, wants_library=self._wants_library,
            cuda=cuda_options(providers, provider_options),
        )  # fmt: skip
        prepared = opening.prepare()
        if prepared.feed is not None:
            try:
                fixed = {**arguments, "enable_fallback": 0}
                super().__init__(prepared.feed.data, prepared.options, providers, provider_options, **fixed)
                self._model_bytes = None  # ONNX Runtime has what it needs
            except Exception as error:  # noqa: BLE001 - the plain way must stay open whatever ONNX Runtime raises
                reason = f"ONNX Runtime cannot open the optimised model: {one_line(error)}"
                prepared = opening.fall_back(NotFollowedError(reason))
        if prepared.feed is None:
            add_external_files(prepared.options, self._external)
            super().__init__(source, prepared.options, providers, provider_options, **arguments)
        self.retrofit = prepared.info
        random = record.plan.random if record is not None else None
        self._random = random if prepared.info.kappa_input is not None else None
        self._note_capture(random)

    def _note_capture(self, random: RandomKappa | None) -> None:
        """Note whether runs are captured as CUDA graphs, now that it is known where the session runs.

        Raises:
            RefusalError: Every replay would use the same random kappa.
        """
        captures = self.get_providers()[0] == CUDA and captures_graphs(self.get_provider_options().get(CUDA, {}))
        self._graphs = CapturedGraphs() if captures else None
        if captures and random is not None and random.source == "graph":
            raise RefusalError(
                "enable_cuda_graph is set, and every replay of a captured graph would use the kappa that RandomUniform "
                "drew when it was captured",
                hint="Rewrite with --random-source input or op, or leave enable_cuda_graph out",
            )

    def _release_captured_graphs_if_any(self) -> None:
        release = getattr(super(), "_release_captured_graphs", None)
        if release is not None:
            release()


def _refuse_misspelt(arguments: Iterable[str]) -> None:
    """Refuse arguments whose names are close to one of ours: ONNX Runtime ignores every name that it does not know.

    All others are passed on, since later versions of ONNX Runtime may have more.

    Raises:
        InputError: There is one.
    """
    for name in arguments:
        for meant in difflib.get_close_matches(name, _OWN_ARGUMENTS, n=1):
            raise InputError(f"InferenceSession has no argument {name!r}", hint=f"The argument is called {meant}")

"""One version of one loaded model: its session, its interface, and its queue."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jr_onnx.deploy.joining import joining
from jr_onnx.deploy.model import ModelFacts
from jr_onnx.element_types import Array
from jr_onnx.errors import JrError, one_line
from jr_onnx.records import JsonValue
from jr_onnx.rows import Joining
from jr_onnx.runtime.running import Session
from jr_onnx.serve.batching import Batcher, Outputs
from jr_onnx.serve.call import Call
from jr_onnx.serve.faults import BadRequestError, NotReadyError, OverloadedError, engine_message
from jr_onnx.serve.guard import GPU
from jr_onnx.serve.kserve_import import kserve_module
from jr_onnx.serve.labels import read_labels
from jr_onnx.serve.metrics import ModelMetrics
from jr_onnx.serve.opening import (
    can_misfit,
    draws_kappa,
    interface_of,
    open_session,
    read_checked,
    values_decide,
    without_capture,
)
from jr_onnx.serve.options import DEFAULT_PROVIDERS, Limits, Running
from jr_onnx.serve.private import PrivateModel, read_privately
from jr_onnx.serve.probe import batch_bytes, best_rows, powers_of_two
from jr_onnx.serve.replays import GraphSizes, Replays, why_not_captured
from jr_onnx.serve.tensors import TensorSpec

_kserve: Any = kserve_module("kserve.model")


class ServedModel(_kserve.InferenceModel):  # type: ignore[misc] # kserve has no type information
    """A model in kserve's registry.

    Args:
        name: Name that clients ask for.
        version: Its version.
        path: The model file.
        running: How it runs.
        limits: How much a request may ask for.
        digests: SHA-256 of the files of a package, by path relative to the model's folder.
        shared: SHA-256 of the files in the folder above, by name.

    Attributes:
        interface: Inputs, outputs and limits that clients see.
        instances: How many runs go on at a time.
        delay_us: How long a request may wait for others that join it, in microseconds.
        on_cpu: It runs on the CPU.
        join_rows: How many rows waiting requests are joined into; 1 for never.
        metrics: What is counted.
        notes: What the operator should know, one line each.

    Raises:
        ModelError: The file is not a usable model, or its external data lies outside its folder.
    """

    def __init__(
        self, name: str, version: str, path: Path, running: Running, limits: Limits,
        digests: Mapping[str, str] | None = None, shared: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name)
        self.version = version
        self.path = path
        self.notes: list[str] = []
        self._users = 0
        self._limits = limits
        source = read_privately(path, digests)
        facts = read_checked(source)
        self.interface = interface_of(name, version, facts, running, limits)
        if shared is not None:
            self.interface = replace(
                self.interface, labels=read_labels(path.parent.parent, shared, self.interface.outputs)
            )
        if running.expose_kappa and not facts.kappa_inputs:
            self.notes.append("kappa is not a runtime input of this model, there is nothing to expose")
        self._session, self._replays = self._opened(source, facts, running)
        self.instances = running.instances
        self.delay_us = running.delay_us
        self.on_cpu = self._session.get_providers()[0] == DEFAULT_PROVIDERS[0]
        self._output_names = list(self.interface.outputs)
        self._can_misfit = can_misfit(self.interface)
        self.metrics = ModelMetrics(name, version)
        self.join_rows = self._join_rows(facts, running)
        self._batcher = Batcher(
            self.run,
            self.metrics,
            max_rows=self.join_rows,
            max_bytes=batch_bytes(self.interface.inputs.values(), self.join_rows),
            delay_s=running.delay_us / 1e6,
            instances=running.instances,
            queue=limits.queue,
            inline=self._replays is None and not values_decide(self.interface),
        )
        if self._replays is not None:
            self._capture(self._replays, source, running)
        self.ready = True

    @property
    def pending(self) -> int:
        """How many requests are read, wait, run or are answered."""
        return max(self._users, self._batcher.pending)

    def get_input_types(self) -> list[JsonValue]:
        """Return the inputs for the model's metadata."""
        return _described(self.interface.inputs)

    def get_output_types(self) -> list[JsonValue]:
        """Return the outputs for the model's metadata."""
        return _described(self.interface.outputs)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the model open while a request that has chosen it is read, computed and answered."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    async def __call__(self, body: Call, headers: object = None, verb: object = None) -> tuple[Outputs, dict[str, str]]:
        """Answer a checked request by way of kserve's interface, of which `headers` and `verb` are part."""
        del headers, verb
        return await self.answer(body, self._limits.timeout_s), {}

    async def answer(self, call: Call, seconds: float) -> Outputs:
        """Answer a checked request within so many seconds, or within the client's own time if that is less."""
        if not self.ready:
            raise NotReadyError(f"model {self.name!r} is not ready")
        limit = self._limits.timeout_s
        if call.timeout_s is not None and call.timeout_s < seconds:
            limit = seconds = call.timeout_s
        return await self._batcher.submit(call, limit, seconds)

    def run(self, feed: Mapping[str, Array]) -> Outputs:
        """Run the session once, which draws a fresh kappa where the model has a random one.

        Raises:
            BadRequestError: The model cannot compute these inputs.
            OverloadedError: There is not enough memory.
        """
        try:
            with contextlib.nullcontext() if self.on_cpu else GPU.together():
                runs = self._session if self._replays is None else self._replays
                answers = runs.run(self._output_names, feed)
        except JrError:
            raise
        except Exception as error:
            text = str(error)
            if "allocate memory" in text or "bad_alloc" in text or isinstance(error, MemoryError):
                raise OverloadedError("there is not enough memory for this request now") from None
            if self._can_misfit or type(error).__name__ == "InvalidArgument":
                why = engine_message(error)
                raise BadRequestError(f"model {self.name!r} cannot compute this request: {why}") from None
            raise
        return dict(zip(self._output_names, answers, strict=True))

    def stop(self) -> None:
        """Answer nothing any more; called by kserve's registry on unloading."""
        super().stop()
        self._batcher.close()

    def _opened(self, source: PrivateModel, facts: ModelFacts, running: Running) -> tuple[Session, Replays | None]:
        """Open the model, once for every instance where graphs are captured, for they belong to a session each."""
        if not running.captures:
            with GPU.together():
                return open_session(source, running), None
        reason = why_not_captured(facts, self.interface)
        with GPU.together():
            try:
                if not reason:
                    sessions = [open_session(source, running) for _ in range(running.instances)]
                    return sessions[0], Replays(sessions, self.interface)
            except JrError as error:
                reason = error.message
            self.notes.append(f"no CUDA graphs are captured: {reason}")
            return open_session(source, without_capture(running)), None

    def _capture(self, replays: Replays, source: PrivateModel, running: Running) -> None:
        """Capture the graphs; where that fails, go on without: ONNX Runtime would replay what it has of them."""
        sizes = GraphSizes(running.graph_batch or powers_of_two(self.join_rows), may_pad=self.join_rows > 1)
        try:
            replays.capture(sizes, self._batcher.in_every_thread)
        except Exception as error:  # noqa: BLE001 - whatever ONNX Runtime raises, the model runs without graphs
            with GPU.together():
                self._replays, self._session = None, open_session(source, without_capture(running))
            self.notes.append(f"no CUDA graphs are captured: {one_line(error)}")
        else:
            rows = f" of {', '.join(map(str, sizes.rows))} rows" if self.interface.batched else ""
            self.notes.append(f"CUDA graphs{rows} are captured")

    def _join_rows(self, facts: ModelFacts, running: Running) -> int:
        """Decide how many rows waiting requests are joined into; 1 for never."""
        if running.max_batch <= 1:
            return 1
        decided = self._joining(facts, running)
        if not decided.join:
            self.notes.append(f"requests are not joined: {decided.reason}")
            return 1
        rows = best_rows(self.run, self.interface.inputs.values(), running.max_batch)
        if rows == 1:
            self.notes.append("requests are not joined: a batch is no faster here")
        else:
            self.notes.append(f"requests are joined up to {rows} rows: {decided.reason}")
        return rows

    def _joining(self, facts: ModelFacts, running: Running) -> Joining:
        if not self.interface.batched:
            why = facts.rows.why or "an output has no open first axis"
            return Joining(join=False, reason=why)
        if draws_kappa(facts):
            return Joining(join=False, reason="it draws its kappa once a run, and each request is to have its own")
        if any(spec.optional for spec in self.interface.inputs.values()):
            return Joining(join=False, reason="each request may bring its own kappa")
        shown = [tensor for tensor in facts.inputs if tensor.name in self.interface.inputs]
        return joining(facts, shown, self.run, insist="--join-rows" if running.join_rows else "")


def _described(specs: Mapping[str, TensorSpec]) -> list[JsonValue]:
    return [{"name": spec.name, "datatype": spec.datatype, "shape": [*spec.shape]} for spec in specs.values()]

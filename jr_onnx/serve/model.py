"""One version of one model, ready to answer: its session, what clients see of it, and its queue."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jr_onnx.deploy.model import ModelFacts, external_file, read_model
from jr_onnx.errors import JrError, ModelError
from jr_onnx.serve.batching import Batcher, Outputs
from jr_onnx.serve.call import Call, Face
from jr_onnx.serve.faults import BadRequestError, NotReadyError, OverloadedError, one_line
from jr_onnx.serve.kserve_import import kserve_module
from jr_onnx.serve.metrics import ModelMetrics
from jr_onnx.serve.options import Limits, Running
from jr_onnx.serve.probe import rows_are_independent
from jr_onnx.serve.tensors import Array, spec_of

_kserve: Any = kserve_module("kserve.model")


class ServedModel(_kserve.InferenceModel):  # type: ignore[misc] # kserve has no type information
    """A model in kserve's registry.

    Args:
        name: Name that clients ask for.
        version: Its version.
        path: The model file.
        running: How it runs.
        limits: How much a request may ask for.

    Attributes:
        face: What clients see.
        metrics: What is counted.
        notes: What the operator should know, one line each.

    Raises:
        ModelError: The file is no usable model, or its external data lies outside its folder.
    """

    def __init__(self, name: str, version: str, path: Path, running: Running, limits: Limits) -> None:
        super().__init__(name)
        self.version = version
        self.path = path
        self.notes: list[str] = []
        self._limits = limits
        facts = read_model(path)
        for location in facts.external:
            external_file(path.parent, location)
        self._session = _open(path, running)
        self.face = _face(self, facts, running, limits)
        self._output_names = list(self.face.outputs)
        self._can_misfit = _can_misfit(self.face)
        self.metrics = ModelMetrics(name, version)
        self._batcher = Batcher(
            self.run,
            self.metrics,
            max_rows=self._join_rows(facts, running),
            delay_s=running.delay_us / 1e6,
            instances=running.instances,
            queue=limits.queue,
        )
        self.ready = True

    @property
    def pending(self) -> int:
        """How many requests wait or run."""
        return self._batcher.pending

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return the inputs for the model's metadata."""
        return [
            {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape} for spec in self.face.inputs.values()
        ]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return the outputs for the model's metadata."""
        return [
            {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape} for spec in self.face.outputs.values()
        ]

    async def __call__(self, body: Call, headers: Any = None, verb: Any = None) -> tuple[Outputs, dict[str, str]]:
        """Answer a checked request; `headers` and `verb` are part of kserve's interface."""
        del headers, verb
        if not self.ready:
            raise NotReadyError(f"model {self.name!r} is not ready")
        timeout = self._limits.timeout_s
        if body.timeout_s is not None:
            timeout = min(timeout, body.timeout_s)
        return await self._batcher.submit(body, timeout), {}

    def run(self, feed: Mapping[str, Array]) -> Outputs:
        """Run the session once, which draws a fresh kappa where the model has a random one.

        Raises:
            BadRequestError: The model cannot compute these inputs.
            OverloadedError: There is not enough memory.
        """
        try:
            answers = self._session.run(self._output_names, feed)
        except JrError:
            raise
        except Exception as error:
            text = str(error)
            if "allocate memory" in text or "bad_alloc" in text or isinstance(error, MemoryError):
                raise OverloadedError("there is not enough memory for this request now") from None
            if self._can_misfit or type(error).__name__ == "InvalidArgument":
                raise BadRequestError(f"model {self.name!r} cannot compute this request: {one_line(text)}") from None
            raise
        return dict(zip(self._output_names, answers, strict=True))

    def stop(self) -> None:
        """Answer nothing any more; called by kserve's registry on unloading."""
        super().stop()
        self._batcher.close()

    def _join_rows(self, facts: ModelFacts, running: Running) -> int:
        """Decide how many rows waiting requests are joined into; 1 for never."""
        if running.max_batch <= 1 or not self.face.batched:
            return 1
        why = ""
        if _draws(facts):
            why = "it draws its kappa once a run, and each request is to have its own"
        elif any(spec.optional for spec in self.face.inputs.values()):
            why = "each request may bring its own kappa"
        else:
            started = time.perf_counter()
            why = rows_are_independent(self.run, self.face.inputs.values())
            if not why and time.perf_counter() - started > self._limits.timeout_s:
                self.notes.append("trying out whether requests can be joined took longer than a request may take")
        if why:
            self.notes.append(f"requests are not joined: {why}")
            return 1
        return running.max_batch


def _open(path: Path, running: Running) -> Any:
    """Open the session, which optimises a retrofit and draws its random kappa."""
    import onnxruntime

    from jr_onnx.runtime.session import InferenceSession

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    cores = len(os.sched_getaffinity(0))
    options.intra_op_num_threads = running.threads or max(1, cores - 1)
    # Threads that wait by spinning take the processor away from the server that is to feed them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return InferenceSession(str(path), options, providers=list(running.providers))
    except JrError:
        raise
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no base class of their own
        raise ModelError(f"ONNX Runtime cannot open {path}: {one_line(str(error))}") from None


def _draws(facts: ModelFacts) -> bool:
    return facts.draws_in_op or (facts.provenance is not None and facts.provenance.plan.random is not None)


def _face(model: ServedModel, facts: ModelFacts, running: Running, limits: Limits) -> Face:
    kappa = facts.kappa_inputs
    if running.expose_kappa and not kappa:
        model.notes.append("kappa is no runtime input of this model, there is nothing to expose")
    inputs = {}
    for tensor in facts.inputs:
        is_kappa = tensor.name in kappa
        if is_kappa and not tensor.optional and not running.expose_kappa:
            raise ModelError(
                f"the kappa input {tensor.name!r} of {model.name!r} has no default, so it cannot stay hidden",
                hint="Rewrite the source model again, or show it to clients with --expose-kappa",
            )
        if (not tensor.optional and not is_kappa) or (is_kappa and running.expose_kappa):
            inputs[tensor.name] = spec_of(tensor)
    required = [spec for spec in inputs.values() if not spec.optional]
    if not required:
        raise ModelError(f"model {model.name!r} takes no input, so there is nothing that a client could ask it")
    outputs = {tensor.name: spec_of(tensor) for tensor in facts.outputs}
    batched = all((spec.dims or (1,))[0] == -1 for spec in (*required, *outputs.values()))
    return Face(model.name, model.version, inputs, outputs, batched, limits.rows, finite_only=running.reject_non_finite)


def _can_misfit(face: Face) -> bool:
    """Whether a checked request can still be one that the model cannot compute: open sizes, or indices."""
    skip = 1 if face.batched else 0
    return any(spec.dims is None or -1 in spec.dims[skip:] or spec.dtype.kind in "iuO" for spec in face.inputs.values())

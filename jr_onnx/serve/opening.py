"""Open a model file: checks, the interface for clients, and the session. Imports no kserve."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from jr_onnx.deploy.model import ModelFacts, read_model, require_truth
from jr_onnx.errors import ModelError, one_line
from jr_onnx.runtime.providers import CAPTURE, CUDA_OPTIONS
from jr_onnx.runtime.running import Session, open_model, quiet_options
from jr_onnx.serve.call import ModelInterface
from jr_onnx.serve.options import Limits, Running
from jr_onnx.serve.private import PrivateModel
from jr_onnx.serve.tensors import spec_of


def read_checked(model: PrivateModel) -> ModelFacts:
    """Read the facts of a model; its weights are not loaded.

    Raises:
        ModelError: It is not an ONNX model.
        RefusalError: Its graph and its provenance disagree.
    """
    facts = read_model(model.path, source=model.file)
    require_truth(facts, model.path)
    return facts


def open_session(model: PrivateModel, running: Running) -> Session:
    """Open the session, which optimises a retrofit and draws its random kappa.

    Raises:
        ModelError: ONNX Runtime cannot open it.
        InputError: It does not run on the provider that was asked for.
    """
    cores = len(os.sched_getaffinity(0))
    options = quiet_options(threads=running.threads or max(1, cores - 1))
    # Threads that wait by spinning take the processor away from the server that is to feed them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return open_model(
        model.data,
        str(model.path),
        options=options,
        providers=running.provider_choices,
        retrofit="auto",
        # A line that clients cannot multiply.
        failure=lambda error: ModelError(f"ONNX Runtime cannot open {model.path}: {one_line(error)}"),
        external_data=model.external,
    )


def without_capture(running: Running) -> Running:
    """Return how a model runs whose runs cannot be captured: with the provider's other options."""
    rest = {key: value for key, value in CUDA_OPTIONS[running.cuda_options].items() if key != CAPTURE}
    name = next(name for name, options in CUDA_OPTIONS.items() if options == rest)
    return replace(running, cuda_options=name, graph_batch=())


def draws_kappa(facts: ModelFacts) -> bool:
    """Whether kappa is random, no matter what draws it."""
    return facts.draws_in_op or (facts.provenance is not None and facts.provenance.plan.random is not None)


def interface_of(name: str, version: str, facts: ModelFacts, running: Running, limits: Limits) -> ModelInterface:
    """Return the interface of a model.

    Raises:
        ModelError: It has an input or output that the protocol cannot carry, or nothing to ask.
    """
    kappa = facts.kappa_inputs
    inputs = {}
    for tensor in facts.inputs:
        is_kappa = tensor.name in kappa
        if is_kappa and not tensor.optional and not running.expose_kappa:
            raise ModelError(
                f"the kappa input {tensor.name!r} of {name!r} has no default, so it cannot stay hidden",
                hint="Rewrite the source model again, or show it to clients with --expose-kappa",
            )
        if (not tensor.optional and not is_kappa) or (is_kappa and running.expose_kappa):
            inputs[tensor.name] = spec_of(tensor)
    required = [spec for spec in inputs.values() if not spec.optional]
    if not required:
        raise ModelError(f"model {name!r} takes no input, so there is nothing that a client could ask it")
    outputs = {tensor.name: spec_of(tensor) for tensor in facts.outputs}
    batched = all((spec.dims or (1,))[0] == -1 for spec in (*required, *outputs.values()))
    return ModelInterface(name, version, inputs, outputs, batched, limits.rows, finite_only=running.reject_non_finite)


def values_decide(interface: ModelInterface) -> bool:
    """Whether values of inputs, not only their sizes, may decide how long a run takes: counts, indices and strings."""
    return any(spec.dtype.kind == "O" or spec.dtype in (np.int32, np.int64) for spec in interface.inputs.values())


def can_misfit(interface: ModelInterface) -> bool:
    """Whether a checked request can still be one that the model cannot compute: open sizes, or indices."""
    skip = 1 if interface.batched else 0
    return any(
        spec.dims is None or -1 in spec.dims[skip:] or spec.dtype.kind in "iuO" for spec in interface.inputs.values()
    )

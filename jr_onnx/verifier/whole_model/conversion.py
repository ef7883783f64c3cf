"""Prove that a model converted to another opset computes what its source computes, by running both.

Random inputs, several batch sizes where the batch is free, ONNX Runtime with optimisation off and on. Differences must
lie within the rounding bound that is measured on the source (`tolerance`). Where ONNX Runtime does not run the source,
as below opset 7, ONNX's reference evaluator computes it, with the operators of those years in NumPy (`legacy_ops`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import onnx

from jr_onnx.data import required_inputs
from jr_onnx.errors import JrError, MissingExtraError, RefusalError
from jr_onnx.modelfile import ModelFile
from jr_onnx.rewriter import legacy
from jr_onnx.verifier.compare import Value, difference, is_floating, largest_difference
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError
from jr_onnx.verifier.evaluators.form import evaluator_form
from jr_onnx.verifier.evaluators.legacy_operators import legacy_operators
from jr_onnx.verifier.evaluators.ort import OrtSession, Runnable
from jr_onnx.verifier.evaluators.reference import OnnxEvaluator
from jr_onnx.verifier.evaluators.weights import with_weights
from jr_onnx.verifier.inputs import InputOptions, InputsError, Sample, make_inputs
from jr_onnx.verifier.whole_model.case import nudged_samples
from jr_onnx.verifier.whole_model.tolerance import rounding_bound

_BATCHES = (1, 3)
_SAMPLES = 2
_SEED = 0
_HINT = "Rewrite the model without --opset, or convert it with another tool first"


class Runner(Protocol):
    """Something that computes a model."""

    def run(self, feeds: Sample) -> Sequence[Value]:
        """Return the outputs; raises CannotRunError."""


def prove_conversion(source: ModelFile, converted: ModelFile) -> str:
    """Compare a model and its conversion, and say how.

    Args:
        source: The model before.
        converted: The model after.

    Raises:
        RefusalError: They differ, or nothing can be compared.
    """
    _same_interface(source.proto, converted.proto)
    first, how = _source_runner(source)
    try:
        seconds = _runners(converted)
        samples = _samples(source.proto, first)
        worst = _compare(first, seconds, samples, [value.name for value in source.proto.graph.output])
    except (CannotLoadError, CannotRunError, InputsError) as error:
        raise RefusalError(f"the conversion cannot be proved: {error.message}", hint=_HINT) from None
    return f"{how}: {len(samples)} random inputs, the largest difference {worst:.2g} is rounding"


def _same_interface(source: onnx.ModelProto, converted: onnx.ModelProto) -> None:
    """Refuse a conversion that changed what a caller feeds, may override or gets."""
    for what, one, other in (
        ("inputs", source.graph.input, converted.graph.input),
        ("outputs", source.graph.output, converted.graph.output),
    ):
        before, after = ([str(value.name) for value in part] for part in (one, other))
        if before != after:
            raise RefusalError(f"the conversion changed the {what}: {before} -> {after}", hint=_HINT)
    before, after = (sorted(_overridable(model)) for model in (source, converted))
    if before != after:
        raise RefusalError(f"the conversion changed which inputs have defaults: {before} -> {after}", hint=_HINT)


def _overridable(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    if model.ir_version < 4:
        return {}
    inputs = {value.name for value in model.graph.input}
    return {str(tensor.name): tensor for tensor in model.graph.initializer if tensor.name in inputs}


def _source_runner(source: ModelFile) -> tuple[Runner, str]:
    runnable = Runnable("the model before its conversion", source, as_file=source.path is not None)
    try:
        return OrtSession(runnable, "plain"), "proved on ONNX Runtime"
    except MissingExtraError:
        return _evaluator(source), "proved with ONNX's reference evaluator, because onnxruntime is not installed"
    except CannotLoadError as error:
        try:
            return _evaluator(
                source
            ), "proved with ONNX's reference evaluator, for ONNX Runtime does not run the source"
        except JrError as other:
            raise RefusalError(
                f"the conversion cannot be proved: {error.message}; {other.message}", hint=_HINT
            ) from None


def _runners(converted: ModelFile) -> list[Runner]:
    runnable = Runnable("the converted model", converted)
    try:
        return [OrtSession(runnable, "plain"), OrtSession(runnable, "optimised")]
    except MissingExtraError:
        return [_evaluator(converted)]


def _evaluator(model: ModelFile) -> OnnxEvaluator:
    """Return ONNX's reference evaluator, with the operators of ONNX's first years.

    Raises:
        CannotLoadError: It lacks an operator, or the weights are missing or too large.
    """
    proto = evaluator_form(with_weights(model))
    legacy.mask(proto)
    return OnnxEvaluator(proto, legacy_operators())


def _samples(model: onnx.ModelProto, runner: Runner) -> list[Sample]:
    """Return random inputs of several batch sizes, and one with other values for what has a default."""

    def try_out(sample: Sample) -> None:
        runner.run(sample)

    free = any(not isinstance(axis, int) for entry in required_inputs(model) for axis in entry.shape or (None,))
    samples: list[Sample] = []
    for batch in _BATCHES if free else _BATCHES[:1]:
        try:
            made = make_inputs(model, _SAMPLES, InputOptions(batch=batch, seed=_SEED + batch), try_out).samples
            for sample in made:
                runner.run(sample)
        except (InputsError, CannotRunError):
            if not samples:
                raise
            break  # the batch is not free in fact: a Reshape holds it fast, say
        samples += made
    moved = {name: _moved(tensor) for name, tensor in _overridable(model).items()}
    fed = {name: value for name, value in moved.items() if value is not None}
    return [*samples, {**samples[0], **fed}] if fed else samples


def _moved(tensor: onnx.TensorProto) -> Any:
    """Return other values for a small floating initializer, None for any other."""
    try:
        value = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError):  # external data, or a token that stands for a large payload
        return None
    return np.asarray(value * 0.75, dtype=value.dtype) if is_floating(value.dtype) else None


def _compare(first: Runner, seconds: Sequence[Runner], samples: Sequence[Sample], names: Sequence[str]) -> float:
    """Return the largest difference.

    Raises:
        RefusalError: A difference is beyond rounding, or the model draws random numbers.
    """
    results = [first.run(sample) for sample in samples]
    if any(largest_difference(one, other) > 0 for one, other in zip(results[0], first.run(samples[0]), strict=True)):
        raise RefusalError("the conversion cannot be proved: the model draws random numbers by itself", hint=_HINT)
    nudged = [first.run(sample) for sample in nudged_samples(samples, _SEED)]
    others = [[runner.run(sample) for sample in samples] for runner in seconds]
    shaken = [seconds[0].run(sample) for sample in nudged_samples(samples, _SEED)]
    worst = 0.0
    for index, name in enumerate(names):
        controls = [(one[index], other[index]) for one, other in zip(results, nudged, strict=True)]
        controls += [(one[index], other[index]) for one, other in zip(others[0], shaken, strict=True)]
        controls += [(one[index], other[index]) for one, other in zip(others[0], others[-1], strict=True)]
        bound = rounding_bound(controls)
        for outputs in others:
            for number, (one, other) in enumerate(zip(results, outputs, strict=True)):
                seen = difference(one[index], other[index])
                if not seen.size <= bound.value:
                    raise RefusalError(
                        f"the converted model computes something else: output {name!r} of input {number} differs by "
                        f"{seen.size:.2g} ({seen.one} before, {seen.other} after), allowed are {bound.value:.2g}",
                        hint=f"onnx's converter does not carry this model over. {_HINT}",
                    )
                worst = max(worst, seen.size)
    return worst

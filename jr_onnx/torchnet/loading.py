"""Make a module of a model file: read, compile, determine what the file does not state, assemble."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx
import torch

from jr_onnx.errors import InputError, JrError, ModelError, UnsupportedOpsError
from jr_onnx.torchnet.blueprint import Blueprint
from jr_onnx.torchnet.building import Builder
from jr_onnx.torchnet.dtypes import FLOATS, Precision
from jr_onnx.torchnet.module import OnnxModule
from jr_onnx.torchnet.probing import LogitsFrom, ProbingResult, explore, logits_places
from jr_onnx.torchnet.program import mark_overwritable, prune
from jr_onnx.torchnet.source import Readable, image_input, logit_candidates, read
from jr_onnx.weights import find_weights


def load(
    model: Readable,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    output: str | None = None,
    logits_from: LogitsFrom = "pre_softmax",
    input_shape: Sequence[int | None] | None = None,
    values: Mapping[str, float] | None = None,
    trainable: bool | Collection[str] = False,
) -> OnnxModule:
    """Make a torch module of an ONNX classifier.

    A retrofitted file is evaluated as its original with the kappas from its provenance, so that kappa and derivative
    of every site can be changed. The result's `notes` list what was chosen.

    Args:
        model: A path, a ModelProto, or what `torchnet.source.read` made of one.
        device: Where to compute.
        dtype: Floating type of the whole computation; None for the model's own types.
        output: Which output, or value of the main graph, holds the logits; None for the first floating matrix.
        logits_from: Take the logits before a softmax, a scale and whatever else at the end keeps the order of classes
            (see `tails`), or the output as it is.
        input_shape: The input's shape where the model does not declare it; None for a dynamic axis.
        values: The number that fills each input besides the images, by name.
        trainable: Whether the weights (`jr_onnx.find_weights`) become parameters, or the names of those that do. True
            leaves out the statistics of BatchNormalization. Parameters are called as the weights are;
            `jr_onnx.save_weights` writes them back.

    Raises:
        UnsupportedOpsError: The model has operators that cannot be evaluated; the error lists all of them.
        ModelError: The model is not a classifier with one image input, or is broken.
        InputError: An argument is invalid or contradicts the model.
    """
    if dtype is not None and dtype not in FLOATS.values():
        raise InputError(f"dtype is {dtype}, expected one of {', '.join(str(item) for item in FLOATS.values())}")
    if logits_from not in ("pre_softmax", "output"):
        raise InputError(f"logits_from is {logits_from!r}, expected pre_softmax or output")
    source = read(model, values)
    trained = _trained(source.model, trainable)
    builder = Builder(source, image_input(source.model, input_shape), Precision(dtype), trained)
    errors: list[JrError] = []
    for name in logit_candidates(source.model, output):
        try:
            findings = explore(builder, name, logits_from)
        except (ModelError, UnsupportedOpsError) as error:
            errors.append(error)
            continue
        net = _assemble(builder, findings, name, dict(values or {}))
        if source.provenance is not None and source.provenance.plan.random is not None:
            drawn = source.provenance.plan.random
            net.set_random(drawn.low, drawn.high, drawn.per)
        return net.to(device)
    raise next((error for error in errors if isinstance(error, UnsupportedOpsError)), errors[0])


def _trained(model: onnx.ModelProto, trainable: bool | Collection[str]) -> dict[tuple[str, str], str]:
    """Return (scope path, name) -> parameter of the tensors that are to be trained."""
    if trainable is False:
        return {}
    known = find_weights(model)
    wanted = {item.name for item in known if not item.is_statistic} if trainable is True else set(trainable)
    unknown = sorted(wanted - {item.name for item in known})
    if unknown:
        raise InputError(f"the model has no weight {unknown[0]!r}", hint="jr_onnx.find_weights lists them")
    if not wanted:
        raise ModelError("the model has no weights that could be trained")
    return {(item.scope, item.tensor): item.same_as or item.name for item in known if item.name in wanted}


def same_logits(
    model: Readable,
    names: Sequence[str],
    *,
    input_shape: Sequence[int | None] | None = None,
    values: Mapping[str, float] | None = None,
) -> dict[str, int]:
    """Return which outputs come from the same logits, as logits and their softmax do: name -> number of its group.

    Raises:
        UnsupportedOpsError: The model has operators that cannot be evaluated.
        ModelError: An output is not a matrix, or the graph cannot be evaluated.
    """
    source = read(model, values)
    builder = Builder(source, image_input(source.model, input_shape), Precision(None))
    compiled = builder.compile(*names)
    places = logits_places(builder, compiled)
    order = list(dict.fromkeys(places))
    return {name: order.index(place) for name, place in zip(names, places, strict=True)}


def _assemble(builder: Builder, findings: ProbingResult, name: str, values: dict[str, float]) -> OnnxModule:
    compiled = findings.compiled
    compiler = compiled.compiler
    prune(compiled.program)
    mark_overwritable(compiled.program)
    parameters = compiler.parameters
    used: set[int] = set(compiled.program.results)
    for step in compiled.program.steps:
        used |= step.reads()
    host = used - set(parameters.values())
    blueprint = Blueprint(
        program=compiled.program,
        places=compiler.count,
        host_constants={place: tensor for place, tensor in compiler.constants.items() if place in host},
        sites=compiled.sites,
        input_place=compiled.input_place,
        input_name=builder.entry.name,
        input_shape=(None, *builder.entry.shape[1:]),
        output_name=name,
        logits_name=compiled.names.get(compiled.result, ""),
        tail=findings.tail.ops,
        single=findings.single,
        threshold=findings.tail.threshold,
        num_classes=findings.num_classes,
        static_batch=findings.static_batch,
        mappable=findings.mappable,
        draws_apart=findings.draws_apart,
        notes=findings.notes,
        dtype=compiled.dtype,
        override=builder.precision.override,
        differentiable=findings.differentiable,
        values=values,
        parameters={name: place for name, place in parameters.items() if place in used},
    )
    aliases = {alias: source for source, alias in compiler.on_device.items() if alias in used}
    weights = {place: compiler.constants[place] for place in blueprint.parameters.values()}
    return OnnxModule(blueprint, {alias: compiler.constants[source] for alias, source in aliases.items()} | weights)

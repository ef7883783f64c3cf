"""Make a module of a model file: read, compile, choose the logits, find out which batch sizes the graph can run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
import torch
from torch import Tensor

from jr_onnx.errors import JrError, ModelError, UnsupportedOpsError
from jr_onnx.rewrite.scopes import function_key, top_scopes
from jr_onnx.rewrite.sites import locate
from jr_onnx.torchnet.compiler import Compiler
from jr_onnx.torchnet.dtypes import FLOATS, Precision, name_of
from jr_onnx.torchnet.module import Blueprint, OnnxModule
from jr_onnx.torchnet.program import Context, OpStep, Program, SiteState, Values, execute, prune
from jr_onnx.torchnet.references import Ref, SitePlan
from jr_onnx.torchnet.sites import TorchSite, own_jumps, torch_sites
from jr_onnx.torchnet.source import GraphInput, Source, image_input, logit_candidates, read

LogitsFrom = Literal["pre_softmax", "output"]

_SPATIAL_GUESSES = (32, 28, 64, 224, 299, 8)
_PASSED_ON = ("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast")
_SOFTMAXES = ("Softmax", "LogSoftmax")


def load(
    model: str | Path | onnx.ModelProto,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    output: str | None = None,
    logits_from: LogitsFrom = "pre_softmax",
    input_shape: Sequence[int | None] | None = None,
) -> OnnxModule:
    """Make a torch module of an ONNX classifier.

    A retrofitted file is evaluated as its original with the kappas from its provenance, so that kappa and derivative
    of every site can be changed. The result's `notes` say what was chosen.

    Args:
        model: A path or a ModelProto.
        device: Where to compute.
        dtype: Floating type of the whole computation; None for the model's own types.
        output: Which output, or value of the main graph, holds the logits; None for the first floating matrix.
        logits_from: Take the logits before a final Softmax or LogSoftmax, or the output as it is.
        input_shape: The input's shape where the model does not declare it; None for a free axis.

    Raises:
        UnsupportedOpsError: The model has operators that cannot be evaluated; the error lists all of them.
        ModelError: The model is no classifier with one image input, or is broken.
        InputError: An argument contradicts the model.
    """
    source = read(model)
    entry = image_input(source.model, input_shape)
    if dtype is not None and dtype not in FLOATS.values():
        raise ModelError(f"dtype is {dtype}, expected one of {', '.join(str(item) for item in FLOATS.values())}")
    builder = _Builder(source, entry, Precision(dtype))
    errors: list[JrError] = []
    for name in logit_candidates(source.model, output):
        try:
            net = _module(builder, name, logits_from)
        except (ModelError, UnsupportedOpsError) as error:
            errors.append(error)
            continue
        if source.provenance is not None and source.provenance.plan.random is not None:
            drawn = source.provenance.plan.random
            net.set_random(drawn.low, drawn.high, drawn.per)
        return net.to(device)
    raise next((error for error in errors if isinstance(error, UnsupportedOpsError)), errors[0])


@dataclass(frozen=True)
class Compiled:
    """One compilation: the program, its constants, and where the input goes."""

    program: Program
    compiler: Compiler
    input_place: int
    dtype: torch.dtype
    names: dict[int, str]


class _Builder:
    """Compile one source as often as needed, reading its weights once."""

    def __init__(self, source: Source, entry: GraphInput, precision: Precision) -> None:
        self.entry = entry
        self.source = source
        findings = locate(source.model)
        self._tops = top_scopes(source.model)
        pairs = torch_sites(findings.located, source.provenance)
        pairs += own_jumps(self._tops, len(pairs))
        self.sites: tuple[TorchSite, ...] = tuple(site for site, _ in pairs)
        self._plans: dict[tuple[str, str], SitePlan] = {(site.scope, site.output): plan for site, plan in pairs}
        self._functions = {function_key(top.function): top for top in self._tops if top.function is not None}
        self.precision = precision
        self._cache: dict[str, Tensor] = {}

    def compile(self, name: str, lead: int | None) -> Compiled:
        """Compile what one value needs.

        Raises:
            UnsupportedOpsError: Operators that cannot be evaluated.
        """
        compiler = Compiler(self._functions, self._plans, self.precision, lead, self.source.base_dir, cache=self._cache)
        place = compiler.new_place()
        env = {self.entry.name: Ref(place, "device", self.entry.element_type)}
        steps, results = compiler.graph(self._tops[0], env, [name])
        if compiler.unsupported:
            raise _unsupported(compiler)
        if results[0].kind != "device":
            raise ModelError(f"the value {name!r} does not depend on the input {self.entry.name!r}")
        program = Program(steps, (results[0].place,))
        names = {ref.place: known for known, ref in env.items()}
        return Compiled(program, compiler, place, self._float_type(compiler), names)

    def _float_type(self, compiler: Compiler) -> torch.dtype:
        """Return the floating type of the input, or for an integer input that of the weights."""
        own = self.precision.of(self.entry.element_type)
        if own is not None and own.is_floating_point:
            return own
        weights = (tensor.dtype for tensor in compiler.constants.values() if tensor.is_floating_point())
        return self.precision.override or next(weights, torch.float32)


def _unsupported(compiler: Compiler) -> UnsupportedOpsError:
    found = sorted(compiler.unsupported)
    ops = tuple(str(item) for item in found)
    return UnsupportedOpsError(
        f"{len(found)} node(s) cannot be evaluated with gradients: {'; '.join(ops)}",
        hint="Black-box attacks need only ONNX Runtime and remain possible",
        ops=ops,
    )


def _module(builder: _Builder, name: str, logits_from: LogitsFrom) -> OnnxModule:
    """Compile, choose the logits and the batch mode, and assemble the module."""
    notes: list[str] = []
    compiled = builder.compile(name, None)
    inputs = _probe_inputs(builder, compiled)
    whole = _attempt(builder, compiled, inputs[0])
    if isinstance(whole, JrError):
        raise whole
    softmax = _final_softmax(compiled.program)
    if softmax is not None and logits_from == "pre_softmax":
        before = _attempt(builder, compiled, inputs[0], softmax.inputs[0])
        if isinstance(before, Tensor) and before.numel() == whole.numel() and _matrix(before, inputs[0].shape[0]):
            notes.append(f"logits are taken before the final softmax of {name!r}")
            compiled = _with_result(compiled, softmax.inputs[0])
            whole = before
        else:
            softmax = None
    elif softmax is not None:
        softmax = None
        notes.append(f"the output {name!r} is a softmax, whose gradients vanish where the model is sure")
    if not _matrix(whole, inputs[0].shape[0]):
        raise ModelError(
            f"the output {name!r} has the shape {list(whole.shape)} for {inputs[0].shape[0]} sample(s), expected "
            "(samples, classes)",
            hint="Choose another with output=...",
        )
    compiled, static_batch = _batch_mode(builder, compiled, name, softmax is not None, inputs)
    if static_batch is not None:
        notes.append(f"the graph only runs with batches of {static_batch}; others are cut and filled up")
    if builder.entry.element_type not in FLOATS:
        notes.append(
            f"the input is of type {name_of(builder.entry.element_type)}; it is evaluated on floating values, so that "
            "there is a gradient"
        )
    classes = whole.numel() // inputs[0].shape[0]
    differentiable = _has_gradient(builder, compiled, inputs[0])
    if not differentiable:
        notes.append("no gradient leads from the logits to the input (it is rounded or used as an index)")
    result = _Result(name, softmax.op_type if softmax else "", classes, static_batch, differentiable, tuple(notes))
    return _assemble(builder, compiled, result)


@dataclass(frozen=True)
class _Result:
    """What was found out about the logits and the batch."""

    output_name: str
    softmax: str
    num_classes: int
    static_batch: int | None
    differentiable: bool
    notes: tuple[str, ...]


def _probe_inputs(builder: _Builder, compiled: Compiled) -> tuple[Tensor, Tensor]:
    """Return two inputs of the declared batch size whose free axes were guessed so that the graph runs."""
    shape = builder.entry.shape
    generator = torch.Generator().manual_seed(0)
    last: JrError | None = None
    for guess in _SPATIAL_GUESSES:
        sizes = [shape[0] or 1, *(guess if size is None else size for size in shape[1:])]
        pair = torch.rand((2, *sizes), generator=generator, dtype=torch.float64).to(compiled.dtype)
        found = _attempt(builder, compiled, pair[0])
        if isinstance(found, Tensor):
            return pair[0], pair[1]
        last = found
        if None not in shape[1:]:
            break
    raise last if last is not None else ModelError("the model has no input")


def _attempt(builder: _Builder, compiled: Compiled, x: Tensor, place: int | None = None) -> Tensor | JrError:
    """Run a program at kappa 0, where everything is continuous; return the error where it does not run."""
    try:
        with torch.no_grad():
            return _run_once(builder, compiled, x, place)
    except ModelError as error:
        return error


def _has_gradient(builder: _Builder, compiled: Compiled, x: Tensor) -> bool:
    """Tell whether the result depends on the input by differentiable steps."""
    with torch.enable_grad():
        return _run_once(builder, compiled, x.clone().requires_grad_()).requires_grad


def _run_once(builder: _Builder, compiled: Compiled, x: Tensor, place: int | None = None) -> Tensor:
    program = compiled.program if place is None else _with_result(compiled, place).program
    values: Values = [compiled.compiler.constants.get(at) for at in range(compiled.compiler.count)]
    for source, alias in compiled.compiler.on_device.items():
        values[alias] = compiled.compiler.constants[source]
    values[compiled.input_place] = x
    states = [SiteState(0.0) for _ in builder.sites]
    kappas = [site.kappa if site.form == "own_jump" else 0.0 for site in builder.sites]
    context = Context(torch.device("cpu"), kappas, states, [site.id for site in builder.sites])
    execute(program.steps, values, context)
    result: Tensor = values[program.results[0]]
    return result


def _with_result(compiled: Compiled, place: int) -> Compiled:
    return dataclasses.replace(compiled, program=Program(compiled.program.steps, (place,)))


def _matrix(result: Tensor, batch: int) -> bool:
    """Tell whether a result is (batch, classes), axes of length one aside."""
    return (
        result.is_floating_point()
        and result.dim() >= 2
        and result.shape[0] == batch
        and sum(size > 1 for size in result.shape[1:]) <= 1
    )


def _final_softmax(program: Program) -> OpStep | None:
    """Return the softmax that the result comes from, None where there is none."""
    producers = {place: step for step in program.steps for place in step.outputs}
    place = program.results[0]
    while True:
        step = producers.get(place)
        if not isinstance(step, OpStep):
            return None
        if step.op_type in _SOFTMAXES:
            return step
        if step.op_type not in _PASSED_ON:
            return None
        place = step.inputs[0]


def _batch_mode(
    builder: _Builder, compiled: Compiled, name: str, before_softmax: bool, inputs: tuple[Tensor, Tensor]
) -> tuple[Compiled, int | None]:
    """Find out by trial whether the graph treats a batch as its samples, if need be with its constants rewritten.

    Returns:
        The compilation to use, and the only batch size it can run with, None where any will do.
    """
    reference = [_attempt(builder, compiled, x) for x in inputs]
    if any(isinstance(item, JrError) for item in reference):
        return compiled, inputs[0].shape[0]
    expected = torch.cat([item for item in reference if isinstance(item, Tensor)])
    if _same(_attempt(builder, compiled, torch.cat(inputs)), expected):
        return compiled, None
    size = inputs[0].shape[0]
    rewritten = builder.compile(name, size)
    if before_softmax:
        softmax = _final_softmax(rewritten.program)
        rewritten = rewritten if softmax is None else _with_result(rewritten, softmax.inputs[0])
    if _same(_attempt(builder, rewritten, torch.cat(inputs)), expected):
        return rewritten, None
    return compiled, size


def _same(found: Tensor | JrError, expected: Tensor) -> bool:
    """Tell whether two runs agree but for rounding.

    The order of summation may depend on the batch size; over the whole network that costs less than half of the
    digits, while samples that see each other (or a wrong reshape) change the leading ones.
    """
    if isinstance(found, JrError) or found.shape != expected.shape:
        return False
    scale = expected.abs().max().item() if expected.numel() else 0.0
    tolerance = math.sqrt(torch.finfo(expected.dtype).eps) * max(scale, torch.finfo(expected.dtype).tiny)
    return bool(torch.allclose(found, expected, rtol=0.0, atol=tolerance, equal_nan=True))


def _assemble(builder: _Builder, compiled: Compiled, result: _Result) -> OnnxModule:
    prune(compiled.program)
    used: set[int] = set(compiled.program.results)
    for step in compiled.program.steps:
        used |= step.reads()
    compiler = compiled.compiler
    aliases = {alias: source for source, alias in compiler.on_device.items() if alias in used}
    blueprint = Blueprint(
        program=compiled.program,
        places=compiler.count,
        host_constants={place: tensor for place, tensor in compiler.constants.items() if place in used},
        sites=builder.sites,
        input_place=compiled.input_place,
        input_name=builder.entry.name,
        input_shape=(None, *builder.entry.shape[1:]),
        output_name=result.output_name,
        logits_name=compiled.names.get(compiled.program.results[0], ""),
        softmax=result.softmax,
        num_classes=result.num_classes,
        static_batch=result.static_batch,
        notes=result.notes,
        dtype=compiled.dtype,
        override=builder.precision.override,
        differentiable=result.differentiable,
    )
    return OnnxModule(blueprint, {alias: compiler.constants[source] for alias, source in aliases.items()})

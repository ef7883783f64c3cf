"""Compile one source as often as needed, reading its weights once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from jr_onnx.errors import ModelError, UnsupportedOpsError
from jr_onnx.rewriter.scopes import function_key, top_scopes
from jr_onnx.rewriter.sites import locate
from jr_onnx.torchnet.compiler import Compiler
from jr_onnx.torchnet.draw import Draw
from jr_onnx.torchnet.dtypes import FLOATS, Precision
from jr_onnx.torchnet.jump import SiteBackward
from jr_onnx.torchnet.program import ABSENT, Context, Program, Values, execute
from jr_onnx.torchnet.references import Ref, SitePlan
from jr_onnx.torchnet.sites import TorchSite, own_jumps, torch_sites
from jr_onnx.torchnet.source import ImageInput, Source


@dataclass(frozen=True)
class Compiled:
    """One compilation.

    Attributes:
        program: The steps.
        compiler: The compiler after its work, with the constants.
        input_place: Where the input goes.
        dtype: Floating type of the input.
        names: Place -> name of the main graph's value there.
        sites: The model's sites.
    """

    program: Program
    compiler: Compiler
    input_place: int
    dtype: torch.dtype
    names: dict[int, str]
    sites: tuple[TorchSite, ...]

    @property
    def result(self) -> int:
        """Where the result lies."""
        return self.program.results[0]

    def ending_at(self, place: int) -> Compiled:
        """Return the same compilation with another value as its result."""
        return dataclasses.replace(self, program=Program(self.program.steps, (place,)))

    def trial(self, x: Tensor) -> Values:
        """Run once on the CPU at kappa 0, where everything is continuous, drawing nothing, and return all values.

        Raises:
            ModelError: A node cannot be evaluated.
        """
        values: Values = [self.compiler.constants.get(at, ABSENT) for at in range(self.compiler.count)]
        for source, alias in self.compiler.on_device.items():
            values[alias] = self.compiler.constants[source]
        values[self.input_place] = x
        kappas = [site.kappa if site.form == "own_jump" else 0.0 for site in self.sites]
        backwards = [SiteBackward.exact()] * len(kappas)
        ids = [site.id for site in self.sites]
        context = Context(torch.device("cpu"), kappas, backwards, ids, draw=Draw(take_mean=True))
        execute(self.program.steps, values, context)
        return values


class Builder:
    """Compile values of one model.

    Args:
        source: The model.
        entry: Its input.
        precision: What to compute in.
        trained: (scope path, name) of the tensors that are to be parameters -> the parameter's name.
    """

    def __init__(
        self,
        source: Source,
        entry: ImageInput,
        precision: Precision,
        trained: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self._trained = trained or {}
        self.entry = entry
        self.precision = precision
        findings = locate(source.model)
        self._tops = top_scopes(source.model)
        pairs = torch_sites(findings.located, source.provenance)
        pairs += own_jumps(self._tops, len(pairs), {(site.scope, site.output) for site, _ in pairs})
        self._sites: tuple[TorchSite, ...] = tuple(site for site, _ in pairs)
        self._plans: dict[tuple[str, str], SitePlan] = {(site.scope, site.output): plan for site, plan in pairs}
        self._functions = {function_key(top.function): top for top in self._tops if top.function is not None}
        self._cache: dict[str, Tensor] = {}

    def compile(self, *wanted: str, lead: int | None = None) -> Compiled:
        """Compile what some values of the main graph need.

        Args:
            wanted: The values.
            lead: The exported batch size that constant shapes begin with, where they are to follow the batch.

        Raises:
            UnsupportedOpsError: Operators that cannot be evaluated; all of them.
            ModelError: The value does not depend on the input, or the graph is broken.
        """
        compiler = Compiler(
            self._functions, self._plans, self.precision, lead, cache=self._cache, trained=self._trained
        )
        if self.entry.element_type in FLOATS:
            compiler.float_type = self.entry.element_type
        place = compiler.new_place()
        env = {self.entry.name: Ref(place, "device", self.entry.element_type)}
        steps, results = compiler.graph(self._tops[0], env, wanted)
        if compiler.unsupported:
            raise _unsupported(compiler)
        for name, result in zip(wanted, results, strict=True):
            if result.kind != "device":
                raise ModelError(f"the value {name!r} does not depend on the input {self.entry.name!r}")
        names = {ref.place: known for known, ref in env.items()}
        program = Program(steps, tuple(result.place for result in results))
        return Compiled(program, compiler, place, self._float_type(compiler), names, self._sites)

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

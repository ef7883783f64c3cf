"""Run any model through the compiler, with several inputs and outputs, as the operator tests need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor

from jr_onnx.errors import UnsupportedOpsError
from jr_onnx.rewriter.scopes import function_key, top_scopes
from jr_onnx.torchnet.compiler import Compiler
from jr_onnx.torchnet.dtypes import Precision, from_array, from_proto
from jr_onnx.torchnet.program import Context, Program, Values, execute, prune
from jr_onnx.torchnet.references import Ref


def to_tensor(value: object, element_type: int) -> Tensor | None:
    """Turn a test case's value into a tensor; None for what is not a tensor of a type that torch has."""
    if isinstance(value, onnx.TensorProto):
        return from_proto(value)
    if not isinstance(value, np.ndarray | np.generic | int | float | bool):
        return None
    return from_array(np.asarray(value), element_type)


def evaluate(
    model: onnx.ModelProto,
    feeds: Mapping[str, Tensor],
    *,
    fixed: Sequence[str] = (),
    precision: Precision | None = None,
) -> list[Tensor]:
    """Compile a model and run it on `feeds`; the inputs named in `fixed` are constants to the compiler."""
    tops = top_scopes(model)
    functions = {function_key(top.function): top for top in tops if top.function is not None}
    compiler = Compiler(functions, {}, precision or Precision())
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    env: dict[str, Ref] = {}
    for name, tensor in feeds.items():
        if name in fixed:
            env[name] = compiler.constant(tensor, types.get(name, 0))
        else:
            env[name] = Ref(compiler.new_place(), "device", types.get(name, 0))
    dynamic = {name: env[name].place for name in feeds if name not in fixed}
    wanted = [value.name for value in model.graph.output]
    steps, results = compiler.graph(tops[0], env, wanted)
    if compiler.unsupported:
        raise UnsupportedOpsError("unsupported", ops=tuple(str(item) for item in compiler.unsupported))
    program = Program(steps, tuple(ref.place for ref in results))
    prune(program)
    values: Values = [compiler.constants.get(place) for place in range(compiler.count)]
    for source, alias in compiler.on_device.items():
        values[alias] = compiler.constants[source]
    for name, place in dynamic.items():
        values[place] = feeds[name]
    execute(program.steps, values, Context(torch.device("cpu"), [], [], []))
    return [values[place] for place in program.results]

"""Compile a model into a program: functions inlined, constants folded, attributes read once.

Every value is of one of three kinds: *constant* (known now), *host* (made of shapes, so it stays on the CPU) or
*device* (made of the input). An operator on host values runs on the host; a host value that meets a device value is
moved. So shape arithmetic never waits for a GPU, and the batch size stays free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx
import torch
from onnx import AttributeProto, TensorProto
from torch import Tensor

from jr_onnx.element_types import type_name
from jr_onnx.errors import JrError, ModelError, one_line
from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter.scopes import Scope, function_key
from jr_onnx.torchnet import ops as _ops
from jr_onnx.torchnet.attributes import output_type, read_attributes
from jr_onnx.torchnet.draw import Drawing
from jr_onnx.torchnet.dtypes import Precision, from_proto
from jr_onnx.torchnet.expansion import expand
from jr_onnx.torchnet.ops.microsoft import LINEAR_PARTS
from jr_onnx.torchnet.program import BranchStep, DrawStep, MoveStep, OpStep, Program, SiteStep, Step
from jr_onnx.torchnet.references import Kind, Ref, SitePlan, Unsupported
from jr_onnx.torchnet.registry import MAX_OPSET, MIN_OPSET, TABLE, Node, UnsupportedNodeError, find
from jr_onnx.torchnet.topology import branch_bodies, needed_nodes, without_inputs
from jr_onnx.weights.find import constant_tensor

__all__ = ["Compiler", "Ref", "SitePlan", "Unsupported"]

_FAMILIES = _ops.__all__  # importing the package has filled the table of operators
_MAX_DEPTH = 64
_MAX_FOLDED = 1 << 26


@dataclass
class _Frame:
    """One body while its nodes are compiled.

    Attributes:
        scope: The main graph, a branch, or a function's body.
        env: Name -> value; extended with what the nodes define.
        bound: Attributes that a function's body refers to.
        depth: How many bodies lie around it.
        steps: The program so far.
    """

    scope: Scope
    env: dict[str, Ref]
    bound: Mapping[str, AttributeProto]
    depth: int
    steps: list[Step] = field(default_factory=list)

    def label(self, proto: onnx.NodeProto) -> str:
        """Return what messages call a node."""
        return self.scope.node_label(proto)


@dataclass
class Compiler:
    """Compile one model.

    Attributes:
        functions: Function key -> scope of its body.
        sites: (scope path, output name) -> the site's plan.
        precision: Element types to torch types.
        lead: The exported batch size that constant shapes begin with, where they are to follow the batch.
        constants: Place -> tensor, filled while compiling.
        on_device: Places of constants that operators read as data.
        unsupported: What cannot be evaluated, filled while compiling.
        count: How many places there are.
        cache: Name -> main-graph initializer, shared by compilations of one model.
        trained: (scope path, name) of the tensors that are to be parameters -> the parameter's name.
        parameters: Name -> place of a parameter, filled while compiling.
        float_type: The element type of values whose type the model does not declare.
    """

    functions: Mapping[str, Scope]
    sites: Mapping[tuple[str, str], SitePlan]
    precision: Precision = field(default_factory=Precision)
    lead: int | None = None
    constants: dict[int, Tensor] = field(default_factory=dict)
    on_device: dict[int, int] = field(default_factory=dict)
    unsupported: list[Unsupported] = field(default_factory=list)
    count: int = 0
    cache: dict[str, Tensor] = field(default_factory=dict)
    trained: Mapping[tuple[str, str], str] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    float_type: int = TensorProto.FLOAT

    def new_place(self) -> int:
        """Return a fresh place."""
        self.count += 1
        return self.count - 1

    def constant(self, tensor: Tensor, element_type: int = 0) -> Ref:
        """Return a reference to a new constant."""
        place = self.new_place()
        self.constants[place] = tensor
        return Ref(place, "const", element_type)

    def graph(self, scope: Scope, env: dict[str, Ref], wanted: Sequence[str]) -> tuple[list[Step], list[Ref]]:
        """Compile the nodes of the main graph or a branch that `wanted` values need.

        Args:
            scope: The graph.
            env: Name -> value; the graph's inputs and the outer names. Extended with what the graph defines.
            wanted: Names to compute.

        Returns:
            The steps, and the wanted values.

        Raises:
            ModelError: A value is used that nothing defines.
        """
        if scope.graph is not None:
            self._initializers(scope, env, self.cache)
        return self._nodes(_Frame(scope, env, {}, 0), wanted)

    def _initializers(self, scope: Scope, env: dict[str, Ref], cache: dict[str, Tensor]) -> None:
        for tensor in scope.graph.initializer if scope.graph is not None else ():
            if (scope.path, tensor.name) in self.trained:
                env[tensor.name] = self._parameter(scope.path, tensor.name, tensor, cache)
                continue
            value = cache[tensor.name] if tensor.name in cache else self._read(tensor)
            if value is not None:
                cache[tensor.name] = value
                env[tensor.name] = self.constant(value, tensor.data_type)

    def _parameter(self, path: str, name: str, tensor: onnx.TensorProto, cache: dict[str, Tensor]) -> Ref:
        """Return a reference to a tensor that can be trained: a value like those made of the input, never folded."""
        known = self.trained[path, name]
        if known not in self.parameters:
            value = cache[name] if name in cache else self._read(tensor)
            if value is None:
                raise ModelError(f"the weight {known!r} has an element type that torch lacks")
            cache[name] = value
            self.parameters[known] = self.new_place()
            self.constants[self.parameters[known]] = value
        return Ref(self.parameters[known], "device", tensor.data_type)

    def _read(self, tensor: onnx.TensorProto) -> Tensor | None:
        try:
            value = from_proto(tensor)
        except (JrError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - onnx raises anything on a tensor that contradicts itself
            raise ModelError(f"the tensor {tensor.name!r} cannot be read: {one_line(error)}") from None
        return None if value is None else self.precision.cast(value)

    def _nodes(self, frame: _Frame, wanted: Sequence[str]) -> tuple[list[Step], list[Ref]]:
        for position in needed_nodes(frame.scope, frame.env, wanted):
            self._node(frame, position)
        missing = [name for name in wanted if name not in frame.env]
        if missing:
            raise ModelError(f"the value {missing[0]!r} is not defined in {frame.scope.path or 'the main graph'}")
        return frame.steps, [frame.env[name] for name in wanted]

    def _node(self, frame: _Frame, position: int) -> None:
        """Compile one node, adding its outputs and its steps to the frame."""
        scope = frame.scope
        proto = scope.nodes[position]
        output = str(proto.output[0]) if proto.output else ""
        if (scope.path, output) in self.trained and (weight := constant_tensor(proto)) is not None:
            frame.env[output] = self._parameter(scope.path, output, weight, {})
            return
        inputs = [self._lookup(frame, name, proto) if name else None for name in proto.input]
        called = self.functions.get(function_key(proto)) or self._expanded(scope, proto, inputs)
        plan = self.sites.get((scope.path, str(proto.output[0]))) if proto.output else None
        if called is not None and plan is None:
            self._call(frame, called, proto, inputs)
        elif proto.op_type == "If" and not normal_domain(proto.domain):
            self._branch(frame, position, inputs)
        elif plan is not None:
            self._site(frame, proto, plan, inputs)
        else:
            self._operator(frame, proto, inputs)

    def _expanded(self, scope: Scope, proto: onnx.NodeProto, inputs: Sequence[Ref | None]) -> Scope | None:
        """Return the body of a standard operator that is not registered but defined by others."""
        if normal_domain(proto.domain) or proto.op_type == "If" or ("", proto.op_type) in TABLE:
            return None
        types = [ref.element_type or self.float_type if ref is not None else 0 for ref in inputs]
        return expand(proto, scope.opset, types)

    def _lookup(self, frame: _Frame, name: str, proto: onnx.NodeProto) -> Ref:
        scope = frame.scope
        if name in frame.env:
            return frame.env[name]
        if scope.graph is not None and any(tensor.name == name for tensor in scope.graph.initializer):
            tensor = next(tensor for tensor in scope.graph.initializer if tensor.name == name)
            self._refuse(frame, proto, f"element type {type_name(tensor.data_type)} of {name!r}")
            return self.constant(torch.zeros(()), tensor.data_type)
        if scope.graph is not None and any(sparse.values.name == name for sparse in scope.graph.sparse_initializer):
            self._refuse(frame, proto, f"the sparse initializer {name!r}")
            return self.constant(torch.zeros(()))
        raise ModelError(f"the node {scope.node_label(proto)!r} reads {name!r}, which nothing defines")

    def _refuse(self, frame: _Frame, proto: onnx.NodeProto, reason: str) -> None:
        scope = frame.scope
        domain = normal_domain(proto.domain)
        label = f"{scope.path}/{scope.node_label(proto)}" if scope.path else scope.node_label(proto)
        entry = Unsupported(str(proto.op_type), domain, scope.opsets.get(domain, 0), label, reason)
        if entry not in self.unsupported:
            self.unsupported.append(entry)

    def _operator(self, frame: _Frame, proto: onnx.NodeProto, inputs: list[Ref | None]) -> None:
        domain = normal_domain(proto.domain)
        version = frame.scope.opsets.get(domain, 0 if domain == "" else 1)
        spec = find(domain, str(proto.op_type), version)
        reason = ""
        if domain == "" and not MIN_OPSET <= version <= MAX_OPSET:
            spec, reason = None, f"operator sets {MIN_OPSET} to {MAX_OPSET} are supported"
        function = None
        node = self._view(frame, proto, inputs, version)
        if spec is not None:
            try:
                function = spec.build(node)
            except UnsupportedNodeError as error:
                reason = str(error)
        if spec is None or function is None:
            self._refuse(frame, proto, reason)
            for name in proto.output:
                frame.env[name] = Ref(self.new_place(), "device")
            return
        if isinstance(function, Drawing):
            places = tuple(self._placed(ref, "device", frame.steps) for ref in inputs)
            drawing = DrawStep(frame.label(proto), str(proto.op_type), places, (), drawing=function.run)
            drawing.outputs = self._outputs(proto, frame.env, "device", node)
            frame.steps.append(drawing)
            return
        present = [ref for ref in inputs if ref is not None]
        step = OpStep(
            frame.label(proto),
            str(proto.op_type),
            (),
            (),
            function=function,
            domain=domain,
            opset=version,
            attributes=node.attributes,
        )
        if all(ref.kind == "const" for ref in present):
            if self._fold(step, inputs, proto, frame.env, node):
                return
            kind: Kind = "device"
        else:
            data = [ref for at, ref in enumerate(inputs) if ref is not None and at not in spec.host]
            kind = "device" if any(ref.kind == "device" for ref in data) else "host"
            if not any(ref.kind == "host" for ref in data) and any(ref.kind == "device" for ref in present):
                kind = "device"
        if proto.op_type in ("Shape", "Size") and not domain:
            kind = "host"
            step.inputs = tuple(self._as_is(ref) for ref in inputs)
        else:
            step.inputs = tuple(
                self._placed(
                    ref, "host" if at in spec.host and (ref is None or ref.kind != "device") else kind, frame.steps
                )
                for at, ref in enumerate(inputs)
            )
        step.outputs = self._outputs(proto, frame.env, kind, node)
        frame.steps.append(step)

    def _view(self, frame: _Frame, proto: onnx.NodeProto, inputs: Sequence[Ref | None], version: int) -> Node:
        return Node(
            op_type=str(proto.op_type),
            name=frame.label(proto),
            opset=version,
            attributes=read_attributes(proto, frame.bound, self._read),
            constants=[
                self.constants[ref.place] if ref is not None and ref.kind == "const" else None for ref in inputs
            ],
            present=[ref is not None for ref in inputs],
            outputs=len(proto.output),
            precision=self.precision,
            lead=self.lead,
            element_types=[ref.element_type if ref is not None else 0 for ref in inputs],
        )

    def _fold(
        self, step: OpStep, inputs: Sequence[Ref | None], proto: onnx.NodeProto, env: dict[str, Ref], node: Node
    ) -> bool:
        """Compute a node whose inputs are all constant; False where the result would be too large to keep."""
        arguments = [self.constants[ref.place] if ref is not None else None for ref in inputs]
        try:
            with torch.no_grad():
                result = step.function(*arguments)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(f"the node {step.name!r} ({step.op_type}) cannot be evaluated: {reason}") from error
        results = [result] if isinstance(result, Tensor) else list(result)
        if sum(item.numel() for item in results) > _MAX_FOLDED:
            return False
        for name, item in zip(proto.output, results, strict=False):
            if name:
                env[name] = self.constant(item.detach(), output_type(proto, node))
        return True

    def _outputs(self, proto: onnx.NodeProto, env: dict[str, Ref], kind: Kind, node: Node | None) -> tuple[int, ...]:
        places = []
        for name in proto.output:
            place = self.new_place() if name else -1
            places.append(place)
            if name:
                env[name] = Ref(place, kind, output_type(proto, node) if node is not None else 0)
        return tuple(places)

    def _as_is(self, ref: Ref | None) -> int:
        return -1 if ref is None else ref.place

    def _placed(self, ref: Ref | None, kind: Kind, steps: list[Step]) -> int:
        """Return the place of a value where an operator of this kind can read it."""
        if ref is None:
            return -1
        if ref.kind == "const" and kind == "device":
            if ref.place not in self.on_device:
                self.on_device[ref.place] = self.new_place()
            return self.on_device[ref.place]
        if ref.kind == "host" and kind == "device":
            place = self.new_place()
            steps.append(MoveStep("", "to device", (ref.place,), (place,)))
            return place
        return ref.place

    def _site(self, frame: _Frame, proto: onnx.NodeProto, plan: SitePlan, inputs: list[Ref | None]) -> None:
        step = SiteStep(frame.label(proto), str(proto.op_type), (), (), site=plan.number, cap=plan.cap)
        if plan.operand is not None:
            step.inputs = (self._placed(self._lookup(frame, plan.operand, proto), "device", frame.steps),)
        else:
            version = frame.scope.opsets.get(normal_domain(proto.domain), 1)
            try:
                step.linear = LINEAR_PARTS[str(proto.op_type)](self._view(frame, proto, inputs, version))
            except (UnsupportedNodeError, KeyError) as error:
                reason = str(error) if isinstance(error, UnsupportedNodeError) else "no such fused operator"
                self._refuse(frame, proto, reason)
            step.inputs = tuple(self._placed(ref, "device", frame.steps) for ref in inputs)
        step.outputs = self._outputs(proto, frame.env, "device", None)
        frame.steps.append(step)

    def _call(self, frame: _Frame, called: Scope, proto: onnx.NodeProto, inputs: Sequence[Ref | None]) -> None:
        """Inline a model-local function."""
        function = called.function
        if function is None or frame.depth > _MAX_DEPTH:
            raise ModelError(f"the function {function_key(proto)!r} calls itself")
        pairs = zip(function.input, inputs, strict=False)
        inner: dict[str, Ref] = {str(name): ref for name, ref in pairs if ref is not None}
        given: dict[str, AttributeProto] = {default.name: default for default in function.attribute_proto}
        for attribute in proto.attribute:
            source = frame.bound.get(attribute.ref_attr_name) if attribute.ref_attr_name else attribute
            if source is not None:
                given[attribute.name] = source
        absent = {str(name) for name in function.input} - set(inner)
        wanted = [str(inside) for inside, outside in zip(function.output, proto.output, strict=False) if outside]
        body = _Frame(without_inputs(called, absent), inner, given, frame.depth + 1)
        steps, results = self._nodes(body, wanted)
        frame.steps.extend(steps)
        outsides = [str(name) for name in proto.output if name]
        frame.env.update(zip(outsides, results, strict=True))

    def _branch(self, frame: _Frame, position: int, inputs: Sequence[Ref | None]) -> None:
        """Compile an If: one branch where the condition is constant, both where it is computed."""
        proto = frame.scope.nodes[position]
        bodies = branch_bodies(frame.scope, position)
        condition = inputs[0] if inputs else None
        if condition is None or len(bodies) != 2:
            raise ModelError(f"the If node {frame.label(proto)!r} lacks its condition or a branch")
        if condition.kind == "const":
            chosen = bodies[0] if bool(self.constants[condition.place].reshape(()).item()) else bodies[1]
            inner_steps, results = self._body(frame, chosen)
            frame.steps.extend(inner_steps)
            frame.env.update({name: ref for name, ref in zip(proto.output, results, strict=False) if name})
            return
        compiled = [self._body(frame, body) for body in bodies]
        kinds: list[Kind] = [
            "host" if all(results[at].kind != "device" for _, results in compiled) else "device"
            for at in range(len(proto.output))
        ]
        programs = []
        for inner_steps, results in compiled:
            finals = tuple(self._placed(ref, kind, inner_steps) for ref, kind in zip(results, kinds, strict=True))
            programs.append(Program(inner_steps, finals))
        outputs = tuple(self.new_place() for _ in proto.output)
        for name, place, kind in zip(proto.output, outputs, kinds, strict=True):
            frame.env[name] = Ref(place, kind)
        frame.steps.append(
            BranchStep(frame.label(proto), "If", (condition.place,), outputs, branches=(programs[0], programs[1]))
        )

    def _body(self, frame: _Frame, body: Scope) -> tuple[list[Step], list[Ref]]:
        if body.graph is None:
            raise ModelError(f"{body.path!r} is not a graph")
        inner = _Frame(body, dict(frame.env), frame.bound, frame.depth + 1)
        self._initializers(body, inner.env, {})
        return self._nodes(inner, [str(value.name) for value in body.graph.output])

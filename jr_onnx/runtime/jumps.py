"""Write the jump where a marker was found in the optimised graph.

    HardSigmoid_i(z)                   ->  J_i(z)
    nchwc Conv [.., HardSigmoid_i]     ->  the same node without activation, then J_i in place
    FusedGemm [.., HardSigmoid_i]      ->  Gemm, then J_i in place                    with the op library
                                           FusedGemm [.., ThresholdedRelu]            without, fixed kappa, no cap
    other nodes [.., HardSigmoid_i]    ->  the same node [.., Relu], then J_i in place
    Conv(.., b) [+ r], HardSigmoid_i   ->  Conv(..), then BiasJumpRelu(., b[, r])    for CUDA (biases.py)

J(relu(z)) = J(z) for every z, kappa >= 0 and cap, so a fused Relu may stay; where the node does without, it goes, for
the jump's own pass replaces it (measured: docs/speed.md).
J is one node of the op library, or standard nodes where the library is missing. An element-wise node does not care
about the blocked layout, and J(0) = 0 keeps the padding of its channels at zero. With a kappa per channel it has to
know the layout (`channels`), which the node of the op library does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import onnx
from onnx import helper

from jr_onnx.element_types import NUMBERS
from jr_onnx.kappa import RandomKappa
from jr_onnx.modelfile import copied
from jr_onnx.provenance import Provenance, SiteRecord
from jr_onnx.rewriter.lowering import LOWERINGS, Jump, Lowering, Names, constant, log_step
from jr_onnx.rewriter.scopes import Scope, main_scope, replace_nodes, substitute, top_scopes
from jr_onnx.runtime.biases import BIAS_INPUT, Tail
from jr_onnx.runtime.channels import NCHWC
from jr_onnx.runtime.markers import Found, NotFollowedError, clear_activation
from jr_onnx.semantics import BIAS_OP_TYPE, OP_DOMAIN, OP_VERSION, channels_of, one_kappa, padded_to_blocks

_CLIP_WITH_INPUTS = 11
_THRESHOLDED_SINCE = 10
_WHERE_SINCE = 9
_GEMM_INPUTS = 3  # without the third, Gemm needs opset 11


@dataclass(frozen=True)
class KappaSource:
    """Where the sites of one model have their kappa from.

    Attributes:
        inputs: Graph inputs the retrofit added.
        initializers: Their defaults.
        nodes: Nodes in front of the graph that draw kappa.
        own: The range from which every site draws for itself, or None.
        has_library: Whether the op library is registered.
    """

    inputs: tuple[onnx.ValueInfoProto, ...]
    initializers: tuple[onnx.TensorProto, ...]
    nodes: tuple[onnx.NodeProto, ...]
    own: RandomKappa | None
    has_library: bool

    @property
    def runtime(self) -> str | None:
        """Name of the scalar of the main graph that holds kappa at run time, or None."""
        if self.nodes:
            return str(self.nodes[-1].output[0])
        return str(self.inputs[0].name) if self.inputs else None


def kappa_source(retrofit: onnx.ModelProto, record: Provenance, *, has_library: bool) -> KappaSource:
    """Copy from a retrofit what its jumps read, before the retrofit is undone.

    Raises:
        NotFollowedError: kappa is drawn by the op library, which is missing.
    """
    random, graph = record.plan.random, retrofit.graph
    if random is not None and random.source == "op" and not has_library:
        raise NotFollowedError("kappa is drawn by the op library, which is not there")
    return KappaSource(
        inputs=tuple(copied(value) for value in graph.input if value.name in record.undo.inputs_added),
        initializers=tuple(copied(item) for item in graph.initializer if item.name in record.undo.initializers_added),
        nodes=tuple(copied(node) for node in graph.node[: record.undo.nodes_prepended]),
        own=random if random is not None and random.per == "site" else None,
        has_library=has_library,
    )


def write_jumps(
    model: onnx.ModelProto,
    found: Sequence[Found],
    source: KappaSource,
    tails: Mapping[tuple[Scope, int], Tail],
    blocks: Mapping[tuple[Scope, int], int] = MappingProxyType({}),
) -> None:
    """Replace the markers by jumps, in place, and add what they read: the kappa input, or the node that draws.

    Args:
        model: The optimised model.
        found: Its markers.
        source: Where kappa comes from.
        tails: What a jump takes along, by its marker's scope and index.
        blocks: Channels of a block, likewise, for jumps with a kappa per channel that are in the blocked layout.

    Raises:
        NotFollowedError: A name that the retrofit uses is taken in the optimised graph, or kappas for blocks of
            channels need the op library, which is missing.
    """
    if blocks and not source.has_library:
        site = next(item.site for item in found if (item.scope, item.index) in blocks)
        raise NotFollowedError(
            f"site {site.id} has a kappa per channel, ONNX Runtime chose its blocked layout, which splits the "
            "channels, and the op library is not there"
        )
    names = Names(top_scopes(model))
    _claim(names, source)
    marks: dict[Scope, dict[int, Found | None]] = {}
    for item in found:
        marks.setdefault(item.scope, {})[item.index] = item
    for (scope, _), tail in tails.items():
        if tail.add is not None:
            marks[scope][tail.add] = None  # the jump adds by itself
        del scope.nodes[tail.convolution].input[BIAS_INPUT:]

    def write(node: onnx.NodeProto, marker: Found | None) -> list[onnx.NodeProto]:
        if marker is None:
            return []
        place = marker.scope, marker.index
        nodes, tail = _jumped(node, marker, source, names, blocks.get(place)), tails.get(place)
        return nodes if tail is None else _with_tail(nodes, tail, marker.site, names)

    substitute(marks, write)
    model.graph.input.extend(source.inputs)
    model.graph.initializer.extend(source.initializers)
    if source.nodes:
        main = main_scope(model)
        replace_nodes(main, [*source.nodes, *main.nodes])
    if source.has_library and not any(entry.domain == OP_DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(OP_DOMAIN, OP_VERSION))


def _jumped(
    node: onnx.NodeProto, found: Found, source: KappaSource, names: Names, block: int | None
) -> list[onnx.NodeProto]:
    """Return the nodes for one marker."""
    site, result = found.site, str(node.output[0])
    runtime = source.runtime
    if not found.fused:
        return _jump(site, str(node.input[0]), result, found.scope, source, names, block)
    host = copied(node)
    clear_activation(host)
    fixed = runtime is None and source.own is None and site.cap is None and not isinstance(site.kappa, tuple)
    if host.op_type == "FusedGemm" and fixed and not source.has_library:
        kappa = one_kappa(site.kappa, site.id, "ThresholdedRelu")
        host.attribute.append(helper.make_attribute("activation", "ThresholdedRelu"))
        host.attribute.append(helper.make_attribute("activation_alpha", kappa))
        return [host]
    if host.op_type == "FusedGemm" and len(host.input) == _GEMM_INPUTS and all(host.input):
        host.op_type, host.domain = "Gemm", ""
    elif not (host.op_type == "Conv" and host.domain == NCHWC):
        host.attribute.append(helper.make_attribute("activation", "Relu"))
    host.output[0] = names.fresh(f"{result}/jr_operand")
    return [host, *_jump(site, host.output[0], result, found.scope, source, names, block)]


def _with_tail(nodes: list[onnx.NodeProto], tail: Tail, site: SiteRecord, names: Names) -> list[onnx.NodeProto]:
    """Turn the JumpRelu at the end of a jump's nodes into one that adds bias and residual first."""
    *before, jump = nodes
    bias = tail.bias
    if not bias:
        bias = names.fresh(f"{tail.operand}/jr_bias")
        size = tail.channels * helper.tensor_dtype_to_np_dtype(NUMBERS[site.dtype]).itemsize
        zeros = onnx.TensorProto(data_type=NUMBERS[site.dtype], dims=[tail.channels], raw_data=bytes(size))
        before.append(helper.make_node("Constant", [], [bias], name=bias, value=zeros))
    kappa = list(jump.input)[1:]
    fused = copied(jump)
    fused.op_type = BIAS_OP_TYPE
    del fused.input[:]
    fused.input.extend([tail.operand, bias])
    if tail.residual or kappa:
        fused.input.extend([tail.residual, *kappa])
    if tail.axis != 1:
        fused.attribute.append(helper.make_attribute("axis", tail.axis))
    return [*before, fused]


def _jump(
    site: SiteRecord,
    operand: str,
    result: str,
    scope: Scope,
    source: KappaSource,
    names: Names,
    block: int | None,
) -> list[onnx.NodeProto]:
    name = names.fresh(f"{result}/jr_jump")
    jump = Jump(
        operand, result, node_name=name, base=result, dtype=site.dtype, opset=scope.opset, kappa=site.kappa,
        runtime=source.runtime, rank=site.rank, kappa_is_input=isinstance(site.kappa, tuple),
    )  # fmt: skip
    nodes: list[onnx.NodeProto] = []
    if source.own is not None and source.own.source == "op":
        jump = replace(jump, draw=(source.own.low, source.own.high))
    elif source.own is not None:
        nodes.extend(_uniform(source.own, result, names))
        jump = replace(jump, runtime=nodes[-1].output[0])
    if block is not None:
        jump = replace(jump, kappa=padded_to_blocks(channels_of(site.kappa), block), channel_block=block)
    if source.has_library:
        return [*nodes, *LOWERINGS["custom"](replace(jump, cap=site.cap), names)]
    lowering = _standard(scope.opset, variable=jump.runtime is not None or jump.kappa_is_input)
    if site.cap is None:
        return [*nodes, *LOWERINGS[lowering](jump, names)]
    jump = replace(jump, result=names.fresh(f"{result}/jr_jumped"))
    return [*nodes, *LOWERINGS[lowering](jump, names), *_cap(site.cap, jump.result, result, scope, names)]


def _standard(opset: int, *, variable: bool) -> Lowering:
    if not variable and opset >= _THRESHOLDED_SINCE:
        return "thresholded"
    if opset >= _WHERE_SINCE:
        return "where"
    return "cast_mul" if variable or opset > log_step.OPSET else "log_step"


def _cap(cap: float, operand: str, result: str, scope: Scope, names: Names) -> list[onnx.NodeProto]:
    name = names.fresh(f"{result}/jr_cap")
    if scope.opset < _CLIP_WITH_INPUTS:
        return [helper.make_node("Clip", [operand], [result], name=name, max=cap)]
    bound = constant(names, result, "bound", cap, "float32")
    return [bound, helper.make_node("Clip", [operand, "", bound.output[0]], [result], name=name)]


def _uniform(random: RandomKappa, base: str, names: Names) -> list[onnx.NodeProto]:
    vector, scalar = names.fresh(f"{base}/jr_drawn_vector"), names.fresh(f"{base}/jr_drawn")
    return [
        helper.make_node("RandomUniform", [], [vector], name=vector, low=random.low, high=random.high, shape=[1]),
        helper.make_node("Squeeze", [vector], [scalar], name=scalar),
    ]


def _claim(names: Names, source: KappaSource) -> None:
    wanted = [value.name for value in source.inputs]
    wanted += [name for node in source.nodes for name in node.output]
    for name in wanted:
        if names.fresh(name) != name:
            raise NotFollowedError(f"ONNX Runtime's optimiser uses the name {name!r}, which the retrofit added")

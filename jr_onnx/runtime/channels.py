"""Where the channels of a site are once ONNX Runtime has optimised the graph, for a kappa per channel.

Two of its optimisations move channels. It pushes a Transpose through the element-wise operators behind it, a marker
among them; a site that this may reach is not followed. And on the CPU it keeps what is between convolutions in its
blocked layout: a value (N, C, H, W) becomes (N, P, H, W), where P is C rounded up to whole blocks, and its memory holds
(N, P / block, H, W, block). There the jump is told the size of a block, and the channels that fill the last one, all of
them 0, get a kappa of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx

from jr_onnx.opsets import STANDARD_DOMAINS
from jr_onnx.rewriter.scopes import Scope, all_scopes
from jr_onnx.runtime.markers import Found, NotFollowedError
from jr_onnx.runtime.nhwc import NHWC
from jr_onnx.semantics import CHANNEL_AXIS, channels_of, padded_to_blocks

NCHWC = "com.microsoft.nchwc"
_MICROSOFT = "com.microsoft"
_KNOWN = (*STANDARD_DOMAINS, _MICROSOFT)
_RANK_OF_IMAGES = 4
# Through these ONNX Runtime pushes no Transpose.
_BARRIERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedGemm")
# Operators that are known to yield channels at axis 1, for a marker that is fused into them.
_HOSTS = (("Conv", NCHWC), ("FusedConv", _MICROSOFT), ("FusedGemm", _MICROSOFT))
# Operators of other domains that ONNX Runtime lets work on the blocked layout (its NchwcTransformer). It puts a
# reordering in front of all others.
_ON_BLOCKS = ("Add", "Sum", "Mul", "Concat", "Relu", "Sigmoid", "Tanh", "HardSigmoid", "Reshape")
_FROM_BLOCKS = "ReorderOutput"


def require_no_transpose(model: onnx.ModelProto, placed: Sequence[Found]) -> None:
    """Refuse sites with a kappa per channel that ONNX Runtime may push a Transpose through.

    Args:
        model: The model before optimisation.
        placed: Its markers.

    Raises:
        NotFollowedError: There is such a site.
    """
    sites = [item for item in placed if isinstance(item.site.kappa, tuple)]
    scopes = all_scopes(model) if sites else []
    if not any(node.op_type == "Transpose" for scope in scopes for node in scope.nodes):
        return
    producers = {item.scope: _producers(item.scope) for item in sites}
    for item in sites:
        node = item.scope.nodes[item.index]
        if not item.fused and any(_may_transpose(at, item.scope) for at in _before(node, producers[item.scope])):
            raise NotFollowedError(
                f"site {item.site.id} has a kappa per channel, and ONNX Runtime may move a Transpose past it"
            )


def find_blocks(
    model: onnx.ModelProto, found: Sequence[Found], size_of_block: Callable[[], int]
) -> dict[tuple[Scope, int], int]:
    """Return the channels of a block at the markers of sites with a kappa per channel, by scope and index.

    A marker whose value is not in the blocked layout has its channels where the retrofit has them, and is left out.

    Args:
        model: The optimised model.
        found: Its markers.
        size_of_block: Returns the channels of a block in ONNX Runtime on this processor.

    Raises:
        NotFollowedError: It is not certain where the channels of a site are.
    """
    sites = [item for item in found if isinstance(item.site.kappa, tuple)]
    if not sites:
        return {}
    _require_no_channels_last(model)
    values: dict[Scope, set[str]] = {}
    blocks = {}
    for item in sites:
        if item.scope not in values:
            values[item.scope] = _blocked_values(item.scope, item)
        node = item.scope.nodes[item.index]
        if item.fused and (node.op_type, node.domain) not in _HOSTS:
            raise NotFollowedError(f"{_said(item)}, and is fused into an operator {node.op_type}")
        if str(node.output[0]) in values[item.scope]:
            size = size_of_block()
            _check_channels(model, item, size)
            blocks[item.scope, item.index] = size
    return blocks


def _check_channels(model: onnx.ModelProto, item: Found, size: int) -> None:
    """Make sure that the channels at a marker in the blocked layout are those of its kappas.

    Raises:
        NotFollowedError: Its kappas belong to another axis, or the weights have another number of channels.
    """
    kappas = channels_of(item.site.kappa)
    if item.site.rank != _RANK_OF_IMAGES:
        raise NotFollowedError(f"{_said(item)} that lie along another axis than {CHANNEL_AXIS}")
    channels = len(padded_to_blocks(kappas, size))
    node = item.scope.nodes[item.index]
    if item.fused:
        yielded = [int(tensor.dims[0]) for tensor in model.graph.initializer if tensor.name == node.input[1]]
        if yielded not in ([], [channels]):
            raise NotFollowedError(
                f"{_said(item)}, {len(kappas)} of them, and its convolution yields {yielded[0]}, expected {channels}"
            )


def _said(item: Found) -> str:
    return f"site {item.site.id} has a kappa for each of its channels"


def _blocked_values(scope: Scope, item: Found) -> set[str]:
    """Return the names of a scope's values in the blocked layout; nodes are in topological order.

    Raises:
        NotFollowedError: An operator reads such a value that is not known to keep the layout.
    """
    blocked: set[str] = set()
    for node in scope.nodes:
        if node.domain == NCHWC:
            if node.op_type != _FROM_BLOCKS:
                blocked.update(str(name) for name in node.output)
        elif blocked.intersection(node.input):
            if node.domain not in STANDARD_DOMAINS or node.op_type not in _ON_BLOCKS:
                raise NotFollowedError(f"{_said(item)}, and {node.op_type} works on ONNX Runtime's blocked layout")
            blocked.update(str(name) for name in node.output)
    return blocked


def _require_no_channels_last(model: onnx.ModelProto) -> None:
    """Refuse a graph of which ONNX Runtime laid out a part as (N, H, W, C), moving Transposes as it does.

    Raises:
        NotFollowedError: It is one.
    """
    for scope in all_scopes(model):
        for node in scope.nodes:
            last = any(item.name == "channels_last" and item.i for item in node.attribute) and node.domain != NCHWC
            if last or node.domain == NHWC or node.op_type.startswith("Nhwc"):
                raise NotFollowedError(
                    "a site has a kappa per channel, and ONNX Runtime moved the channels for its operator "
                    f"{node.op_type}"
                )


def _producers(scope: Scope) -> dict[str, onnx.NodeProto]:
    return {str(name): node for node in scope.nodes for name in node.output if name}


def _before(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto | None]:
    """Yield the nodes before one, as far as a Transpose may come from; None for what comes from outside the scope."""
    waiting, seen = [str(name) for name in node.input if name], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        producer = producers.get(name)
        yield producer
        stops = producer is not None and producer.domain in _KNOWN and producer.op_type in _BARRIERS
        if producer is not None and not stops:
            waiting.extend(str(name) for name in producer.input if name)


def _may_transpose(node: onnx.NodeProto | None, scope: Scope) -> bool:
    """Tell whether a Transpose comes from a node, as far as is known; those of a function and of outside may."""
    if node is None:
        return not scope.is_main
    return node.op_type == "Transpose" or node.domain not in (*_KNOWN, NCHWC)

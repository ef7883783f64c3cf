"""What can be read of the jumps in a file that `jr-onnx optimize` wrote: their kappas, though no longer their sites.

ONNX Runtime's optimiser has joined the sites with their neighbours and renamed every value, so that nothing can be
undone there. The kappas stand in the graph all the same, as attributes, constants, ranges or an input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx

from jr_onnx.modelfile.wire import Payloads
from jr_onnx.provenance import OPTIMISED_KEY, Provenance
from jr_onnx.rewriter.scopes import all_nodes, all_scopes
from jr_onnx.rewriter.stored import NotStored, read_large
from jr_onnx.semantics import (
    BIAS_OP_TYPE,
    BLOCK_ATTRIBUTE,
    DRAW_OP_TYPE,
    OP_DOMAIN,
    OP_TYPE,
    SiteKappa,
    channels_of,
    kappa_label,
    map_kappa,
    padded_to_blocks,
    round_to,
)

_KAPPA_NAME = "/jr_kappa"
_SHOWN = 8
_LARGEST_BLOCK = 64  # above any of ONNX Runtime, whose blocks have 8 or 16 channels


def is_optimised(model: onnx.ModelProto) -> bool:
    """Tell whether `jr-onnx optimize` wrote the model."""
    return any(entry.key == OPTIMISED_KEY for entry in model.metadata_props)


def optimised_mismatches(model: onnx.ModelProto, record: Provenance, payloads: Payloads | None = None) -> Iterator[str]:
    """Say in words which kappas of the provenance the optimised graph does not hold.

    A kappa per channel must stand there with all its values in their order, followed in ONNX Runtime's blocked layout
    by a 0 for every channel that fills the last block. Every site needs a kappa of its own: two sites with the same one
    need it twice.

    Args:
        model: The optimised model.
        record: The provenance that it carries on.
        payloads: What the tokens in the model stand for; None for a model that holds its weights.
    """
    most = max((len(channels_of(site.kappa)) for site in record.sites), default=1)
    blocks = {size for size in sizes_of_blocks(model) if 1 <= size <= _LARGEST_BLOCK}
    kappas, ranges = _jumps(model, payloads or Payloads(), most + max(blocks, default=0))
    inputs = {value.name for value in model.graph.input}
    for name in record.undo.inputs_added:
        if name not in inputs:
            yield f"the graph has no input {name!r}, from which its sites have kappa by the provenance"
    if record.undo.inputs_added:
        return
    random = record.plan.random
    if random is not None:
        wanted = (round_to(random.low, "float32"), round_to(random.high, "float32"))
        if wanted not in ranges:
            yield f"nothing in the graph draws kappa from {random.low:g} to {random.high:g}, as the provenance says"
        return
    left = Counter(kappas)
    for site in record.sites:
        kappa = map_kappa(site.kappa, lambda value: round_to(value, "float32"))
        kappa = next((form for form in _forms(kappa, blocks) if left[form] > 0), kappa)
        left[kappa] -= 1
        if left[kappa] < 0:
            said = f"site {site.id} has kappa {kappa_label(site.kappa, 'g')} by the provenance"
            again = ", none of them left for it" if kappa in kappas else ""
            yield f"{said}, and the kappas in the graph are {_held(kappas)}{again}"


def sizes_of_blocks(model: onnx.ModelProto) -> set[int]:
    """Return how many channels a block has, by the jumps of a graph."""
    nodes = [node for node in all_nodes(model) if node.op_type == OP_TYPE and node.domain == OP_DOMAIN]
    return {int(item.i) for node in nodes for item in node.attribute if item.name == BLOCK_ATTRIBUTE}


def _forms(kappa: SiteKappa, blocks: set[int]) -> Iterator[SiteKappa]:
    """Yield a kappa as a graph may hold it: as it is, or one per channel for whole blocks of channels."""
    yield kappa
    if isinstance(kappa, tuple):
        yield from (padded_to_blocks(kappa, size) for size in blocks)


def _held(kappas: list[SiteKappa]) -> str:
    """Return the kappas of a graph for people, the first few of them."""
    different = sorted(set(kappas), key=channels_of)
    shown = ", ".join(kappa_label(kappa, "g") for kappa in different[:_SHOWN]) or "none"
    return shown + (f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else "")


def _jumps(model: onnx.ModelProto, payloads: Payloads, most: int) -> tuple[list[SiteKappa], set[tuple[float, float]]]:
    """Return the kappa of every jump in a graph, and the ranges of kappa that stand there.

    Args:
        model: The model.
        payloads: What the tokens in it stand for.
        most: How many channels a kappa may have.
    """
    kappas: list[SiteKappa] = []
    ranges: set[tuple[float, float]] = set()
    tensors = [tensor for scope in all_scopes(model) if scope.graph is not None for tensor in scope.graph.initializer]
    named = [tensor for tensor in tensors if _KAPPA_NAME in tensor.name]
    for node in all_nodes(model):
        numbers = {item.name: item.f for item in node.attribute}
        if node.op_type == "ThresholdedRelu":
            kappas.append(numbers.get("alpha", 1.0))
        elif node.op_type in (OP_TYPE, BIAS_OP_TYPE) and node.domain == OP_DOMAIN:
            if "kappa_low" in numbers and "kappa_high" in numbers:
                ranges.add((numbers["kappa_low"], numbers["kappa_high"]))
            elif "kappa" in numbers:
                kappas.append(numbers["kappa"])
        elif node.op_type in ("RandomUniform", DRAW_OP_TYPE) and "low" in numbers and "high" in numbers:
            ranges.add((numbers["low"], numbers["high"]))
        elif node.op_type == "FusedGemm" and "activation_alpha" in numbers:
            kappas.append(numbers["activation_alpha"])
        elif node.op_type == "Constant" and any(_KAPPA_NAME in name for name in node.output):
            named.extend(item.t for item in node.attribute if item.HasField("t"))
    for tensor in named:
        values = read_large(tensor, None, payloads, most)
        if not isinstance(values, NotStored):
            flat = tuple(float(value) for value in values.reshape(-1))
            kappas.append(flat if tensor.dims else flat[0])
    return kappas, ranges

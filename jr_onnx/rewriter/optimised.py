"""What can be read of the jumps in a file that `jr-onnx optimize` wrote: their kappas, though no longer their sites.

ONNX Runtime's optimiser has joined the sites with their neighbours and renamed every value, so that nothing can be
undone there. The kappas stand in the graph all the same, as attributes, constants, ranges or an input.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from jr_onnx.provenance import OPTIMISED_KEY, Provenance
from jr_onnx.rewriter.scopes import all_nodes
from jr_onnx.semantics import BIAS_OP_TYPE, DRAW_OP_TYPE, OP_DOMAIN, OP_TYPE, channels_of, kappa_label, round_to

_KAPPA_NAME = "/jr_kappa"
_SHOWN = 8


def is_optimised(model: onnx.ModelProto) -> bool:
    """Tell whether `jr-onnx optimize` wrote the model."""
    return any(entry.key == OPTIMISED_KEY for entry in model.metadata_props)


def optimised_mismatches(model: onnx.ModelProto, record: Provenance) -> Iterator[str]:
    """Say in words which kappas of the provenance the optimised graph does not hold.

    Args:
        model: The optimised model.
        record: The provenance that it carries on.
    """
    kappas, ranges = _jumps(model)
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
    for site in record.sites:
        if not {round_to(kappa, "float32") for kappa in channels_of(site.kappa)} <= kappas:
            held = ", ".join(f"{kappa:g}" for kappa in sorted(kappas)[:_SHOWN]) or "none"
            held += f" and {len(kappas) - _SHOWN} more" if len(kappas) > _SHOWN else ""
            said = f"site {site.id} has kappa {kappa_label(site.kappa, 'g')} by the provenance"
            yield f"{said}, and the kappas in the graph are {held}"


def _jumps(model: onnx.ModelProto) -> tuple[set[float], set[tuple[float, float]]]:
    """Return the kappas and the ranges of kappa that stand in a graph."""
    kappas: set[float] = set()
    ranges: set[tuple[float, float]] = set()
    for node in all_nodes(model):
        numbers = {item.name: item.f for item in node.attribute}
        if node.op_type == "ThresholdedRelu":
            kappas.add(numbers.get("alpha", 1.0))
        elif node.op_type in (OP_TYPE, BIAS_OP_TYPE) and node.domain == OP_DOMAIN:
            if "kappa_low" in numbers and "kappa_high" in numbers:
                ranges.add((numbers["kappa_low"], numbers["kappa_high"]))
            elif "kappa" in numbers:
                kappas.add(numbers["kappa"])
        elif node.op_type in ("RandomUniform", DRAW_OP_TYPE) and "low" in numbers and "high" in numbers:
            ranges.add((numbers["low"], numbers["high"]))
        elif node.op_type == "FusedGemm" and "activation_alpha" in numbers:
            kappas.add(numbers["activation_alpha"])
        elif node.op_type == "Constant" and any(_KAPPA_NAME in name for name in node.output):
            kappas.update(_scalars(node))
    for tensor in model.graph.initializer:
        if _KAPPA_NAME in tensor.name and not tensor.dims:
            kappas.add(float(onnx.numpy_helper.to_array(tensor)))
    return kappas, ranges


def _scalars(node: onnx.NodeProto) -> Iterator[float]:
    for attribute in node.attribute:
        if attribute.HasField("t") and not attribute.t.dims:
            yield float(np.asarray(onnx.numpy_helper.to_array(attribute.t)))

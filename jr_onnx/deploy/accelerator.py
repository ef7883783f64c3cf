"""Whether a model runs with the accelerator of a package: which operators TensorRT and CUDA have."""

from __future__ import annotations

from jr_onnx.deploy.model import ModelFacts
from jr_onnx.deploy.options import Placement
from jr_onnx.errors import RefusalError

_THRESHOLDED_ON_CUDA_BEFORE = 22


def check_accelerator(facts: ModelFacts, placement: Placement) -> tuple[str, ...]:
    """Refuse a model that TensorRT cannot run as a whole, and return notes for the user.

    TensorRT's ONNX parser has ThresholdedRelu, Where, Greater and Sub (onnx-tensorrt, docs/operators.md), and no custom
    operator without a plugin: at each the network would be cut, and every piece become an engine of its own. ONNX
    Runtime's CUDA provider has ThresholdedRelu for opset 10 to 21 (measured: docs/gpu.md).

    Args:
        facts: The model.
        placement: Where it will run.

    Raises:
        RefusalError: TensorRT was asked for, and the model has custom operators.
    """
    if placement.device == "cpu":
        return ()
    if placement.accelerator == "tensorrt":
        if facts.custom_ops:
            raise RefusalError(
                f"TensorRT has no jr_onnx::{facts.custom_ops[0]}, so every site would cut the network into two engines",
                hint="Rewrite the original with --lowering thresholded, or where for a kappa that is an input",
            )
        return ()
    lowerings = {site.lowering for site in facts.provenance.sites} if facts.provenance is not None else set()
    if "thresholded" in lowerings and facts.opset >= _THRESHOLDED_ON_CUDA_BEFORE:
        return (
            f"ONNX Runtime has no CUDA kernel of ThresholdedRelu at opset {facts.opset}: its sites run on the CPU, "
            "with a copy each way; jr-onnx rewrite --provider cuda chooses another lowering",
        )
    return ()

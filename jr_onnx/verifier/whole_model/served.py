"""On CUDA: what will be served, against the exact evaluation, within bounds.

kappa 0, TF32:   every lowering at kappa 0 against the original, both with TF32 and cuDNN's fastest algorithms
kappa, TF32:     the file with TF32 and the fastest algorithms against the file without optimisation; flips at the jump
kappa, session:  `jr_onnx.InferenceSession`, where bias, residual and jump are one operator, against the same

TF32 keeps 10 bits of float32's 23 in the products. How far that moves the outputs is measured on the original, as all
rounding is (`tolerance`): its outputs with TF32 and without join the controls.
"""

from __future__ import annotations

from collections.abc import Sequence

from jr_onnx.verifier.evaluators.device import is_cuda
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError
from jr_onnx.verifier.evaluators.ort import Level
from jr_onnx.verifier.variants import Variant
from jr_onnx.verifier.whole_model.case import Case, Outputs, run_all
from jr_onnx.verifier.whole_model.judged import Side, TracesBetween, judged_comparison
from jr_onnx.verifier.whole_model.lowerings import outputs_or_note

_ZERO, _TF32, _SESSION = "kappa 0, TF32", "kappa, TF32", "kappa, session"


def check_served(case: Case, file: Variant, zeros: Sequence[Variant], plain: Outputs | None) -> None:
    """Compare what will be served on CUDA with the exact evaluation; nothing to do on the CPU.

    Args:
        case: The comparison's material.
        file: The retrofit.
        zeros: It at kappa 0, with every lowering.
        plain: The file's outputs without optimisation; None where they could not be had.
    """
    if not is_cuda():
        return
    try:
        truth = run_all(case.original, "tf32", case.samples)
    except (CannotLoadError, CannotRunError) as error:
        case.log.not_run(_ZERO, "lowerings with the original", error.message)
        return
    moved = (case.plain, truth)
    for variant in zeros:
        compared = f"{variant.name} with the original"
        outputs = outputs_or_note(case, variant.runnable, "tf32", _ZERO, compared)
        if outputs is not None:
            judged_comparison(case, _ZERO, compared, (truth, outputs), lambda _: [], more=(moved,))
    if plain is None:
        return
    zero = next((item for item in zeros if not item.name.startswith("thresholded")), None)
    levels: tuple[tuple[str, Level], ...] = ((_TF32, "tf32"), (_SESSION, "session"))
    for what, level in levels:
        compared = f"{file.name} with itself, exactly"
        outputs = outputs_or_note(case, file.runnable, level, what, compared)
        if outputs is None:
            continue
        # Sites of the session cannot be seen from outside; its convolutions are those of the optimised graph.
        seen: Level = "optimised" if level == "session" else level
        controls: tuple[Side, Side] | None = ((zero, "plain"), (zero, seen)) if zero is not None else None
        trace = TracesBetween(((file, "plain"), (file, seen)), controls)
        more = (moved,) if level == "tf32" else ()
        judged_comparison(case, what, compared, (plain, outputs), trace, more=more)

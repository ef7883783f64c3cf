"""What the user of a rewrite should know of its result, in words."""

from __future__ import annotations

from jr_onnx.kappa import KappaPlan
from jr_onnx.rewriter.edit import Edit
from jr_onnx.rewriter.lowering import KEEPS_NAN
from jr_onnx.semantics import SiteKappa, channels_of, kappa_label


def warnings_of(plan: KappaPlan, edit: Edit) -> list[str]:
    """Return a line for everything that may surprise: predictable draws, NaN that stays, a kappa that does nothing."""
    found = []
    random = plan.random
    if random is not None and random.source == "graph":
        found.append(
            "kappa is drawn by RandomUniform inside the graph: ONNX Runtime seeds it from the clock and one observed "
            "draw predicts the next; use --random-source input or op for a defence"
        )
    elif random is not None and random.source == "input":
        found.append(
            "kappa is drawn by jr_onnx.InferenceSession and jr-onnx serve; elsewhere it stays at its default "
            f"{random.middle:g}"
        )
    elif random is not None:
        found.append("without the jr_onnx op library kappa is drawn by RandomUniform, which is predictable")
    if any(record.lowering in KEEPS_NAN for record in edit.records):
        found.append(
            "Where does not exist for the type and opset of some sites, so that they are written without it: NaN stays "
            "NaN there, where JumpReLU gives 0"
        )
    above = [
        record for record in edit.records if record.cap is not None and max(channels_of(record.kappa)) >= record.cap
    ]
    if above:
        found.append(
            f"kappa is not below the cap at {len(above)} of {len(edit.records)} sites ({above[0].id} is one: kappa "
            f"{kappa_label(above[0].kappa, 'g')}, cap {above[0].cap:g}), which therefore yield nothing but 0 and their "
            "cap"
        )
    flat = [record for record in edit.records if 0 in channels_of(record.kappa)]
    wanted = plan.for_sites(record.id for record in flat)
    lost = [record for record in flat if _rounds_to_zero(wanted[record.id], record.kappa)]
    if lost:
        found.append(
            f"kappa rounds to 0 in {lost[0].dtype} at {len(lost)} of {len(edit.records)} sites ({lost[0].id} is one), "
            "which therefore stay plain ReLUs in effect"
        )
    return found


def _rounds_to_zero(wanted: SiteKappa | None, rounded: SiteKappa) -> bool:
    """Tell whether a value of a kappa is not 0 before it is rounded, and 0 after it."""
    if wanted is None:
        return False
    pairs = zip(channels_of(wanted), channels_of(rounded), strict=True)
    return any(value != 0 and result == 0 for value, result in pairs)

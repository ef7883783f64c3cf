"""Which lowering a site gets, and why: by the request, the target, the opset, the IR version and the element type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jr_onnx.errors import OpsetError, RefusalError
from jr_onnx.rewriter.lowering.base import means_the_same
from jr_onnx.rewriter.lowering.custom import MINIMUM_IR, custom_problem
from jr_onnx.rewriter.lowering.log_step import log_step_allowed
from jr_onnx.rewriter.lowering.thresholded import thresholded_allowed
from jr_onnx.rewriter.lowering.where import cast_mul_allowed, cast_mul_operators, where_allowed, where_operators

RequestedLowering = Literal["auto", "where", "thresholded", "custom"]
Lowering = Literal["where", "cast_mul", "log_step", "thresholded", "custom"]
Target = Literal["portable", "cpu", "cuda"]

_THRESHOLDED_ON_CUDA_BEFORE = 22
_LOWEST_OPSET = 7


@dataclass(frozen=True)
class Setting:
    """What the choice depends on besides the requested lowering.

    Attributes:
        dtype: NumPy name of the site's element type.
        opset: Version of the standard operator set at the site.
        beside: Standard operators that the rewrite of this site writes besides J itself.
        capping: Those that it writes unless J holds the cap itself.
        ir_version: Of the model.
        may_raise_ir: Whether a model below IR 8 may be raised; not while its initializers are graph inputs.
        target: Where the model will run.
        variable: Whether kappa is drawn or given at run time.
        capped: Whether the site has a cap that the custom node would hold.
        model_opset: Version of the main graph's, which the custom operator's body has too; 0 where it is the site's.
        custom_problem: Why the other sites make the custom lowering impossible, or None.
        per_channel: Whether kappa is one for each channel.
        kappa_is_input: Whether a custom node reads a fixed kappa from an input, for some site has one per channel.
        not_run: An operator of the model that ONNX Runtime does not run at this opset; "" where there is none.
    """

    dtype: str
    opset: int
    ir_version: int
    may_raise_ir: bool
    target: Target
    variable: bool
    capped: bool
    beside: tuple[str, ...] = ()
    capping: tuple[str, ...] = ()
    model_opset: int = 0
    custom_problem: str | None = None
    per_channel: bool = False
    kappa_is_input: bool = False
    not_run: str = ""


@dataclass(frozen=True)
class Choice:
    """The lowering and the reason for it."""

    lowering: Lowering
    reason: str


def choose(requested: RequestedLowering, setting: Setting, site_id: str) -> Choice:
    """Choose a lowering.

    Raises:
        RefusalError: The requested lowering, or every lowering, is impossible here; names what works.
    """
    if setting.opset == 0:
        raise RefusalError(
            f"site {site_id}: the model imports no standard operator set, so it is not known which Relu is meant",
            hint="Export the model again, or add the domain '' to its opset_import",
        )
    if setting.opset < _LOWEST_OPSET:
        return _below_seven(requested, setting, site_id)
    if requested == "auto":
        return _auto(setting, site_id)
    problem = _problem(requested, setting)
    if problem is None:
        lowering: Lowering = (_where_form(setting) or "where") if requested == "where" else requested
        return Choice(lowering, "as asked")
    works = [name for name in ("where", "thresholded", "custom") if _problem(name, setting) is None]
    said = f"site {site_id}: the lowering {requested} is impossible: {problem}"
    if works:
        raise RefusalError(said, hint=f"Use --lowering {' or '.join(works)}")
    raise OpsetError(said)


def _below_seven(requested: RequestedLowering, setting: Setting, site_id: str) -> Choice:
    """Choose below opset 7, where ONNX Runtime lacks Sub, Greater and Mul."""
    where = f"site {site_id}: opset {setting.opset} is below {_LOWEST_OPSET}"
    if not log_step_allowed(setting.opset, setting.dtype, variable=setting.variable or setting.per_channel):
        changes = "a kappa that changes" if setting.variable else setting.dtype
        kind = "a kappa per channel" if setting.per_channel else changes
        raise OpsetError(f"{where}, where no lowering exists for {kind}")
    if requested not in ("auto", "where"):
        raise RefusalError(f"{where}, where the lowering {requested} is impossible", hint="Use --lowering where")
    if requested == "auto" and setting.not_run:
        raise OpsetError(f"{where}, where ONNX Runtime does not run the model's {setting.not_run}")
    return Choice("log_step", "standard nodes that ONNX Runtime runs at opset 6")


def _auto(setting: Setting, site_id: str) -> Choice:
    # auto never raises an IR version: a change the user did not ask for, and a slow one for IR 3.
    if setting.target != "portable" and setting.ir_version >= MINIMUM_IR and _problem("custom", setting) is None:
        return Choice("custom", f"one node with its own kernel for {setting.target}, a function elsewhere")
    on_cuda = setting.target != "cuda" or setting.opset < _THRESHOLDED_ON_CUDA_BEFORE
    has_kernel = setting.dtype in ("float32", "float16") and on_cuda
    if has_kernel and _problem("thresholded", setting) is None:
        return Choice("thresholded", "one standard node")
    form = _where_form(setting)
    if form is not None:
        reason = "standard nodes with a kernel for this type, opset and target"
        if setting.per_channel:
            reason += "; ThresholdedRelu has one threshold for all channels"
        elif not on_cuda:
            reason += f"; ONNX Runtime has no CUDA kernel of ThresholdedRelu at opset {setting.opset}"
        return Choice(form, reason)
    if setting.ir_version >= MINIMUM_IR and _problem("custom", setting) is None:
        return Choice(
            "custom", f"the function's opset {setting.opset} is not the model's, where a function stands apart"
        )
    strange = _strange(setting, where_operators())
    problem = strange or f"no lowering takes {setting.dtype} at opset {setting.opset}"
    raise OpsetError(f"site {site_id}: {problem}")


def _problem(requested: str, setting: Setting) -> str | None:
    if requested == "where":
        if _where_form(setting) is not None:
            return None
        strange = _strange(setting, where_operators())
        return strange or f"no standard nodes take {setting.dtype} at opset {setting.opset}"
    if requested == "thresholded":
        if setting.variable:
            return "ThresholdedRelu holds kappa as an attribute, it cannot change at run time"
        if setting.per_channel:
            return "ThresholdedRelu has one threshold, and kappa is one for each channel"
        if setting.target == "cuda" and setting.opset >= _THRESHOLDED_ON_CUDA_BEFORE:
            return f"ONNX Runtime has no CUDA kernel of ThresholdedRelu at opset {setting.opset}"
        if not thresholded_allowed(setting.opset, setting.dtype):
            return f"ThresholdedRelu does not take {setting.dtype} at opset {setting.opset}"
        return _strange(setting, ("ThresholdedRelu", *setting.capping))
    if setting.custom_problem is not None:
        return setting.custom_problem
    if setting.ir_version < MINIMUM_IR and not setting.may_raise_ir:
        return (
            f"it needs IR {MINIMUM_IR}, and raising this model from IR {setting.ir_version} would make its "
            "initializers, which are also graph inputs, overridable (and slow); --demote-initializer-inputs takes "
            "them off the inputs"
        )
    problem = custom_problem(
        setting.model_opset or setting.opset,
        setting.dtype,
        variable=setting.variable or setting.kappa_is_input,
        capped=setting.capped,
        target=setting.target,
    )
    written = ("Constant",) if setting.kappa_is_input else ()
    return problem or _strange(setting, written if setting.capped else (*written, *setting.capping))


def _where_form(setting: Setting) -> Lowering | None:
    opset, dtype = setting.opset, setting.dtype
    beside = (*setting.capping, "Cast") if setting.variable and dtype != "float32" else setting.capping
    if where_allowed(opset, dtype) and _strange(setting, (*where_operators(), *beside)) is None:
        return "where"
    if cast_mul_allowed(opset, dtype) and _strange(setting, (*cast_mul_operators(opset, dtype), *beside)) is None:
        return "cast_mul"
    return None


def _strange(setting: Setting, operators: tuple[str, ...]) -> str | None:
    """Say which operator is another one in the model's operator set than in that of the function the site lies in."""
    for name in (*operators, *setting.beside):
        if setting.model_opset and not means_the_same(name, setting.opset, setting.model_opset):
            return (
                f"it stands in a function of opset {setting.opset}, in a model of opset {setting.model_opset}, and "
                f"ONNX wants the same {name} in both"
            )
    return None

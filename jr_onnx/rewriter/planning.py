"""What every chosen site becomes: its kappa in its dtype, and its lowering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from jr_onnx.errors import KappaError, RefusalError
from jr_onnx.kappa import KappaPlan
from jr_onnx.opsets import main_opset, normal_domain
from jr_onnx.provenance import SiteRecord
from jr_onnx.rewriter.channels import rank_for_channels
from jr_onnx.rewriter.convert import LOWEST
from jr_onnx.rewriter.detect.shapes import Shapes
from jr_onnx.rewriter.edit import Edit
from jr_onnx.rewriter.lowering import ONE_KAPPA, Choice, Lowering, RequestedLowering, Setting, choose
from jr_onnx.rewriter.lowering.custom import Needs, body_problem
from jr_onnx.rewriter.sites import LocatedSite, Site
from jr_onnx.semantics import SiteKappa, round_kappa, round_to

_CAP_ATTRIBUTE_SINCE = 12  # below, the function's body cannot hold a cap and a Clip stays behind J


@dataclass(frozen=True)
class Planned:
    """One site and what becomes of it.

    Attributes:
        item: The site and where it is.
        choice: Its lowering, and why.
        kappa: Rounded to its dtype; one number, or one for each channel.
        cap_inside: Whether the lowering applies the cap itself, so that no Clip stays behind J.
        rank: Rank of the site's tensor where kappa is one for each channel, else None.
    """

    item: LocatedSite
    choice: Choice
    kappa: SiteKappa
    cap_inside: bool
    rank: int | None = None


def plan_sites(edit: Edit, chosen: Sequence[LocatedSite], shapes: Shapes) -> list[Planned]:
    """Plan all chosen sites; all custom nodes of a file share one function body, which must be possible.

    Raises:
        RefusalError: A lowering is impossible.
        KappaError: kappa overflows the dtype of a site, or has not as many values as the site has channels.
    """
    opset = main_opset(edit.model)
    if edit.recorded is not None:
        return [_as_recorded(item, edit.recorded[item.site.id], opset, shapes, edit.own) for item in chosen]
    requested = edit.options.lowering
    random = edit.plan.random
    if random is not None and random.source == "op" and random.per == "site":
        if requested not in ("auto", "custom"):
            raise RefusalError(
                f"one draw per site by the op needs the op at every site, and the lowering {requested} has none",
                hint="Use --lowering custom, or --random-source graph",
            )
        requested = "custom"
    elif random is not None and random.source == "op" and requested == "auto":
        requested = "custom"
    kappas = edit.own if edit.plan.own else edit.plan.for_sites(item.site.id for item in chosen)
    # Most sites of a model are alike, and then share one setting and one choice.
    alike: dict[tuple[str, int, bool], Setting] = {}
    settings = [_shared_setting(edit, item, kappas, opset, alike) for item in chosen]
    choices: dict[int, Choice] = {}
    pairs = list(zip(chosen, settings, strict=True))
    plans = [_plan(item, requested, setting, kappas, choices, shapes) for item, setting in pairs]
    problem = body_problem(_needs(edit, plans), function_opset(plans, opset))
    if problem is None:
        return plans
    if requested != "auto":
        raise RefusalError(problem, hint="Use --lowering where")
    settings = [replace(setting, custom_problem=problem) for setting in settings]
    pairs = list(zip(chosen, settings, strict=True))
    return [_plan(item, requested, setting, kappas, {}, shapes) for item, setting in pairs]


def function_opset(plans: Sequence[Planned], model_opset: int) -> int:
    """Return the standard opset of the function body: the main graph's, or the lowest of the sites' without one."""
    return model_opset or min((planned.item.scope.opset for planned in plans), default=0)


def _shared_setting(
    edit: Edit,
    item: LocatedSite,
    kappas: Mapping[str, SiteKappa | None],
    model_opset: int,
    alike: dict[tuple[str, int, bool], Setting],
) -> Setting:
    """Return the setting of a site; the same object for all sites of a type and opset that need nothing but J."""
    if item.site.cap is not None or item.match.before or item.match.after is not None:
        return _setting(edit, item, kappas, model_opset)
    key = item.site.dtype, item.scope.opset, isinstance(kappas[item.site.id], tuple)
    if key not in alike:
        alike[key] = _setting(edit, item, kappas, model_opset)
    return alike[key]


def _setting(edit: Edit, item: LocatedSite, kappas: Mapping[str, SiteKappa | None], model_opset: int) -> Setting:
    plan, opset, match = edit.plan, item.scope.opset, item.match
    drawn = ("RandomUniform", "Squeeze") if draws_in_graph_per_site(plan) else ()
    after = match.after
    return Setting(
        item.site.dtype,
        opset,
        edit.model.ir_version,
        may_raise_ir=edit.may_raise_ir,
        target=edit.options.target,
        variable=plan.random is not None or plan.input_name is not None,
        capped=_attribute_holds_cap(item.site, model_opset or opset),
        beside=(*(str(node.op_type) for node in match.before if not normal_domain(node.domain)), *drawn),
        model_opset=model_opset if model_opset != opset else 0,
        capping=() if after is None else (str(after.op_type), "Constant"),
        per_channel=isinstance(kappas[item.site.id], tuple),
        kappa_is_input=any(isinstance(kappa, tuple) for kappa in kappas.values()),
        not_run=edit.not_run if opset < LOWEST else "",
    )


def draws_in_graph_per_site(plan: KappaPlan) -> bool:
    """Tell whether standard nodes beside every site draw its kappa."""
    return plan.random is not None and plan.random.per == "site" and plan.random.source == "graph"


def _plan(
    item: LocatedSite,
    requested: RequestedLowering,
    setting: Setting,
    kappas: Mapping[str, SiteKappa | None],
    choices: dict[int, Choice],
    shapes: Shapes,
) -> Planned:
    """Plan a site; `choices` holds what was chosen for a setting before, by the identity of the setting."""
    site = item.site
    wanted = kappas[site.id]
    if wanted is None:
        raise KappaError(f"site {site.id} has no kappa in the plan")
    try:
        kappa = round_kappa(wanted, site.dtype)
    except KappaError as error:
        raise KappaError(f"site {site.id}: {error.message}", hint=error.hint) from None
    rank = rank_for_channels(item, len(kappa), shapes) if isinstance(kappa, tuple) else None
    choice = choices.get(id(setting))
    if choice is None:
        choice = choices[id(setting)] = choose(requested, setting, site.id)
    return Planned(item, choice, kappa, choice.lowering == "custom" and setting.capped, rank)


def _as_recorded(
    item: LocatedSite, record: SiteRecord, model_opset: int, shapes: Shapes, own: Mapping[str, SiteKappa]
) -> Planned:
    """Plan a site as an earlier rewrite recorded it; a jump of the model's own has its thresholds as they are now."""
    lowering = cast(Lowering, record.lowering)
    kappa = round_kappa(own.get(item.site.id, record.kappa), item.site.dtype)
    cap_inside = lowering == "custom" and _attribute_holds_cap(item.site, model_opset or item.scope.opset)
    rank: int | None = None
    if isinstance(kappa, tuple):
        if lowering in ONE_KAPPA:
            raise RefusalError(f"site {record.id} has the lowering {lowering} and a kappa per channel")
        rank = rank_for_channels(item, len(kappa), shapes, record.rank)
    return Planned(item, Choice(lowering, "as recorded"), kappa, cap_inside, rank)


def _attribute_holds_cap(site: Site, opset: int) -> bool:
    """Tell whether the custom node can hold the cap: ONNX attributes are float32, a double's cap may not be one."""
    return site.cap is not None and opset >= _CAP_ATTRIBUTE_SINCE and round_to(site.cap, "float32") == site.cap


def _needs(edit: Edit, plans: Sequence[Planned]) -> Needs:
    custom = [planned for planned in plans if planned.choice.lowering == "custom"]
    plan = edit.plan
    per_site = plan.random is not None and plan.random.per == "site"
    return Needs(
        frozenset(planned.item.site.dtype for planned in custom),
        any(planned.cap_inside for planned in custom),
        runtime=plan.input_name is not None
        or (plan.random is not None and not per_site)
        or any(isinstance(planned.kappa, tuple) for planned in custom),
        draws=per_site,
        target=edit.options.target,
    )

"""Which of the sites that were found are rewritten: the kappa plan and the filters decide."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from jr_onnx.errors import InputError, KappaError, ModelError, NoSiteError, RefusalError
from jr_onnx.provenance import SiteRecord
from jr_onnx.rewriter.detect.own_jump import ITSELF
from jr_onnx.rewriter.options import Options
from jr_onnx.rewriter.sites import Findings, LocatedSite, SiteTable


def select(findings: Findings, options: Options) -> list[LocatedSite]:
    """Return the sites to rewrite; gates and clamps only if `include` or the kappa map names them.

    With a plan for the model's own jumps these are the jumps that can be fused; any other plan takes none of them.

    Raises:
        NoSiteError: There is none.
        KappaError: A pattern of the kappa map matches no site.
        InputError: A filter is not a valid regular expression, or matches no site.
    """
    if options.plan.own:
        return _own_jumps(findings)
    located, table = [item for item in findings.located if item.match.jump is None], findings.table
    if not located:
        raise NoSiteError(_why_no_site(table))
    ids = dict.fromkeys(item.site.id for item in located)
    plan = options.plan.settled(ids)
    lost = plan.unmatched(ids)
    if lost:
        raise KappaError(
            f"the kappa map's entry {lost[0]!r} matches none of the {len(ids)} sites",
            hint=f"Site ids look like {located[0].site.id!r}; jr-onnx inspect lists them",
        )
    include = [_expression(pattern, "--include", ids) for pattern in options.include]
    exclude = [_expression(pattern, "--exclude", ids) for pattern in options.exclude]
    kappas = plan.for_sites(ids)
    named = {pattern for pattern, _ in options.plan.by_site}
    chosen = [
        item
        for item in located
        if (not include or any(pattern.search(item.site.id) for pattern in include))
        and not any(pattern.search(item.site.id) for pattern in exclude)
        and kappas[item.site.id] is not None
        and (not item.is_aside or bool(include) or item.site.id in named)
    ]
    _require_defined_once(located)
    if not chosen and all(item.is_aside for item in located) and not include:
        raise NoSiteError(_why_no_site(table))
    if not chosen:
        raise NoSiteError(f"--include, --exclude and the kappa map leave none of the {len(ids)} sites")
    return chosen


def select_recorded(findings: Findings, recorded: Mapping[str, SiteRecord]) -> list[LocatedSite]:
    """Return the sites that an earlier rewrite recorded.

    Raises:
        RefusalError: One is not there.
    """
    chosen = [item for item in findings.located if item.site.id in recorded]
    found = {item.site.id for item in chosen}
    missing = next((site for site in recorded if site not in found), None)
    if missing is not None:
        raise RefusalError(f"site {missing} of the provenance is not a ReLU of the original that it restores")
    return chosen


def _own_jumps(findings: Findings) -> list[LocatedSite]:
    jumps = findings.table.jumps
    problems = {jump.id: jump.problem for jump in jumps}
    chosen = [item for item in findings.located if item.match.jump is not None and not problems[item.site.id]]
    _require_defined_once(chosen)
    if chosen:
        return chosen
    if jumps:
        more = f" (and {len(jumps) - 1} more)" if len(jumps) > 1 else ""
        raise RefusalError(f"no jump can be fused: {jumps[0].id}: {jumps[0].problem}{more}")
    refused = next((item for item in findings.table.refusals if item.reason.startswith(ITSELF)), None)
    if refused is not None:
        raise RefusalError(f"no jump can be fused: {refused.id}: {refused.reason}")
    raise NoSiteError(
        "no jump found: the model multiplies or selects nothing by a comparison with constant thresholds (an input of "
        "the model, or what it computes from one, is not constant)",
        hint="jr-onnx fuse is for models with a jump of their own; jr-onnx rewrite gives ReLUs one",
    )


def _require_defined_once(located: Sequence[LocatedSite]) -> None:
    """Refuse a site whose output another node of its scope yields too: nothing could tell the two apart.

    Raises:
        ModelError: There is such a site; ONNX wants every name defined once.
    """
    scopes = {item.scope: None for item in located}
    counts = {scope: Counter(name for node in scope.nodes for name in node.output) for scope in scopes}
    for item in located:
        if counts[item.scope][item.site.output] > 1:
            where = f"scope {item.site.scope!r}" if item.site.scope else "the main graph"
            raise ModelError(
                f"site {item.site.id}: several nodes of {where} yield {item.site.output!r}, ONNX wants each name once",
                hint="Export the model again",
            )


def _expression(pattern: str, option: str, ids: Mapping[str, None]) -> re.Pattern[str]:
    if pattern in ids:
        return re.compile(rf"\A{re.escape(pattern)}\Z")  # an id means that site alone: relu1 does not choose relu10
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"{option} {pattern!r} is not a valid regular expression: {error}") from None
    if not any(compiled.search(site) for site in ids):
        raise InputError(
            f"{option} {pattern!r} matches none of the {len(ids)} sites",
            hint=f"Site ids look like {next(iter(ids))!r}; jr-onnx inspect lists them",
        )
    return compiled


def _why_no_site(table: SiteTable) -> str:
    left = [item for item in table.refusals if item.kind != "refused"]
    if left and len(left) == len(table.refusals):
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        return f"no activation found: {left[0].id}: {left[0].reason}; --include takes it all the same{more}"
    if table.refusals:
        first = next(item for item in table.refusals if item.kind == "refused")
        more = f" (and {len(table.refusals) - 1} more)" if len(table.refusals) > 1 else ""
        return f"no site can be rewritten: {first.id} ({first.op_type}): {first.reason}{more}"
    if table.jumps:
        return (
            f"no site found: the model has no ReLU; {table.jumps[0].id} is a jump of its own, which jr-onnx fuse takes"
        )
    if table.others:
        first_other = table.others[0]
        return f"no site found: the model has no ReLU; {first_other.id} ({first_other.op_type}): {first_other.reason}"
    return "no site found: the model has no ReLU"

"""Every registered operator against ONNX's own node cases; what does not run must be refused for a listed reason."""

from __future__ import annotations

import pytest

from jr_onnx.torchnet.mean_draws import RANDOM_OPS
from jr_onnx.torchnet.registry import TABLE
from tests.torchnet.node_cases import (
    EXPANDED,
    OUT_OF_SCOPE,
    WRONG,
    by_operator,
    explained,
    node_cases,
    outcome,
    registered,
)
from tests.torchnet.runtime_cases import CASES

_OPERATORS = sorted({name for domain, name in TABLE if domain == ""} | {"If"})
_SHARDS = 8
_LEAST_PASSING = 1400


def _run(indices: tuple[int, ...]) -> None:
    for index in indices:
        case = node_cases()[index]
        if case.name in WRONG:
            with pytest.raises(AssertionError):
                outcome(index)
            continue
        result = outcome(index)
        if result.kind == "refused":
            assert all(explained(reason) for reason in result.reasons), f"{case.name}: {result.reasons}"


@pytest.mark.parametrize("operator", _OPERATORS)
def test_operator_agrees_with_its_node_cases(operator: str) -> None:
    _run(by_operator().get(operator, ()))


@pytest.mark.parametrize("operator", EXPANDED)
def test_operator_defined_by_others_is_inlined(operator: str) -> None:
    assert operator not in {name for _, name in TABLE}
    assert {outcome(index).kind for index in by_operator()[operator]} == {"passed"}


@pytest.mark.parametrize("shard", range(_SHARDS))
def test_composed_models_agree_with_their_cases(shard: int) -> None:
    _run(by_operator()[""][shard::_SHARDS])


@pytest.mark.parametrize("operator", sorted(set(OUT_OF_SCOPE) & set(by_operator())))
def test_operator_out_of_scope_is_refused_by_name(operator: str) -> None:
    for index in by_operator()[operator]:
        result = outcome(index)
        assert result.kind in ("refused", "no_type")
        if result.kind == "refused":
            assert any(operator in reason for reason in result.reasons)


def test_every_case_uses_operators_that_are_registered_or_listed() -> None:
    unlisted = {
        node.op_type
        for case in node_cases()
        for node in case.model.graph.node
        if not registered(node) and node.op_type not in OUT_OF_SCOPE
    }
    assert unlisted == set()


def test_every_registered_operator_has_a_passing_case() -> None:
    missing = []
    tested = {(domain, operator) for domain, operator, *_ in (case.key for case in CASES)}
    for domain, operator in TABLE:
        if (domain, operator) in tested or operator in RANDOM_OPS:  # those: `test_random`, against ONNX Runtime
            continue
        passing = (index for index in by_operator().get(operator, ()) if outcome(index).kind == "passed")
        if next(passing, None) is None:
            missing.append(f"{domain}::{operator}")
    assert missing == []


@pytest.mark.slow
def test_the_number_of_passing_cases_does_not_fall() -> None:
    passed = 0
    for index, case in enumerate(node_cases()):
        if case.name not in WRONG:
            passed += outcome(index).kind == "passed"
    # Counted on onnx 1.23; an older package has fewer cases in all.
    assert passed >= min(_LEAST_PASSING, len(node_cases()) // 2)

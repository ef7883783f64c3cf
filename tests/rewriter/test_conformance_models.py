"""The conformance models of the onnx package: every one splits, joins, and is rewritten or refused in one line."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest

from jr_onnx.errors import NoSiteError, RefusalError
from jr_onnx.modelfile.wire import join, split
from jr_onnx.rewriter import find_sites, restore, rewrite


@pytest.mark.slow
def test_every_operator_of_onnx_survives() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases compute their expectations, with NaN and overflow
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    assert len(cases) > 1500
    found: Counter[str] = Counter()
    for case in cases:
        data = case.model.SerializeToString(deterministic=True)
        skeleton, payloads = split(data)
        assert b"".join(join(skeleton, payloads)) == data, case.name
        table = find_sites(case.model)
        try:
            output, result = rewrite(case.model, 0.06)
        except (NoSiteError, RefusalError) as error:
            found[type(error).__name__] += 1
            continue
        assert len(result.sites) == len(table.sites), case.name
        assert restore(output).SerializeToString(deterministic=True) == data, case.name
        found["rewritten"] += 1
    assert found["rewritten"] >= 5, found
    assert found["NoSiteError"] > 1000, found

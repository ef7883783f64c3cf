"""The tools that compare servers' answers see NaN and infinities as what they are."""

from __future__ import annotations

import numpy as np
import pytest

from tools.checks.protocol.oip_client import _distance
from tools.checks.serving.known import Known


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_equal_odd_numbers_do_not_differ_and_others_always_do(odd: float) -> None:
    expected = np.array([[1.0, odd]], np.float32)
    known = Known([], [expected], 1e-3)
    for found, right in (([[1.0, odd]], True), ([[1.5, odd]], False), ([[1.0, 2.0]], False)):
        answer = np.array(found, np.float32)
        assert (_distance(answer, expected) <= 1e-3) is right
        assert (known.fault(answer, 0) is None) is right

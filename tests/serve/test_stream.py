"""Streams over gRPC: one answer for every request, in their order."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.serve.support import GOOD, Rest


def test_more_requests_than_may_wait_are_answered_in_their_order(extensions: dict[str, Any], rest: Rest) -> None:
    many = extensions["streams"]["many"]
    assert "there is no model 'nothing'" in many[5]  # and the stream went on
    rows = many[:5] + many[6:]
    assert [row[0] for row in rows] == [str(number) for number in range(700) if number != 5]
    assert all(row[1] is True for row in rows)
    expected = rest.infer("fixed", GOOD).output().ravel()
    for row in (rows[0], rows[-1]):
        # Another number of rows is joined: sums of 64 products of a size of 10 at most, in another order.
        np.testing.assert_allclose(np.array(row[2], np.float32), expected, rtol=0, atol=64 * 10 * 2**-24)


def test_a_stream_without_requests_is_over(extensions: dict[str, Any]) -> None:
    assert extensions["streams"]["empty"] == ["OK", 0]


def test_what_is_wrong_with_a_request_is_said_in_its_answer(extensions: dict[str, Any]) -> None:
    status, answers = extensions["streams"]["no message"]
    assert (status, answers) == ("OK", ["the message cannot be parsed"])
    status, answers = extensions["streams"]["large"]
    assert (status, len(answers)) == ("OK", 3)
    assert all("3145728 bytes" in answer for answer in answers)

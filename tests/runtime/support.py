"""Sessions that run one retrofit both ways, optimised and plain, and their comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime

from jr_onnx.rewriter import rewrite
from jr_onnx.runtime.session import InferenceSession

CPU = ["CPUExecutionProvider"]


def options(**attributes: Any) -> Any:
    """Return session options of one thread, with attributes set."""
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = 1
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def open_both(model: onnx.ModelProto, kappa: Any, **rewriting: Any) -> tuple[InferenceSession, InferenceSession]:
    """Return the optimised and the plain session of a retrofit."""
    data = rewrite(model, kappa, **rewriting)[0].SerializeToString()
    fast = InferenceSession(data, options(), CPU, retrofit="optimised")
    plain = InferenceSession(data, options(), CPU, retrofit="plain")
    assert fast.retrofit.mode == "optimised"
    assert plain.retrofit.mode == "plain"
    assert plain.retrofit.reason == "asked for"
    return fast, plain


def assert_same_bits(fast: InferenceSession, plain: InferenceSession, feed: dict[str, Any]) -> list[Any]:
    """Run both sessions, and return the outputs of the first."""
    one, other = fast.run(None, feed), plain.run(None, feed)
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)
        assert np.any(left), "a network of zeros proves nothing"
    return list(one)

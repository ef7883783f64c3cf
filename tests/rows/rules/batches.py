"""A proof held against ONNX Runtime: a batch gives every row what it gets alone."""

from __future__ import annotations

import numpy as np
import onnx

from jr_onnx.rows import prove_rows
from tests.rows.build import session


def assert_proved(model: onnx.ModelProto, tolerance: float = 0.0, different: int = 4) -> None:
    """Check that rows are proved independent, and that they are in ONNX Runtime, up to a tolerance.

    `different` is how many different values the result must have at least: one that hardly depends on the input shows
    nothing.
    """
    proof = prove_rows(model)
    assert proof, proof.why
    opened = session(model)
    shape = [4, *opened.get_inputs()[0].shape[1:]]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (together,) = opened.run(["y"], {"x": x})
    alone = np.concatenate([opened.run(["y"], {"x": x[row : row + 1]})[0] for row in range(4)])
    assert together.shape == alone.shape
    assert len(np.unique(together)) >= different
    np.testing.assert_allclose(together.astype(np.float64), alone.astype(np.float64), rtol=0, atol=tolerance)


def assert_not_proved(model: onnx.ModelProto, reason: str) -> None:
    """Check that no proof is found, and why."""
    proof = prove_rows(model)
    assert not proof
    assert reason in proof.why

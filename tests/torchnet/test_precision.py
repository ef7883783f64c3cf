"""The settings of torch that a block changes, and that they are as before after it."""

from __future__ import annotations

import pytest
import torch

from jr_onnx.torchnet.precision import full_precision, repeatable_operators, tf32_precision


def _mode() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.parametrize(("wanted", "warn_only"), [(True, False), (True, True), (False, False)])
def test_operators_are_refused_inside_alone(wanted: bool, warn_only: bool) -> None:
    before = _mode()
    with repeatable_operators(not wanted):
        outer = _mode()
        with repeatable_operators(wanted, warn_only=warn_only):
            assert _mode() == (wanted, warn_only)
        assert _mode() == outer
    assert _mode() == before


def test_tf32_is_on_inside_on_cuda_alone() -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    with full_precision(torch.device("cuda")):
        with tf32_precision(torch.device("cuda")):
            assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic) == (True, True, True)
        with tf32_precision(torch.device("cpu")):
            assert (cudnn.allow_tf32, matmul.allow_tf32) == (False, False)
        assert (cudnn.allow_tf32, matmul.allow_tf32) == (False, False)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_tf32_is_off_on_cuda_and_back_afterwards(device: str) -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic
    with full_precision(torch.device(device)):
        inside = cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic
    assert inside == ((False, False, True) if device == "cuda" else before)
    assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic) == before

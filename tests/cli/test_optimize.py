"""`jr-onnx optimize`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from tests.cli.conftest import Outcome
from tests.runtime.exact_nets import convnet


def test_it_saves_and_says_for_what(jr: Callable[..., Outcome], tmp_path: Path) -> None:
    onnx.save(convnet(), str(tmp_path / "net.onnx"))
    assert jr("rewrite", tmp_path / "net.onnx", "--kappa", 3).exit_code == 0
    done = jr("optimize", tmp_path / "net.jr.onnx", "--no-op-library")
    assert done.exit_code == 0, done.err
    assert done.out == f"6 jumps as standard operators -> {tmp_path / 'net.fast.onnx'}\n"
    assert "only for " in done.err
    again = jr("optimize", tmp_path / "net.jr.onnx")
    assert again.exit_code == 2
    assert "exists" in again.err
    mark: dict[str, Any] = json.loads(jr("optimize", tmp_path / "net.jr.onnx", "--force", "--json").out)
    assert mark["schema"] == "jr_onnx.optimised/1"
    assert mark["jumps"] == 6


def test_an_original_is_refused(jr: Callable[..., Outcome], tmp_path: Path) -> None:
    onnx.save(convnet(), str(tmp_path / "net.onnx"))
    done = jr("optimize", tmp_path / "net.onnx")
    assert done.exit_code == 2
    assert done.err.startswith(f"jr-onnx: {tmp_path / 'net.onnx'} is not a retrofit")
    assert done.err.endswith("Run jr-onnx rewrite first\n")

"""What holds for all commands alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from jr_onnx import provenance
from jr_onnx.kappa import KappaPlan

Jr = Callable[..., Any]
MODEL = Path(__file__).resolve().parents[2] / "models" / "exported" / "digits_cnn.onnx"

# Commands that open a retrofit, and the exit code with which each ends on one whose provenance its graph contradicts.
COMMANDS: dict[str, tuple[int, tuple[object, ...]]] = {
    "restore": (4, ("restore", "RETROFIT")),
    "rewrite": (4, ("rewrite", "RETROFIT", "--kappa", 0.1, "--replace", "-o", "OUT")),
    "verify": (1, ("verify", "RETROFIT", "--samples", 1)),
    "optimize": (4, ("optimize", "RETROFIT")),
    "bench": (4, ("bench", "RETROFIT", "--rounds", 1)),
    "package": (4, ("package", "triton", "RETROFIT", "-o", "OUT", "--name", "digits")),
    "serve": (4, ("serve", "RETROFIT", "--http-port", 0, "--no-grpc")),
    "attack": (4, ("attack", "RETROFIT", "--data", "digits", "-o", "OUT")),
    "tune": (4, ("tune", "RETROFIT", "--data", "digits")),
    "detect": (4, ("detect", "RETROFIT", "--data", "digits")),
    "inspect": (1, ("inspect", "RETROFIT")),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_believes_a_provenance_that_the_graph_contradicts(jr: Jr, name: str, tmp_path: Path) -> None:
    if name in ("attack", "tune", "detect"):
        pytest.importorskip("torch", reason="torch is not installed")
    if name == "serve":
        pytest.importorskip("kserve", reason="kserve is not installed")
    retrofit, out = tmp_path / "m.jr.onnx", tmp_path / "out"
    assert jr("rewrite", MODEL, "--kappa", 0.06, "-o", retrofit).exit_code == 0
    model = onnx.load(retrofit)
    record = provenance.read(model)
    assert record is not None
    sites = tuple(dataclasses.replace(site, kappa=5.0) for site in record.sites)
    provenance.remove(model)
    provenance.write(model, dataclasses.replace(record, plan=KappaPlan(kappa=5.0), sites=sites))
    onnx.save(model, retrofit)
    code, words = COMMANDS[name]
    done = jr(*({"RETROFIT": retrofit, "OUT": out}.get(str(word), word) for word in words))
    assert done.exit_code == code, done.err
    assert f"site {record.sites[0].id}" in done.err + done.out or record.sites[0].id in done.out
    assert "alpha=0.05999" in done.err + done.out
    assert not (out / "digits").exists()
    assert not (tmp_path / "m.restored.onnx").exists()

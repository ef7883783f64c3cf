"""`jr-onnx fuse`, as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx

from jr_onnx.rewriter import RewriteResult
from tests.cli.conftest import autoencoder


def test_inspect_names_the_jump_and_the_next_command(jr, sae: Path) -> None:
    outcome = jr("inspect", sae)
    assert outcome.exit_code == 0
    assert outcome.out.splitlines()[1].split() == [
        "gate", "jump_relu_mask", "float32", "0.05", "to", "0.8", "(16", "along", "axis", "1)", "MatMul", "decode",
    ]  # fmt: skip
    assert "it is the ReLU inside the jump gate" in outcome.out
    assert outcome.err.splitlines() == [
        "0 sites, 0 cannot be rewritten, 0 are not ReLUs, 1 jump of its own", f"next: jr-onnx fuse {sae}",
    ]  # fmt: skip


def test_fused_verified_and_restored(jr, sae: Path) -> None:
    outcome = jr("fuse", sae)
    fused = sae.with_name("sae.fused.onnx")
    assert outcome.exit_code == 0
    assert f"1 jump fused -> {fused}" in outcome.out
    assert outcome.err == f"next: jr-onnx verify {fused} {sae}\n"
    assert [node.op_type for node in onnx.load(fused).graph.node] == ["MatMul", "Add", "Constant", "JumpRelu", "MatMul"]
    verified = jr("verify", fused, sae)
    assert verified.exit_code == 0, verified.out
    assert "own thresholds, plain" in verified.out
    assert jr("restore", fused, "-o", sae.with_name("back.onnx")).exit_code == 0
    assert sae.with_name("back.onnx").read_bytes() == sae.read_bytes()
    shown = jr("inspect", fused)
    assert shown.out.splitlines()[1].split() == [
        "gate", "jump_relu_mask", "float32", "per", "channel:", "0.05", "to", "0.8", "(16", "channels)", "custom",
    ]  # fmt: skip
    assert "not retrofitted" not in shown.err


def test_dry_run_diff_and_json(jr, sae: Path) -> None:
    outcome = jr("fuse", sae, "--dry-run", "--diff")
    assert "JumpRelu" in outcome.out
    assert any(line.startswith("-") and "Greater" in line for line in outcome.out.splitlines())
    result = RewriteResult.from_json(json.loads(jr("fuse", sae, "--dry-run", "--json").out))
    assert [site.kappa for site in result.sites] == [tuple(np.linspace(0.05, 0.8, 16).astype(np.float32).tolist())]
    assert not sae.with_name("sae.fused.onnx").exists()


def test_jumps_that_cannot_be_fused_are_named(jr, sae: Path) -> None:
    model = autoencoder()
    model.graph.node.extend(onnx.parser.parse_graph(
        "g (float[N,16] z, float[16] threshold) => () { e = Exp(threshold) b = Greater(z, e) w = Where(b, z, nought) }"
    ).node)  # fmt: skip
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((), np.float32), "nought"))
    onnx.save(model, sae)
    outcome = jr("fuse", sae)
    assert outcome.exit_code == 0
    assert "1 jump fused, 1 jump left alone" in outcome.out
    assert "Exp computes them when the model runs" in outcome.out


def test_errors_are_one_line_and_nothing_is_written(jr, sae: Path, model: Path) -> None:
    onnx.save(autoencoder(np.nan), sae)
    for path, code, reason in ((sae, 4, "1 of 1 of its thresholds"), (model, 3, "no jump found")):
        outcome = jr("fuse", path)
        assert outcome.exit_code == code, outcome.err
        assert reason in outcome.err
        assert len(outcome.err.splitlines()) == 1
        assert not path.with_name(f"{path.stem}.fused.onnx").exists()
    onnx.save(autoencoder(), sae)
    assert jr("fuse", sae, "-o", sae).exit_code != 0
    assert jr("fuse", sae).exit_code == 0
    again = jr("fuse", sae)
    assert "exists" in again.err
    assert jr("fuse", sae, "--force").exit_code == 0
    assert "is a retrofit already; jr-onnx restore" in jr("fuse", sae.with_name("sae.fused.onnx")).err.replace(
        ". ", "; "
    )

"""The sparse autoencoder that is measured."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from jr_onnx.rewriter import find_sites
from tools.bench.autoencoder import main


def test_it_has_one_jump_and_few_active_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sae.onnx"
    monkeypatch.setattr(sys, "argv", ["autoencoder", str(path), "--d-model", "64", "--features", "2000"])
    main()
    (jump,) = find_sites(path).jumps
    assert (jump.id, jump.form, jump.thresholds, jump.axis) == ("jump", "jump_relu_mask", 2000, 1)
    x = np.random.default_rng(1).standard_normal((32, 64)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], {"x": x})
    assert y.shape == x.shape
    assert np.isfinite(y).all()
    weights = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    encode, bias, threshold = (onnx.numpy_helper.to_array(weights[name]) for name in ("W_enc", "b_dec", "threshold"))
    active = float(np.mean((x - bias) @ encode > threshold))
    assert 0.005 < active < 0.02  # P(z > 2.35) of a normal z is 0.0094


def test_the_activation_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["autoencoder", str(tmp_path / "jump.onnx"), "--activation", "--features", "100"])
    main()
    model = onnx.load(tmp_path / "jump.onnx")
    assert [node.op_type for node in model.graph.node] == ["Relu", "Greater", "Cast", "Mul"]
    assert len(find_sites(model).jumps) == 1

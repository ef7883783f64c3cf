"""The client that asks a Triton server asks this one, unchanged: a packaged repository over HTTP and gRPC."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jr_onnx.deploy import TritonOptions, package_triton
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime.session import InferenceSession
from tools.checks.serving.processes import ROOT, jr_onnx, running

pytest.importorskip("tritonclient", reason="tritonclient is not installed")
DIGITS = ROOT / "models" / "exported" / "digits_cnn.onnx"


def test_tritonclient_asks_a_packaged_repository(tmp_path: Path) -> None:
    model = tmp_path / "digits.jr.onnx"
    rewrite(DIGITS, 0.06, output=model)
    repository = tmp_path / "repository"
    package_triton(model, repository, TritonOptions(name="digits", all_versions=True))
    session = InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (source,), (output,) = session.get_inputs(), session.get_outputs()
    arrays = {}
    generator = np.random.default_rng(0)
    for number, batch in enumerate((1, 1, 2, 5, 1, 3)):
        images = generator.random((batch, 1, 8, 8), dtype=np.float32)
        arrays[f"digits@1#{number}/in/{source.name}"] = images
        arrays[f"digits@1#{number}/out/{output.name}"] = session.run(None, {source.name: images})[0]
    cases = tmp_path / "cases.npz"
    np.savez(cases, **arrays)
    with running(jr_onnx(repository)) as server:
        command = [
            sys.executable,
            "tools/checks/protocol/oip_client.py",
            "--http",
            server.http,
            "--grpc",
            server.grpc,
            str(cases),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr + server.log
    report = json.loads(done.stdout)
    for transport in ("http", "grpc"):
        assert report[transport]["ready"] is True
        differences = report[transport]["differences"]
        assert len(differences) == 6
        # Logits of size 10, other batches and threads: a hundred roundings of 2^-24 at most; a flip would be far more.
        assert max(differences.values()) < 1e-4, differences
    assert report["http"]["metadata"]["digits"]["inputs"][0]["shape"] == [-1, 1, 8, 8]

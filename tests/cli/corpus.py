"""Good files for the fuzzer to damage: models and retrofits, data, kappa maps, results of attacks, packages."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.cli.app import run
from jr_onnx.errors import JrError
from jr_onnx.rewriter import fuse, rewrite
from tests.cli.conftest import autoencoder


def build(folder: Path) -> None:
    """Write the corpus: folders `models`, `classifiers`, `data`, `maps`, `results`, `packages`."""
    for name in ("models", "classifiers", "data", "maps", "results", "packages"):
        (folder / name).mkdir(parents=True)
    _golden_models(folder / "models")
    for name, threshold in (("features", None), ("one", 0.25)):
        model = autoencoder(threshold)
        onnx.save(model, folder / "models" / f"autoencoder_{name}.onnx")
        onnx.save(fuse(model)[0], folder / "models" / f"autoencoder_{name}.fused.onnx")
    classifier = folder / "classifiers" / "digits.onnx"
    onnx.save(_classifier(), classifier)
    _jr("rewrite", classifier, "--kappa", "0.1", "-o", folder / "classifiers" / "retrofit.onnx")
    _jr("rewrite", classifier, "--kappa", "0.1", "--kappa-input", "k", "-o", folder / "classifiers" / "input.onnx")
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    np.savez(folder / "data" / "images.npz", images=images, labels=np.arange(12) % 10)
    (folder / "maps" / "map.json").write_text(json.dumps({"act1": 0.1, "act.*": 0.2}), encoding="utf-8")
    (folder / "maps" / "map.yaml").write_text("act1: 0.1\n'.*': 1e-3\n", encoding="utf-8")
    (folder / "maps" / "labels.txt").write_text("".join(f"label {n}\n" for n in range(10)), encoding="utf-8")
    small = ("--suite", "paper", "--limit", "4", "--paper-steps", "1", "--trust-steps", "1", "--chunk", "4")
    _jr("attack", classifier, "--kappa", "0.1", *small, "-o", folder / "results" / "run")
    _jr("package", "triton", folder / "classifiers" / "retrofit.onnx", "-o", folder / "packages" / "repository")


def _jr(*words: object) -> None:
    """Run a command that has to work.

    Raises:
        RuntimeError: It did not.
    """
    text = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(text):
        code = run([str(word) for word in words])
    if code:
        raise RuntimeError(f"{words}: {code}: {text.getvalue()}")


def _golden_models(folder: Path) -> None:
    """Write the golden models, and a retrofit of each that can be retrofitted."""
    from tests.rewriter.test_golden import CASES, read_case

    for case in CASES:
        _, model, _ = read_case(case)
        (folder / f"{case.stem}.onnx").write_bytes(model.SerializeToString())
        try:
            output, _ = rewrite(model, 0.06)
        except JrError:
            continue
        (folder / f"{case.stem}.retrofit.onnx").write_bytes(output.SerializeToString())


def _classifier() -> onnx.ModelProto:
    """Flatten, Gemm, Relu, Gemm: digits (N, 1, 8, 8) -> logits (N, 10)."""
    random = np.random.default_rng(1)
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w1"], ["h"], name="fc1"),
        helper.make_node("Relu", ["h"], ["a"], name="act1"),
        helper.make_node("Gemm", ["a", "w2"], ["y"], name="fc2"),
    ]
    weights = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w1", (64, 6)), ("w2", (6, 10)))
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

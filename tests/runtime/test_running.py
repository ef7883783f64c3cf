"""A model that opens and fails on every input is one line that names it, whatever runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from jr_onnx.cli.app import run as run_command
from jr_onnx.errors import ModelError
from jr_onnx.runtime.running import run

# PRelu's slope does not broadcast, which ONNX Runtime finds out when it computes.
TEXT = """<ir_version: 8, opset_import: ["" : 13]>
g (float[N, 1, 2, 2] x) => (float[N, 4] y) {
  h = Relu(x)
  f = Flatten(h)
  y = PRelu(f, slope)
}"""


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    model = parser.parse_model(TEXT)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "slope"))
    path = tmp_path / "broken.onnx"
    onnx.save(model, path)
    return path


def test_a_failing_run_is_a_model_error(broken: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(broken), options, providers=["CPUExecutionProvider"])
    with pytest.raises(ModelError, match=r"^ONNX Runtime cannot run broken\.onnx: .*PRelu"):
        run(session, ["y"], {"x": np.zeros((2, 1, 2, 2), np.float32)}, "broken.onnx")


def test_a_run_gives_the_outputs_that_are_named(tmp_path: Path) -> None:
    path = tmp_path / "good.onnx"
    onnx.save(parser.parse_model('<ir_version: 8, opset_import: ["" : 13]> g (float[N] x) => (float[N] a, float[N] b) '
                                 "{ a = Relu(x)\n b = Neg(x) }"), path)  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = run(session, ["b"], {"x": np.array([1, -2], np.float32)}, "good.onnx")
    np.testing.assert_array_equal(found, np.array([-1, 2], np.float32))


@pytest.mark.parametrize("command", ["attack", "detect", "tune", "tune --black-box", "bench", "verify"])
def test_every_command_that_runs_a_model_names_it(
    command: str, broken: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(1).integers(0, 256, (200, 2, 2), dtype=np.uint8)
    np.savez(broken.with_name("images.npz"), images=images, labels=np.arange(200) % 4)
    words = [*command.split(), str(broken), "--kappa", "0.1"]
    if command not in ("bench", "verify"):
        words += ["--data", f"npz:{broken.with_name('images.npz')}"]
    if command.startswith("tune"):
        words[-4:-2] = ["--grid", "0,0.1"]
    code = run_command(words)
    said = capfd.readouterr().err
    assert code in (2, 8), said
    lines = [line for line in said.splitlines() if line.startswith("jr-onnx:")]
    assert len(lines) == 1
    assert "PRelu" in lines[0]

"""A runner for commands as a person types them, and small models to run them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from jr_onnx.cli.app import run


@dataclass(frozen=True)
class Outcome:
    """Exit code and what was printed."""

    exit_code: int
    out: str
    err: str


@pytest.fixture
def jr(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `jr-onnx WORDS...` in this process."""

    def call(*words: object) -> Outcome:
        capsys.readouterr()
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def small_model(**changes: object) -> onnx.ModelProto:
    """Gemm, Relu, Gemm: (N, 4) -> (N, 2)."""
    first = helper.make_tensor("w1", TensorProto.FLOAT, [4, 4], [((i * 7) % 5 - 2) / 4 for i in range(16)])
    second = helper.make_tensor("w2", TensorProto.FLOAT, [4, 2], [((i * 3) % 7 - 3) / 4 for i in range(8)])
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1"], ["h"], name="fc1"),
            helper.make_node("Relu", ["h"], ["a"], name="act1"),
            helper.make_node("Gemm", ["a", "w2"], ["y"], name="fc2"),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [first, second],
    )
    options: dict[str, object] = {"opset": 17, "ir_version": 9, **changes}
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", int(str(options["opset"])))],
        ir_version=int(str(options["ir_version"])),
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The small model in a file of its own folder."""
    path = tmp_path / "net.onnx"
    onnx.save(small_model(), path)
    return path

"""`jr-onnx verify` as a person types it: table, JSON, options, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from jr_onnx.verifier import VerifyReport
from tests.verifier.nets import image_network, network, save

Jr = Callable[..., Any]


@pytest.fixture
def files(jr: Jr, tmp_path: Path) -> tuple[Path, Path]:
    original = save(image_network(), tmp_path)
    assert jr("rewrite", original, "--kappa", "0.06").exit_code == 0
    return tmp_path / "net.jr.onnx", original


def test_a_table_and_the_last_line(jr: Jr, files: tuple[Path, Path]) -> None:
    done = jr("verify", *files, "--samples", 2)
    assert done.exit_code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:2] == ["check", "samples"]
    assert lines[-1].startswith("verified: 2 sites, kappa 0.0599999987; ")
    assert ", 0 failed, 0 not run, 0 flips; original given (net.onnx); inputs random, seed 0" in lines[-1]


def test_json_is_the_record(jr: Jr, files: tuple[Path, Path]) -> None:
    done = jr("verify", files[0], "--samples", 1, "--json")
    assert done.exit_code == 0, done.err
    report = VerifyReport.from_json(json.loads(done.out))
    assert report.passed
    assert report.model == "net.jr.onnx"
    assert report.original == "restored from the provenance"


def test_real_digits_and_a_plain_model(jr: Jr, files: tuple[Path, Path]) -> None:
    done = jr("verify", files[1], "--kappa", "0.06", "--data", "digits", "--samples", 3, "--batch", 4)
    assert done.exit_code == 0, done.err
    assert "inputs digits" in done.out


def test_shapes_values_and_seed(jr: Jr, tmp_path: Path) -> None:
    plain = save(network(), tmp_path)
    words = ("--shape", "x=3,8", "--value", "x=0.5", "--seed", 7, "--reference-samples", 0)
    done = jr("verify", plain, "--kappa", "0.06", "--samples", 1, *words)
    assert done.exit_code == 0, done.err
    assert "seed 7" in done.out
    assert "not run" in done.out


def test_impossible_lowerings_are_printed(jr: Jr, tmp_path: Path) -> None:
    plain = save(network(opset=8, ir_version=4), tmp_path)
    done = jr("verify", plain, "--kappa", "0.06", "--samples", 1)
    assert done.exit_code == 0, done.err
    assert "impossible here: custom: " in done.out


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (("missing.onnx",), 2, "does not exist"),
        (("{original}",), 2, "is not a retrofit, and no kappa was given"),
        (("{original}", "--kappa", "-1"), 2, "expected a finite number >= 0"),
        (("{retrofit}", "--kappa", "1"), 2, "is a retrofit and has its own kappa"),
        (("{retrofit}", "--shape", "x"), 2, "--shape"),
        (("{retrofit}", "--shape", "x=1,1,5,5"), 8, "the original does not run on random inputs"),
        (("{retrofit}", "--samples", "0"), 2, "0 samples"),
        (("{retrofit}", "--data", "nonsense"), 2, "nonsense"),
        (("{retrofit}", "--weights", "w.pt"), 2, "--torch MODULE:FACTORY"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    jr: Jr, files: tuple[Path, Path], words: tuple[str, ...], exit_code: int, said: str
) -> None:
    done = jr("verify", *(word.format(retrofit=files[0], original=files[1]) for word in words))
    assert done.exit_code == exit_code
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_model_without_a_site_leaves_with_three(jr: Jr, tmp_path: Path) -> None:
    model = network()
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Tanh"
    done = jr("verify", save(model, tmp_path), "--kappa", "0.06")
    assert done.exit_code == 3


def test_another_original_is_refused_by_its_content(jr: Jr, files: tuple[Path, Path], tmp_path: Path) -> None:
    other = onnx.load(files[1])
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    path = tmp_path / "other.onnx"
    path.write_bytes(other.SerializeToString())
    done = jr("verify", files[0], path, "--samples", 1)
    assert done.exit_code == 1
    assert "initializer[0]" in done.err


NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = torch.nn.Linear(8, 12), torch.nn.Linear(12, 4)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))
"""


@pytest.mark.parametrize("wrong", [False, True])
def test_a_torch_network_is_compared_too(jr: Jr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: bool) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    (tmp_path / "jr_test_network.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    from importlib import import_module

    torch.manual_seed(0)
    net = import_module("jr_test_network").Net()
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    save(_linear_export({name: value.numpy() for name, value in weights.items()}), tmp_path)
    if wrong:
        weights["fc1.weight"][0, 0] += 0.5
    torch.save(weights, tmp_path / "net.pt")
    words = ("net.onnx", "--kappa", "0.06", "--samples", 2, "--torch", "jr_test_network:Net", "--weights", "net.pt")
    done = jr("verify", *words)
    assert done.exit_code == int(wrong), done.err
    assert "original at kappa 0" in done.out
    if wrong:
        assert "the torch network disagree" in done.err
    else:
        record = json.loads(jr("verify", *words, "--json").out)
        assert record["verify"]["schema"] == VerifyReport.SCHEMA
        assert all(item["passed"] for item in record["torch"]["comparisons"])


def _linear_export(weights: dict[str, Any]) -> onnx.ModelProto:
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Gemm", ["x", "fc1.weight", "fc1.bias"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["a"], name="relu"),
        helper.make_node("Gemm", ["a", "fc2.weight", "fc2.bias"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

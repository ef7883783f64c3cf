"""`verify --provider cuda` on the fake runtime, where the op library computes and ONNX Runtime's own kernels do not.

So what a verification has to say here is known: sites of the op library pass, all others fail.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import helper

from jr_onnx import provenance
from jr_onnx.cli.app import run
from jr_onnx.rewriter import rewrite
from jr_onnx.torchnet.runtime import Reference
from jr_onnx.verifier import verify
from jr_onnx.verifier.evaluators.device import on_device, providers
from jr_onnx.verifier.sites.check import check_sites
from jr_onnx.verifier.sites.groups import site_groups
from jr_onnx.verifier.torch.compare import verify_torch
from tools.checks.gpu.sessions import CUDA, elementwise

KAPPA = 0.25


@pytest.fixture
def relu(fake: ctypes.CDLL) -> onnx.ModelProto:
    return elementwise([helper.make_node("Relu", ["x"], ["y"], name="site")])


def test_kernels_that_compute_nothing_are_found_out(relu: onnx.ModelProto) -> None:
    report = verify(relu, KAPPA, samples=2, provider="cuda")
    assert not report
    assert any(backend.endswith("(CUDA)") for backend in report.backends)
    sites: dict[str, set[str]] = {}
    for check in report.checks:
        sites.setdefault(check.what, set()).add(check.verdict)
    assert sites["sites of custom + op library"] == {"passed"}
    assert [sites[f"sites of {name}"] for name in ("where", "thresholded", "custom")] == [{"failed"}] * 3
    # The original's Relu computes nothing, the op library's jump does: they cannot agree.
    assert "failed" in sites["kappa 0, plain"] & sites["kappa 0, TF32"]


@pytest.mark.parametrize("wrong", [0.0, 0.2500001, 0.5, None])
def test_a_wrong_jump_of_the_op_library_is_found(relu: onnx.ModelProto, wrong: float | None) -> None:
    """The kernel gets another kappa than the provenance says; the neighbours of kappa tell even the next float."""
    model = rewrite(relu, KAPPA, lowering="custom", target="cuda")[0]
    record = provenance.read(model)
    assert record is not None
    groups = site_groups(model, record, relu)
    (node,) = (node for node in model.graph.node if node.op_type == "JumpRelu")
    if wrong is not None:
        (kappa,) = (item for item in node.attribute if item.name == "kappa")
        kappa.f = wrong
    with on_device("cuda"):
        checks, failures = check_sites("custom", model, groups, library=True, seed=0)
    assert {check.verdict for check in checks} == {"passed" if wrong is None else "failed"}
    assert bool(failures) == (wrong is not None)


def test_the_command(relu: onnx.ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(relu, str(path))
    assert run(["verify", str(path), "--kappa", "0.25", "--samples", "1", "--provider", "cuda"]) == 1
    seen = capsys.readouterr()
    assert "NOT VERIFIED" in seen.out
    assert "warning" not in seen.err


_NETWORK = """
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return nn.functional.relu(x)
"""


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "one_relu.py").write_text(_NETWORK, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield "one_relu:Net"
    sys.modules.pop("one_relu", None)


@pytest.fixture
def rows(fake: ctypes.CDLL, tmp_path: Path) -> Path:
    path = tmp_path / "rows.onnx"
    onnx.save(elementwise([helper.make_node("Relu", ["x"], ["y"], name="site")], shape=("N", 5)), str(path))
    return path


def test_a_torch_without_cuda_is_refused_in_a_line(
    network: str, rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jr_onnx.verifier.verify", lambda *_, **__: None)
    assert run(["verify", str(rows), "--kappa", "0.25", "--torch", network, "--provider", "cuda"]) == 2
    said = capsys.readouterr().err
    assert "has no CUDA device here, so the network cannot be compared on CUDA" in said
    assert "Traceback" not in said


def test_the_network_is_compared_with_what_cuda_computes(network: str, rows: Path) -> None:
    """ONNX Runtime's kernels compute nothing here, so a comparison that used the CPU would pass."""
    assert verify_torch(network, None, rows, kappa=KAPPA).passed
    report = verify_torch(
        network, None, rows, kappa=KAPPA, provider="cuda", allow_fallback=True, raise_on_failure=False
    )
    assert [item.passed for item in report.comparisons] == [False] * 4
    assert report.notes[0] == "torch has no CUDA device here: the network ran on the CPU, ONNX Runtime on CUDA"


@pytest.mark.parametrize("tf32", [False, True])
def test_the_sessions_compute_with_tf32_as_they_should(rows: Path, tf32: bool) -> None:
    with on_device("cuda"):
        reference = Reference(str(rows), "y", providers=providers(tf32=tf32))
    assert reference._session.get_providers()[0] == CUDA
    assert reference._session.get_provider_options()[CUDA]["use_tf32"] == str(int(tf32))

"""`verify --provider cuda` on the fake runtime, where the op library computes and ONNX Runtime's own kernels do not.

So what a verification has to say here is known: sites of the op library pass, all others fail.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import onnx
import pytest
from onnx import helper

from jr_onnx import provenance
from jr_onnx.cli.app import run
from jr_onnx.rewriter import rewrite
from jr_onnx.verifier import verify
from jr_onnx.verifier.evaluators.device import on_device
from jr_onnx.verifier.sites.check import check_sites
from jr_onnx.verifier.sites.groups import site_groups
from tools.checks.gpu.sessions import elementwise

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

"""A person's own torch network against its export and the export's retrofits, whatever way it writes its ReLUs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor, nn

from jr_onnx.errors import InputError, RefusalError, VerificationError
from jr_onnx.kappa import RandomKappa
from jr_onnx.records import dumps, loads
from jr_onnx.rewriter import find_sites, rewrite
from jr_onnx.semantics import jump_relu
from jr_onnx.verifier.torch.compare import TorchReport, verify_torch
from jr_onnx.verifier.torch.network import Jumping, TorchNetwork, load_network
from tools.training.export import export

_NETWORK = """
import torch
import torch.nn.functional as F
from torch import nn


class Mixed(nn.Module):
    # Every ReLU is written another way.
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.act3 = nn.ReLU6()
        self.fc1 = nn.Linear(96, 20)
        self.fc2 = nn.Linear(20, 16)
        self.fc3 = nn.Linear(16, 16)
        self.fc4 = nn.Linear(16, 5)

    def forward(self, x):
        x = self.act1(self.bn1(self.conv1(x)))
        x = F.relu(self.conv2(x))
        x = self.act3(self.fc1(x.flatten(1)))
        x = torch.relu(self.fc2(x))
        x = torch.clamp(self.fc3(x), min=0.0, max=2.5)
        return self.fc4(x)


def build():
    torch.manual_seed(0)
    network = Mixed()
    network.bn1.running_mean.normal_(0, 0.2)
    network.bn1.running_var.uniform_(0.5, 2)
    return network


instance = build()
number = 3
def broken():
    raise ValueError("no such layer")
"""
_SHAPE = (1, 8, 8)


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "mixed_network.py").write_text(_NETWORK, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        yield "mixed_network:build"
    sys.modules.pop("mixed_network", None)


@pytest.fixture
def exported(spec: str, tmp_path: Path) -> Path:
    path = tmp_path / "mixed.onnx"
    onnx.save(export(load_network(spec), _SHAPE, exporter="old", opset=17), str(path))
    return path


def test_network_export_and_every_lowering_agree(spec: str, exported: Path) -> None:
    report = verify_torch(spec, None, exported, kappa=0.1)
    assert report.passed
    assert report.relu_calls == report.sites == 5
    assert [item.what for item in report.comparisons] == [
        "original at kappa 0",
        "retrofit (where)",
        "retrofit (thresholded)",
        "retrofit (custom)",
    ]
    assert report.notes == ()
    assert loads(TorchReport, dumps(report)) == report


@pytest.mark.slow
def test_dynamo_export_agrees_too(spec: str, tmp_path: Path) -> None:
    path = tmp_path / "dynamo.onnx"
    onnx.save(export(load_network(spec), _SHAPE, exporter="dynamo", opset=20), str(path))
    assert len(verify_torch(spec, None, path, kappa=0.1).comparisons) == 4


def test_retrofitted_file_is_verified_at_its_own_kappas(spec: str, exported: Path) -> None:
    ids = [site.id for site in find_sites(exported).sites]
    kappas = {name: 0.05 * number for number, name in enumerate(ids)}
    path, _ = rewrite(exported, kappa=kappas)
    inputs = np.random.default_rng(0).random((7, *_SHAPE), dtype=np.float32)
    report = verify_torch(spec, None, path, inputs)
    assert [item.what for item in report.comparisons] == ["original at kappa 0", "retrofit"]
    assert report.comparisons[1].samples == 7
    with pytest.raises(InputError, match="is a retrofit and has its own kappa"):
        verify_torch(spec, None, path, kappa=0.1)


def test_jump_reaches_the_network(spec: str) -> None:
    """Without this the agreement above could be that of two networks without jumps."""
    network = TorchNetwork(load_network(spec), list("abcde"))
    x = torch.rand(4, *_SHAPE, generator=torch.Generator().manual_seed(0))
    before = network.logits(x)
    for name in "abcde":
        network.set_kappas(dict.fromkeys("abcde", 0.0) | {name: 0.2})
        assert not np.array_equal(network.logits(x), before), name
    assert network.calls(x) == 5


def test_weights_are_loaded_and_prefixes_taken_off(spec: str, exported: Path, tmp_path: Path) -> None:
    state = load_network(spec).state_dict()
    plain, parallel, checkpoint = tmp_path / "a.pt", tmp_path / "b.pt", tmp_path / "c.pt"
    torch.save(state, plain)
    torch.save({f"module.{key}": value for key, value in state.items()}, parallel)
    torch.save({"state_dict": state, "epoch": 3}, checkpoint)
    for path in (plain, parallel, checkpoint):
        report = verify_torch("mixed_network:Mixed", path, exported)
        assert (report.passed, report.weights) == (True, path.name)


def test_wrong_weights_are_caught(spec: str, exported: Path, tmp_path: Path) -> None:
    state = load_network(spec).state_dict()
    state["fc3.weight"] = state["fc3.weight"] * 1.001
    torch.save(state, tmp_path / "wrong.pt")
    with pytest.raises(VerificationError, match="disagree on sample") as caught:
        verify_torch(spec, tmp_path / "wrong.pt", exported)
    assert "preprocessing" in caught.value.hint
    report = verify_torch(spec, tmp_path / "wrong.pt", exported, raise_on_failure=False)
    assert not report.passed


def test_wrong_kappa_in_the_file_is_caught(spec: str, exported: Path, tmp_path: Path) -> None:
    proto, _ = rewrite(onnx.load(str(exported)), kappa=0.1, lowering="thresholded")
    for node in proto.graph.node:
        if node.op_type == "ThresholdedRelu":
            node.attribute[0].f = 0.15
            break
    path = tmp_path / "tampered.onnx"
    onnx.save(proto, str(path))
    with pytest.raises(RefusalError, match="does not compute what its provenance says"):
        verify_torch(spec, None, path)


def test_random_retrofit_is_verified_as_far_as_it_can_be(spec: str, exported: Path) -> None:
    path, _ = rewrite(exported, kappa=RandomKappa(0.05, 0.1, source="graph"))
    report = verify_torch(spec, None, path)
    assert len(report.comparisons) == 1
    assert any("draws kappa" in note for note in report.notes)


def _with_an_extra_relu(exported: Path) -> Path:
    """A Relu beside the network, on a branch of its own that feeds another output."""
    proto = onnx.load(str(exported))
    last = proto.graph.node[-1].output[0]
    proto.graph.node.append(onnx.helper.make_node("Relu", [last], ["extra"], name="extra"))
    proto.graph.output.append(onnx.helper.make_empty_tensor_value_info("extra"))
    path = exported.parent / "extra.onnx"
    onnx.save(proto, str(path))
    return path


def test_one_kappa_needs_no_matching_of_calls_and_sites(spec: str, exported: Path) -> None:
    report = verify_torch(spec, None, _with_an_extra_relu(exported), kappa=0.1)
    assert (report.relu_calls, report.sites) == (5, 6)
    assert len(report.comparisons) == 4


def test_several_kappas_that_cannot_be_matched_are_no_success(spec: str, exported: Path) -> None:
    path = _with_an_extra_relu(exported)
    ids = [site.id for site in find_sites(path).sites]
    with pytest.raises(VerificationError, match="5 ReLU calls and the export 6 sites"):
        verify_torch(spec, None, path, kappa={ids[0]: 0.1, ids[1]: 0.2})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mixed_network", "expected module:factory"),
        ("absent_network:build", "cannot import"),
        ("mixed_network:absent", "has no 'absent'"),
        ("mixed_network:number", "calling mixed_network:number fails"),
        ("mixed_network:broken", "no such layer"),
        ("mixed_network:torch.device", "calling|gave"),
    ],
)
def test_network_that_cannot_be_made_is_refused(spec: str, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_network(name)


def test_instance_is_a_network_too(spec: str) -> None:
    assert isinstance(load_network("mixed_network:instance"), nn.Module)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"noise", "cannot be loaded"), ([1, 2], "expected a state dict"), ({"other": torch.zeros(1)}, "do not fit")],
)
def test_unusable_weights_are_refused(spec: str, tmp_path: Path, content: object, said: str) -> None:
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=said):
        load_network(spec, path)
    with pytest.raises(InputError, match="cannot read"):
        load_network(spec, tmp_path / "absent.pt")


def test_weights_cannot_run_code(spec: str, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"trap": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_network(spec, tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()


_Z = torch.linspace(-1, 8, 91)
_FORMS = {
    "torch.relu": (torch.relu, None),
    "torch.relu_": (torch.relu_, None),
    "F.relu": (F.relu, None),
    "F.relu in place": (lambda z: F.relu(z, inplace=True), None),
    "Tensor.relu": (lambda z: z.relu(), None),
    "Tensor.relu_": (lambda z: z.relu_(), None),
    "nn.ReLU": (nn.ReLU(), None),
    "F.relu6": (F.relu6, 6.0),
    "nn.ReLU6": (nn.ReLU6(inplace=True), 6.0),
    "F.hardtanh": (lambda z: F.hardtanh(z, 0.0, 3.0), 3.0),
    "nn.Hardtanh": (nn.Hardtanh(0.0, 4.0), 4.0),
    "clamp": (lambda z: z.clamp(0, 5), 5.0),
    "clamp min": (lambda z: torch.clamp(z, min=0), None),
    "clamp_": (lambda z: z.clamp_(min=0.0, max=2.0), 2.0),
    "clamp_min": (lambda z: z.clamp_min(0), None),
}


@pytest.mark.parametrize("form", _FORMS)
def test_every_form_of_relu_jumps(form: str) -> None:
    function, cap = _FORMS[form]
    z = _Z.clone()
    with Jumping([0.5], keep=True) as mode:
        found = function(z)
    assert mode.calls == 1
    assert torch.equal(mode.inputs[0], _Z)
    assert np.array_equal(found.numpy(), jump_relu(_Z.numpy(), 0.5, cap))
    in_place = "in place" in form or form.endswith("_") or form == "nn.ReLU6"
    assert torch.equal(z, found if in_place else _Z)


@pytest.mark.parametrize(
    "function",
    [
        F.hardtanh,
        lambda z: z.clamp(-1, 1),
        lambda z: z.clamp(max=3),
        lambda z: torch.clamp(z, min=torch.zeros(()), max=torch.ones(())),
        F.leaky_relu,
        lambda z: z.to(torch.int64).relu(),
    ],
)
def test_what_is_no_relu_is_left_alone(function: object) -> None:
    expected: Tensor = function(_Z)  # type: ignore[operator]
    with Jumping([0.5]) as mode:
        found = function(_Z)  # type: ignore[operator]
    assert mode.calls == 0
    assert torch.equal(found, expected)


def test_cuda_is_refused_where_onnxruntime_has_none(spec: str, exported: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(InputError, match=r"CUDAExecutionProvider|no CUDA device here"):
        verify_torch(spec, None, exported, kappa=0.1, provider="cuda")


def test_tf32_has_a_unit_in_the_last_place_of_its_own(spec: str) -> None:
    network = load_network(spec)
    assert TorchNetwork(network, (), tf32=True).eps == 2**13 * TorchNetwork(network, ()).eps
    assert TorchNetwork(network, (), torch.float64, tf32=True).eps == TorchNetwork(network, (), torch.float64).eps


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no CUDA here")
def test_network_and_export_agree_on_cuda(spec: str, exported: Path) -> None:
    """TF32 off, where float32's rounding is the bound, and on, where TF32's is."""
    report = verify_torch(spec, None, exported, kappa=0.1, provider="cuda")
    plain = ["original at kappa 0", "retrofit (where)", "retrofit (thresholded)", "retrofit (custom)"]
    assert [item.what for item in report.comparisons] == [*plain, *(f"{what}, TF32" for what in plain)]
    assert report.passed
    assert all(tf32.bound > full.bound for full, tf32 in zip(report.comparisons, report.comparisons[4:], strict=False))

"""Verification on CUDA: its sessions, and that what will be served is compared; tried on the CPU provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import jr_onnx.runtime.session
from jr_onnx.errors import InputError
from jr_onnx.runtime.providers import CPU, CUDA
from jr_onnx.verifier import run, verify
from jr_onnx.verifier.evaluators import device
from jr_onnx.verifier.evaluators.errors import LackingError
from jr_onnx.verifier.evaluators.ort import Level, OrtSession, Runnable
from jr_onnx.verifier.whole_model import served
from jr_onnx.verifier.whole_model.case import Outputs
from tests.runtime.exact_nets import KAPPA, convnet

SERVED = {"kappa 0, TF32", "kappa, TF32", "kappa, session"}


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything of a verification on CUDA but the GPU: its sessions compute on the CPU."""
    monkeypatch.setattr(run, "require_providers", lambda _: None)
    monkeypatch.setattr(device, "provider", lambda: CPU)
    monkeypatch.setattr(device, "target", lambda: "cpu")
    monkeypatch.setattr(device, "providers", lambda **_: [CPU])


def _verdicts(**settings: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for check in verify(convnet(), KAPPA, samples=2, reference_samples=0, **settings).checks:
        found.setdefault(check.what, set()).add(check.verdict)
    return found


def test_what_will_be_served_is_compared_on_cuda_alone(pretended: None) -> None:
    on_cuda = _verdicts(provider="cuda")
    assert {what: on_cuda[what] for what in SERVED} == {what: {"passed"} for what in SERVED}
    assert not SERVED & _verdicts().keys()
    assert not device.is_cuda()


def test_a_session_that_computes_something_else_fails(pretended: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(jr_onnx.runtime.session.InferenceSession):
        def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
            return [value + 1 for value in super().run(output_names, input_feed, run_options)]

    monkeypatch.setattr(jr_onnx.runtime.session, "InferenceSession", Wrong)
    found = _verdicts(provider="cuda")
    assert {what: found[what] for what in SERVED} == {
        "kappa 0, TF32": {"passed"},
        "kappa, TF32": {"passed"},
        "kappa, session": {"failed"},
    }


def test_a_wrong_answer_with_tf32_fails(pretended: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: Runnable, level: Level, samples: Sequence[Any], outputs: Any = None) -> Outputs:
        found = run_all(model, level, samples, outputs)
        is_retrofit = model.name not in ("the original", "where", "thresholded")
        return [[value + 1 for value in row] for row in found] if is_retrofit and level == "tf32" else found

    run_all = served.run_all
    monkeypatch.setattr(served, "run_all", wrong)
    monkeypatch.setattr("jr_onnx.verifier.whole_model.lowerings.run_all", wrong)
    found = _verdicts(provider="cuda")
    assert found["kappa, TF32"] == {"failed"}
    assert found["kappa 0, TF32"] == {"passed", "failed"}
    assert found["kappa, optimised against plain"] == {"passed"}


def test_settings_of_the_provider() -> None:
    assert (device.providers(), device.provider(), device.target()) == ([CPU], CPU, "cpu")
    with device.on_device("cuda"):
        assert (device.provider(), device.target()) == (CUDA, "cuda")
        (name, exact), rest = device.providers()
        assert (name, exact["use_tf32"], exact["cudnn_conv_algo_search"], rest) == (CUDA, "0", "HEURISTIC", CPU)
        (name, served_with), rest = device.providers(tf32=True)
        assert (name, served_with, rest) == (CUDA, {"use_tf32": "1"}, CPU)
    assert device.provider() == CPU


def test_a_session_elsewhere_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from jr_onnx.modelfile import from_proto

    monkeypatch.setattr(device, "provider", lambda: CUDA)
    with pytest.raises(LackingError, match=f"the model runs on {CPU}, not on {CUDA}"):
        OrtSession(Runnable("the model", from_proto(convnet())), "plain")


def test_a_provider_that_does_not_work_is_refused() -> None:
    import onnxruntime

    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime lists CUDA")
    with pytest.raises(InputError, match=f"has no provider '{CUDA}' here"):
        verify(convnet(), KAPPA, provider="cuda")
    with pytest.raises(InputError, match="the provider is 'tpu', expected one of cpu, cuda"):
        verify(convnet(), KAPPA, provider="tpu")  # type: ignore[arg-type]

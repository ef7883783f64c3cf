"""A session warns if CUDA was asked for and does not work, and takes the CPU's fast way."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from jr_onnx.errors import InputError
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime import providers
from jr_onnx.runtime.providers import (
    CPU,
    CUDA,
    TENSORRT,
    cuda_options,
    full_name,
    prefers_nhwc,
    require_providers,
    usable_providers,
    without_unusable_cuda,
)
from jr_onnx.runtime.session import InferenceSession
from tests.runtime.exact_nets import KAPPA, convnet, images


@pytest.fixture
def broken_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA is listed, as onnxruntime-gpu lists it everywhere, and a library is missing."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(providers, "why_unusable", lambda _: "libcudnn.so.9 is missing")


def test_a_session_says_so_and_runs_the_fast_way(broken_cuda: None, caplog: pytest.LogCaptureFixture) -> None:
    data = rewrite(convnet(), KAPPA)[0].SerializeToString()
    session = InferenceSession(data, providers=[(CUDA, {"device_id": 0}), CPU])
    assert session.get_providers() == [CPU]
    assert session.retrofit.mode == "optimised"
    (record,) = [item for item in caplog.records if item.levelno == logging.WARNING]
    assert "was asked for and is not usable here" in record.getMessage()
    assert "libcudnn.so.9 is missing" in record.getMessage()
    plain = InferenceSession(data, providers=[CPU], retrofit="plain")
    assert session.run(None, images())[0].tobytes() == plain.run(None, images())[0].tobytes()


def test_a_session_that_did_not_ask_for_cuda_does_not_warn(broken_cuda: None, caplog: pytest.LogCaptureFixture) -> None:
    session = InferenceSession(rewrite(convnet(), KAPPA)[0].SerializeToString())
    assert session.retrofit.mode == "optimised"
    assert not [item for item in caplog.records if item.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("asked", "options", "left", "left_options"),
    [
        ([CUDA, CPU], None, [CPU], None),
        ([CUDA], None, [CPU], None),
        ([(CUDA, {"device_id": "0"}), CPU], None, [CPU], None),
        ([CUDA, CPU], [{"device_id": "0"}, {}], [CPU], [{}]),
        ([CUDA], [{"device_id": "0"}], [CPU], None),
    ],
)
def test_what_is_left(broken_cuda: None, asked: Any, options: Any, left: Any, left_options: Any) -> None:
    assert without_unusable_cuda(asked, options) == (left, left_options, "libcudnn.so.9 is missing")


def test_what_works_or_is_not_asked_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert without_unusable_cuda([CPU], None) == ([CPU], None, "")
    monkeypatch.setattr(providers, "why_unusable", lambda _: "")
    assert without_unusable_cuda([CUDA, CPU], None) == ([CUDA, CPU], None, "")


def test_cuda_libraries_that_came_as_packages_are_loaded_before_a_session_opens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A session, and `require_providers`, which every command calls, look for CUDA first; that loads them."""
    import onnxruntime

    loaded: list[str] = []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: loaded.append("all"), raising=False)
    data = rewrite(convnet(), KAPPA)[0].SerializeToString()
    providers.why_unusable.cache_clear()
    InferenceSession(data, providers=[CUDA, CPU])
    assert loaded == ["all"]
    providers.why_unusable.cache_clear()
    with pytest.raises(InputError):
        require_providers([CUDA])
    assert loaded == ["all", "all"]
    providers.why_unusable.cache_clear()


def test_commands_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    require_providers([CPU])
    with pytest.raises(InputError, match=f"has no provider '{CUDA}' here"):
        require_providers([CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    with pytest.raises(InputError, match=f"the provider {CUDA} is not usable here: "):
        require_providers([CUDA, CPU])


def test_what_does_not_work_may_be_done_without(broken_cuda: None) -> None:
    said: list[str] = []
    assert usable_providers([CUDA, CPU], said.append) == (CPU,)
    assert usable_providers([CUDA], said.append) == (CPU,)
    assert len(said) == 2
    assert "libcudnn.so.9 is missing; --allow-fallback was given" in said[0]
    with pytest.raises(InputError, match="there is no provider 'gpu', expected one of cpu, cuda, tensorrt"):
        usable_providers(["gpu"], said.append)


def test_short_names() -> None:
    assert [full_name(name) for name in ("cpu", "CUDA", "tensorrt", "Other")] == [CPU, CUDA, TENSORRT, "Other"]


@pytest.mark.parametrize(
    ("asked", "options", "nhwc"),
    [
        (None, None, False),
        ([CUDA, CPU], None, False),
        ([(CUDA, {"prefer_nhwc": "1"}), CPU], None, True),
        ([(CUDA, {"prefer_nhwc": True})], None, True),
        ([(CUDA, {"prefer_nhwc": "0"}), CPU], None, False),
        ([CUDA, CPU], [{"prefer_nhwc": "1"}, {}], True),
        ([CPU, CUDA], [{"prefer_nhwc": "1"}, {}], False),
    ],
)
def test_which_options_ask_for_the_other_layout(asked: Any, options: Any, nhwc: bool) -> None:
    assert prefers_nhwc(cuda_options(asked, options)) == nhwc

"""The served file: every example is run again on the provider that will serve it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jr_onnx.attack.classifier import served
from jr_onnx.attack.suite import setup
from jr_onnx.attack.suite.setup import prepare
from jr_onnx.errors import InputError
from tests.attack.suite import small


@pytest.fixture(autouse=True)
def _handful() -> Iterator[None]:
    with small.patched(small.handful):
        yield


def test_images_are_run_again_on_the_provider_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    opened = served.open_session

    def spy(path: Path, content: str | bytes | None = None, provider: str = "cpu") -> Any:
        asked.append(provider)
        return opened(path, content)

    monkeypatch.setattr(served, "open_session", spy)
    monkeypatch.setattr(setup, "require_providers", lambda *_, **__: None)
    record = prepare(dataclasses.replace(small.request(tmp_path), replay_provider="cuda")).record
    assert set(asked) == {"cuda"}
    # Results of one provider are not mixed with those of another, nor old results of the CPU thrown away.
    assert json.loads(record.options)["replay_provider"] == "CUDAExecutionProvider"
    assert "replay_provider" not in json.loads(prepare(small.request(tmp_path)).record.options)
    assert set(asked) == {"cpu", "cuda"}


def test_a_provider_that_does_not_work_judges_nothing(tmp_path: Path) -> None:
    wanted = dataclasses.replace(small.request(tmp_path), replay_provider="Nonsense")
    with pytest.raises(InputError, match="has no provider 'Nonsense' here") as caught:
        prepare(wanted)
    assert "--allow-fallback" not in caught.value.hint

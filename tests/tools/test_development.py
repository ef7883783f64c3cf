"""Development data are looked for where JR_ONNX_DATA says, else beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.development import DataFolder
from tools.development import data_folder

CHECKOUT = Path(__file__).resolve().parents[2]


def test_the_variable_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JR_ONNX_DATA", str(tmp_path))
    assert data_folder() == tmp_path


@pytest.mark.parametrize("unset", [True, False])
def test_without_it_the_folder_lies_beside_the_checkout(monkeypatch: pytest.MonkeyPatch, unset: bool) -> None:
    if unset:
        monkeypatch.delenv("JR_ONNX_DATA", raising=False)
    else:
        monkeypatch.setenv("JR_ONNX_DATA", "")
    assert data_folder() == CHECKOUT.parent / "shared" / "data"


def test_what_is_absent_skips_and_what_is_there_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JR_ONNX_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    assert DataFolder() / "mnist" == tmp_path / "mnist"
    with pytest.raises(pytest.skip.Exception, match=r"no checkpoints/net.pkl in the development data \(JR_ONNX_DATA"):
        _ = DataFolder() / "checkpoints/net.pkl"

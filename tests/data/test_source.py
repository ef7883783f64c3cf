from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jr_onnx.data import load
from jr_onnx.errors import DataError
from tests.data.builders import random_bytes, write_mnist


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "found the data specification '', expected digits, mnist:DIR"),
        ("digit", "found the data specification 'digit'"),
        ("mnist", "found the data specification 'mnist'"),
        ("mnist:", "found the data specification 'mnist:'"),
        ("imagenet:/data", "found the data specification 'imagenet:/data'"),
        ("npz:a.npz?layout=CHW", "found the option layout=CHW, expected layout=NCHW or layout=NHWC"),
        ("npz:a.npz?range=1", "found the option range=1, expected range=LOW,HIGH"),
        ("npz:a.npz?range=1,0", "found the option range=1,0, expected range=LOW,HIGH"),
        ("npz:a.npz?range=0,inf", "expected range=LOW,HIGH"),
        ("npz:a.npz?range=0,1&range=0,2", "found the option 'range=0,2' of npz"),
        ("npz:a.npz?order=text", "found the option 'order=text' of npz, expected layout=NCHW or layout=NHWC or range="),
        ("mnist:a?order=text", "found the option 'order=text' of mnist, expected none"),
        ("npz:a?b.npz", "a.b.npz does not exist"),
    ],
)
def test_other_specifications_are_refused(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(spec)


def test_the_split_and_the_limit_are_checked_for_all_data() -> None:
    with pytest.raises(DataError, match="found the split 'dev'"):
        load("digits", split="dev")
    with pytest.raises(DataError, match="found the limit 0, expected 1 or more"):
        load("digits", limit=0)


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", images=random_bytes(1, 4, 4), labels=np.zeros(1, np.int64))
    spec = f"npz:{tmp_path / 'one.npz'}"
    # The fraction of index 0 is 0.88 (the first output of splitmix64), so that it is a test image.
    assert len(load(spec)) == 1
    with pytest.raises(DataError, match=r"npz:one.npz \(validation\) is empty: none of 1 images falls into it"):
        load(spec, split="validation")


def test_two_loads_are_equal_and_the_storage_does_not_matter(tmp_path: Path) -> None:
    write_mnist(tmp_path / "plain")
    write_mnist(tmp_path / "packed", compressed=True, joint=".")
    digests = {load(f"mnist:{tmp_path / name}", limit=7).digest for name in ("plain", "packed", "plain")}
    assert len(digests) == 1


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "sets")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load("mnist:~/sets")) == 20


def test_loading_needs_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys; from jr_onnx.data import load; load('digits').images; "
        "sys.exit(bool({'torch', 'sklearn', 'onnx', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

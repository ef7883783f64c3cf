from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from jr_onnx.errors import InputError
from models import build, load_weights
from models.checkpoints import read_state


def test_weights_come_back_and_the_prefix_goes(tmp_path: Path) -> None:
    source, target = build("digits_mlp"), build("digits_mlp").train()
    state = OrderedDict((f"module.{name}", value) for name, value in source.state_dict().items())
    torch.save(state, tmp_path / "weights.pkl")
    load_weights(target, tmp_path / "weights.pkl")
    assert not target.training
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)


class _Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"weight": _Attack(tmp_path / "made")}, tmp_path / "weights.pkl")
    with pytest.raises(InputError, match="cannot read weights"):
        read_state(tmp_path / "weights.pkl")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps([1]), b"\x80\x02}q\x00."])
def test_files_that_hold_no_weights(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pkl").write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.pkl"):
        read_state(tmp_path / "weights.pkl")


def test_other_contents(tmp_path: Path) -> None:
    path = tmp_path / "weights.pkl"
    with pytest.raises(InputError, match=r"cannot read weights from .*weights.pkl"):
        read_state(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(InputError, match="holds list, expected a mapping"):
        read_state(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(InputError, match="the entry 'epoch' is int, expected a tensor"):
        read_state(path)
    torch.save(build("digits_mlp").state_dict(), path)
    with pytest.raises(InputError, match=r"does not fit DigitsCNN: .*Missing key"):
        load_weights(build("digits_cnn"), path)

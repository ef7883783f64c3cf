"""Read weights: this checkout's own files, and the state dicts that the authors of JumpReLU published."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from jr_onnx.errors import InputError

_PARALLEL_PREFIX = "module."


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict into `model`, which is then in evaluation mode.

    The prefix that `nn.DataParallel` gives every key is taken off. Only tensors are unpickled
    (`weights_only=True`), so that a file cannot run code.

    Raises:
        InputError: The file cannot be read, holds something else, or does not fit the model.
    """
    state = read_state(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{path} does not fit {type(model).__name__}: {problem}") from None
    model.eval()


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, on the CPU, keys without the prefix of `nn.DataParallel`.

    Raises:
        InputError: The file cannot be read or holds something else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on the pickle protocol before it refuses the file
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises a dozen kinds on a file that holds no weights
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"cannot read weights from {path}: {reason}") from None
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path} holds {type(content).__name__}, expected a mapping of names to tensors")
    state: dict[str, Tensor] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{path}: the entry {name!r} is {type(value).__name__}, expected a tensor")
        state[name.removeprefix(_PARALLEL_PREFIX)] = value
    return state

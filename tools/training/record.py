"""What a training run leaves beside the weights: recipe, data, curve, accuracies, versions."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from jr_onnx.records import Record
from tools.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class EpochRow(Record):
    """One epoch: rate of its first step, mean training loss, validation accuracy as a fraction, wall time, steps.

    `steps` is 0 in records of before it was counted.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.training_epoch/1"
    epoch: int
    rate: float
    loss: float
    validation_accuracy: float
    seconds: float
    steps: int = 0


@dataclass(frozen=True, slots=True)
class TrainingRecord(Record):
    """The whole run.

    Attributes:
        recipe: Recipe.
        data: Specification of the data without its folder.
        train_digest: `ImageData.digest` of the images trained on.
        test_digest: The same of the test images.
        train_count: Images trained on.
        validation_count: Images of the validation split, 0 where they were trained on.
        test_count: Images of the test split.
        validation_accuracy: Fraction; NaN where the validation images were trained on.
        test_accuracy: Fraction, of the final weights; NaN where the test images could not be evaluated.
        weights_digest: See the function of that name.
        threads: CPU threads of torch, which the last bits of the weights depend on.
        device: cpu, or the name of the GPU.
        versions: Of Python, torch and NumPy.
        seconds: Sum of the epochs' wall times.
        epochs: The curve.
        shortened: Whether the time limit of the recipe ended the training before all epochs were over.
        deterministic: Whether only operators were used whose result is the same in every run.
        compiled: Whether the network was compiled.
        stored: Type of the weights in the file. The accuracy on the test images is that of the weights in the file.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.training/1"
    recipe: Recipe
    data: str
    train_digest: str
    test_digest: str
    train_count: int
    validation_count: int
    test_count: int
    validation_accuracy: float
    test_accuracy: float
    weights_digest: str
    threads: int
    device: str
    versions: dict[str, str]
    seconds: float
    epochs: tuple[EpochRow, ...]
    shortened: bool = False
    deterministic: bool = True
    compiled: bool = False
    stored: Literal["float32", "float16"] = "float32"


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return SHA-256 over names, shapes and values, which does not depend on the file format."""
    digest = hashlib.sha256()
    for name in sorted(state):
        values = np.ascontiguousarray(state[name].detach().cpu().numpy())
        digest.update(f"{name} {values.shape} {values.dtype.str}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def state_dict(model: nn.Module, *, half: bool) -> dict[str, Tensor]:
    """Return the weights as they are to be stored, on the CPU.

    Args:
        model: With `half`, its weights are rounded too, so that it is tested as it is stored.
        half: Store in float16 what has more than one axis, which is nearly all; normalisation and biases stay float32.
    """
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        stored = value
        if half and value.ndim > 1:
            stored = value.to(torch.float16)
            value.copy_(stored)
        state[name] = stored.cpu().contiguous()
    return state


def versions() -> dict[str, str]:
    """Return the versions that matter for reproducing a run."""
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}

"""Where development data lies: MNIST, CIFAR-10, published checkpoints, third-party models (see CONTRIBUTING.md)."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "JR_ONNX_DATA"
DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"


def data_folder() -> Path:
    """Return the folder that JR_ONNX_DATA names, or `../shared/data` beside the checkout; it need not exist."""
    return Path(os.environ.get(VARIABLE) or DEFAULT)

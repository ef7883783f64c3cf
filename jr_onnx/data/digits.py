"""The embedded default: 1,797 handwritten digits of 8 by 8 pixels, so that everything runs without a download.

Source: the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository, CC BY 4.0), as scikit-learn distributes it in `load_digits` (BSD 3-Clause licence). Pixels are
integers 0 to 16. `digits.npz` is written by `tools/training/embed_digits.py`; see `digits.LICENSE.txt` beside it.

The order of the file goes by writer, and the split is by hash of the index (see `splits`): a writer may appear on
both sides, so an accuracy here says how a model does on known hands.
"""

from __future__ import annotations

import io
from functools import lru_cache
from importlib import resources
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jr_onnx.data.images import ImageData
from jr_onnx.data.splits import Split, index_fractions

COUNT: Final = 1797
BRIGHTEST: Final = 16.0
TEST_BELOW: Final = 0.2
VALIDATION_BELOW: Final = 0.4
CLASS_NAMES: Final = tuple("0123456789")


def load_digits(split: Split, limit: int | None = None) -> ImageData:
    """Return a split of the digits: pixels (N, 1, 8, 8), ten classes; see the module's docstring."""
    pixels, labels = _arrays()
    values = index_fractions(len(pixels))
    chosen = {
        "test": values < TEST_BELOW,
        "validation": (values >= TEST_BELOW) & (values < VALIDATION_BELOW),
        "train": values >= VALIDATION_BELOW,
    }[split]
    indices = np.flatnonzero(chosen).astype(np.int64)[:limit]
    name = f"digits ({split})"
    return ImageData(pixels[indices], BRIGHTEST, labels[indices], name, CLASS_NAMES, indices)


@lru_cache(maxsize=1)
def _arrays() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    content = resources.files("jr_onnx.data").joinpath("digits.npz").read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays["images"][:, None], arrays["labels"].astype(np.int64)

"""CIFAR-10 in the publisher's binary version (`*.bin`) and in its Python version (pickled batches).

Binary: 10,000 records of one label byte and 3,072 pixel bytes (red, green and blue planes of 32 x 32) a file; the
files are mapped, and only the chosen records are copied. Python: see `cifar_pickle`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jr_onnx.data.block import Block
from jr_onnx.data.cifar_pickle import read_python_batch
from jr_onnx.data.reading import check_labels, find_folder, map_bytes, reading
from jr_onnx.data.splits import Part, index_fractions
from jr_onnx.errors import DataError

RECORDS: Final = 10_000
PIXELS: Final = 3 * 32 * 32
CLASS_NAMES: Final = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_FILES: Final[dict[str, tuple[str, ...]]] = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}
_FOLDERS: Final = ("cifar-10-batches-bin", "cifar-10-batches-py")


class Cifar10:
    """A folder with either version, or with the publisher's sub-folder in it.

    Args:
        folder: The folder.
        records: Images a file, 10,000 in the publisher's files.

    Raises:
        DataError: Not a folder, or without the files of either part.
    """

    def __init__(self, folder: Path, *, records: int = RECORDS) -> None:
        self._folder = find_folder(folder, _FOLDERS, "CIFAR-10")
        self._records = records
        self.name = "cifar10"
        parts: tuple[Part, ...] = ("train", "test")
        self.parts = frozenset(part for part in parts if self._paths(part))
        if not self.parts:
            raise DataError(
                f"{self._folder} holds no CIFAR-10 file, expected test_batch.bin (binary version) or test_batch "
                "(Python version), and data_batch_1 to 5 likewise"
            )

    def block(self, part: Part) -> Block:
        """Open the train or the test part.

        Raises:
            DataError: A file is missing or malformed.
        """
        paths = self._paths(part)
        if len(paths) != len(_FILES[part]):
            raise DataError(f"{self._folder} holds {len(paths)} {part} files, expected {len(_FILES[part])}")
        pairs = [self._read_file(path) for path in paths]
        labels = np.concatenate([labels for labels, _ in pairs])
        files = [pixels for _, pixels in pairs]

        def read(chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
            return _gather(files, chosen, self._records)

        return Block(labels, read, 255.0, CLASS_NAMES, index_fractions(len(labels)))

    def _paths(self, part: Part) -> list[Path]:
        for suffix in (".bin", ""):
            paths = [self._folder / f"{stem}{suffix}" for stem in _FILES[part]]
            found = [path for path in paths if path.is_file()]
            if found:
                return found
        return []

    def _read_file(self, path: Path) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        if path.suffix == ".bin":
            with reading(path, "a CIFAR-10 binary file"):
                records = map_bytes(path, 0, (self._records, 1 + PIXELS))
            labels, pixels = records[:, 0].astype(np.int64), records[:, 1:]
        else:
            labels, pixels = read_python_batch(path, self._records)
        check_labels(path, labels, len(CLASS_NAMES))
        return labels, pixels


def _gather(files: Sequence[NDArray[np.uint8]], chosen: NDArray[np.int64], records: int) -> NDArray[np.uint8]:
    """Copy the chosen images (M, 3, 32, 32) out of several files of `records` images each."""
    result = np.empty((len(chosen), PIXELS), dtype=np.uint8)
    for number, pixels in enumerate(files):
        here = np.flatnonzero(chosen // records == number)
        result[here] = pixels[chosen[here] - number * records]
    return result.reshape(-1, 3, 32, 32)

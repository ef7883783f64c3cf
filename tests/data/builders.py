"""Small files of every kind that the data readers take, and the real CIFAR-10 in its publisher's format."""

from __future__ import annotations

import gzip
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.development import DataFolder


def random_bytes(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(
    folder: Path, *, train: int = 60, test: int = 20, joint: str = "-", compressed: bool = False
) -> dict[str, NDArray[np.uint8]]:
    """Write the four files and return their arrays by file stem."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for stem, count in (("train", train), ("t10k", test)):
        images, labels = random_bytes(count, 28, 28), (np.arange(count) % 10).astype(np.uint8)
        for what, array in (("images", images), ("labels", labels)):
            content = idx_bytes(array)
            name = f"{stem}-{what}{joint}idx{array.ndim}-ubyte"
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                (folder / name).write_bytes(content)
            arrays[f"{stem}-{what}"] = array
    return arrays


def cifar_arrays(records: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return random_bytes(records, 3072, seed=seed), ((np.arange(records) + seed) % 10).astype(np.uint8)


def write_cifar_binary(folder: Path, records: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, stem in enumerate(("test_batch", *(f"data_batch_{index}" for index in range(1, 6)))):
        pixels, labels = cifar_arrays(records, number)
        (folder / f"{stem}.bin").write_bytes(np.concatenate([labels[:, None], pixels], axis=1).tobytes())


def write_cifar_python(folder: Path, records: int) -> None:
    """Write the batches as Python 2 did, which the published files are, but for one in the style of Python 3."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, stem in enumerate(("test_batch", *(f"data_batch_{index}" for index in range(1, 6)))):
        pixels, labels = cifar_arrays(records, number)
        path = folder / stem
        if number == 1:
            batch = {b"data": pixels, b"labels": labels.tolist(), b"batch_label": b"training batch 1 of 5"}
            path.write_bytes(pickle.dumps(batch, protocol=2))
        else:
            path.write_bytes(python2_batch(pixels, labels))


def python2_batch(pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> bytes:
    """Return the pickle that cPickle of Python 2 writes with protocol 2: byte strings, old NumPy module names."""

    def text(value: bytes) -> bytes:
        return pickle.SHORT_BINSTRING + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return pickle.BININT + struct.pack("<i", value)

    kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + pickle.TUPLE3 + pickle.REDUCE
    kind_state = (
        pickle.MARK + number(3) + text(b"|") + pickle.NONE * 3 + number(-1) * 2 + number(0) + pickle.TUPLE
    ) + pickle.BUILD
    empty = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n"
    empty += number(0) + pickle.TUPLE1 + text(b"b") + pickle.TUPLE3 + pickle.REDUCE
    shape = number(pixels.shape[0]) + number(pixels.shape[1]) + pickle.TUPLE2
    content = pickle.BINSTRING + struct.pack("<i", pixels.size) + pixels.tobytes()
    state = pickle.MARK + number(1) + shape + kind + kind_state + pickle.NEWFALSE + content + pickle.TUPLE
    labels_list = pickle.EMPTY_LIST + pickle.MARK + b"".join(number(int(one)) for one in labels) + pickle.APPENDS
    return (
        (pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK)
        + (text(b"data") + empty + state + pickle.BUILD)
        + (text(b"labels") + labels_list)
        + (text(b"batch_label") + text(b"testing batch 1 of 1"))
        + (pickle.SETITEMS + pickle.STOP)
    )


def unpack_cifar10(data_dir: DataFolder, folder: Path) -> str:
    """Return the specification of CIFAR-10: the publisher's files, or sheets of pictures unpacked below `folder`."""
    source = data_dir / "cifar10"
    if not (sheets := sorted(source.glob("*.webp"))):
        return f"cifar10:{source}"
    pytest.importorskip("PIL", reason=f"unpacking {sheets[0].name} needs Pillow")
    unpack = [sys.executable, str(data_dir / "unpack.py"), str(folder), "cifar10"]
    subprocess.run(unpack, check=True, capture_output=True)
    return f"cifar10:{folder}"

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from jr_onnx.data import ImageData, load
from jr_onnx.data.cifar10 import Cifar10
from jr_onnx.data.cifar_pickle import read_python_batch
from jr_onnx.errors import DataError
from tests.data.builders import cifar_arrays, python2_batch, write_cifar_binary, write_cifar_python

RECORDS = 12


def _all(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    block = Cifar10(folder, records=RECORDS).block(part)  # type: ignore[arg-type]
    return block.read(np.arange(len(block.labels))), block.labels


@pytest.mark.parametrize("write", [write_cifar_binary, write_cifar_python])
def test_both_versions_give_the_arrays_that_were_written(tmp_path: Path, write: object) -> None:
    write(tmp_path, RECORDS)  # type: ignore[operator]
    pixels, labels = _all(tmp_path, "train")
    expected = [cifar_arrays(RECORDS, number) for number in range(1, 6)]
    assert np.array_equal(pixels, np.concatenate([one for one, _ in expected]).reshape(-1, 3, 32, 32))
    assert np.array_equal(labels, np.concatenate([one for _, one in expected]))
    pixels, labels = _all(tmp_path, "test")
    assert np.array_equal(pixels.reshape(RECORDS, -1), cifar_arrays(RECORDS, 0)[0])


def test_images_are_gathered_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    write_cifar_binary(tmp_path, RECORDS)
    block = Cifar10(tmp_path, records=RECORDS).block("train")
    whole = block.read(np.arange(5 * RECORDS))
    chosen = np.array([59, 0, 13, 12, 11, 40])
    assert np.array_equal(block.read(chosen), whole[chosen])


def test_the_publishers_sub_folder_is_found(tmp_path: Path) -> None:
    write_cifar_binary(tmp_path / "cifar-10-batches-bin", RECORDS)
    assert Cifar10(tmp_path, records=RECORDS).parts == {"train", "test"}


@pytest.mark.parametrize(("size", "word"), [(30_729_999, "truncated"), (30_730_001, "too long"), (0, "truncated")])
def test_a_file_of_another_size_is_refused(tmp_path: Path, size: int, word: str) -> None:
    path = tmp_path / "test_batch.bin"
    path.touch()
    os.truncate(path, size)  # sparse: costs no space
    with pytest.raises(DataError, match=f"is {word}: found {size} bytes, expected 30730000"):
        load(f"cifar10:{tmp_path}")


def test_labels_above_nine_and_missing_files_are_refused(tmp_path: Path) -> None:
    write_cifar_binary(tmp_path, RECORDS)
    content = bytearray((tmp_path / "test_batch.bin").read_bytes())
    content[3073] = 10
    (tmp_path / "test_batch.bin").write_bytes(content)
    source = Cifar10(tmp_path, records=RECORDS)
    with pytest.raises(DataError, match="item 1 has the label 10"):
        source.block("test")
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match="holds 4 train files, expected 5"):
        source.block("train")
    with pytest.raises(DataError, match="holds no CIFAR-10 file"):
        Cifar10(_empty(tmp_path))


def _empty(folder: Path) -> Path:
    path = folder / "empty"
    path.mkdir()
    return path


class _Attack:
    """Unpickles into a call of `os.mkdir`."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


def _read(tmp_path: Path, content: bytes, records: int = RECORDS) -> tuple[np.ndarray, np.ndarray]:
    path = tmp_path / "test_batch"
    path.write_bytes(content)
    return read_python_batch(path, records)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_something_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "made"
    with pytest.raises(DataError, match=r"asks for posix.mkdir|damaged"):
        _read(tmp_path, pickle.dumps({b"data": _Attack(target), b"labels": []}, protocol=protocol))
    assert not target.exists()


def test_names_hidden_behind_an_allowed_one_are_refused(tmp_path: Path) -> None:
    # With a real numpy.ndarray, or with dotted names, these would reach further.
    for module, name in (("numpy", "ndarray.tofile"), ("numpy", "load"), ("builtins", "eval"), ("_codecs", "lookup")):
        content = b"\x80\x04" + b"".join(
            pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode() for text in (module, name)
        )
        with pytest.raises(DataError, match="which no CIFAR-10 file needs"):
            _read(tmp_path, content + pickle.STACK_GLOBAL + pickle.STOP)


def test_a_stand_in_cannot_be_changed_by_one_file_for_the_next(tmp_path: Path) -> None:
    pixels, labels = cifar_arrays(RECORDS, 0)
    state = pickle.EMPTY_DICT + b"U\x05_make" + pickle.NONE + pickle.SETITEM
    for body in (state, pickle.NONE + state + pickle.TUPLE2):
        with pytest.raises(DataError):
            _read(tmp_path, b"\x80\x02cnumpy\nndarray\n" + body + pickle.BUILD + pickle.STOP)
    assert np.array_equal(_read(tmp_path, python2_batch(pixels, labels))[0], labels)


def test_a_small_pickle_that_would_allocate_gigabytes_costs_nothing(tmp_path: Path) -> None:
    for bomb in (
        b"\x80\x02N" + pickle.LONG_BINPUT + b"\xff\xff\xff\x7f.",  # a memo of two billion entries
        b"\x80\x04" + pickle.BINBYTES8 + b"\xff" * 7 + b"\x0f.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        + (pickle.LONG1 + b"\x08" + b"\xff" * 7 + b"\x0f" + pickle.TUPLE1 + b"U\x01b" + pickle.TUPLE3)
        + (pickle.REDUCE + pickle.STOP),
    ):
        with pytest.raises(DataError):
            _read(tmp_path, bomb)


def test_nested_tuples_as_a_key_do_not_take_forever(tmp_path: Path) -> None:
    nested = pickle.EMPTY_TUPLE + b"".join((pickle.DUP + pickle.TUPLE2) for _ in range(80))
    with pytest.raises(DataError, match="something else than a name"):
        _read(tmp_path, b"\x80\x02" + pickle.EMPTY_DICT + nested + pickle.NONE + pickle.SETITEM + pickle.STOP)
    labels = b"\x80\x02" + pickle.EMPTY_DICT + pickle.MARK + b"U\x04data" + pickle.NONE + b"U\x06labels"
    labels += pickle.EMPTY_LIST + nested + pickle.APPEND + pickle.SETITEMS + pickle.STOP
    with pytest.raises(DataError, match="item 0 has the label tuple"):
        _read(tmp_path, labels, records=1)


def _edited(**changes: object) -> bytes:
    pixels, labels = cifar_arrays(RECORDS, 0)
    batch: dict[bytes, object] = {b"data": pixels, b"labels": labels.tolist()}
    batch |= {name.encode(): value for name, value in changes.items()}
    return pickle.dumps({key: value for key, value in batch.items() if value is not None}, protocol=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"not a pickle", "damaged"),
        (_edited()[:2000], "damaged"),
        (pickle.dumps([1, 2], protocol=2), "holds list, expected a dictionary"),
        (_edited(labels=None), "lacks the entry 'labels'"),
        (_edited(labels=[0] * (RECORDS - 1)), f"found labels 11, expected a list of {RECORDS}"),
        (_edited(labels=["cat"] * RECORDS), "item 0 has the label str"),
        (_edited(labels=[10**40] * RECORDS), "item 0 has the label 1000"),
        (_edited(data=np.zeros((RECORDS, 3072), np.float32)), "elements of another type"),
        (_edited(data=np.zeros((RECORDS, 3071), np.uint8)), "another shape or size"),
        (_edited(data=np.array([None] * RECORDS)), "elements of another type"),
        (_edited(data=b"text"), "the entry data is bytes, expected a NumPy array"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_other_contents_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(tmp_path, content)


def test_an_array_in_fortran_order_is_read(tmp_path: Path) -> None:
    pixels, labels = cifar_arrays(RECORDS, 3)
    content = _edited(data=np.asfortranarray(pixels), labels=labels.tolist())
    assert np.array_equal(_read(tmp_path, content)[1], pixels)


def test_the_real_files_are_read(real_cifar10: ImageData) -> None:
    assert len(real_cifar10) == 10_000
    assert np.bincount(real_cifar10.labels).tolist() == [1000] * 10
    assert real_cifar10.labels[:8].tolist() == [3, 8, 8, 0, 6, 6, 1, 6]

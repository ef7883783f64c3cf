"""The files that most often stand where a model or data should be are called by their name, with the way out."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from jr_onnx.data import load as load_data
from jr_onnx.errors import DataError, ModelError
from jr_onnx.modelfile import external
from jr_onnx.modelfile import load as load_model

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4f" * 32 + b"\nsize 4711\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model.onnx", b"inside")
    return stream.getvalue()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.onnx"))
    return stream.getvalue()


FOREIGN = [
    (POINTER, "is a Git LFS pointer, not the file itself", "git lfs pull"),
    (b"../.git/annex/objects/Kz/1f/SHA256E-s1--ab/SHA256E-s1--ab", "is a git-annex pointer", "git annex get"),
    (PAGE, "is an HTML page", "the link to the raw file"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML document", "raw file"),
    (_zip(), "is a zip archive", "Unpack it"),
    (_tar(), "is a tar archive", "Unpack it"),
    (gzip.compress(b"model"), "is a gzip file", "Unpack it"),
    (pickle.dumps({"a": 1}, protocol=4), "is a Python pickle", "Export it to ONNX first"),
    (b"\x1c\x00\x00\x00TFL3" + bytes(40), "is a TensorFlow Lite model", "Export it"),
    (b"\x89HDF\r\n\x1a\n" + bytes(40), "is an HDF5 file", "Export it"),
]


@pytest.mark.parametrize(("content", "what", "remedy"), FOREIGN, ids=[what for _, what, _ in FOREIGN])
def test_in_the_place_of_a_model(tmp_path: Path, content: bytes, what: str, remedy: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"model\.onnx {what}.*, expected an ONNX model\. .*{remedy}"):
        load_model(path)


@pytest.mark.parametrize("content", [POINTER, PAGE])
def test_in_the_place_of_external_data(tmp_path: Path, content: bytes) -> None:
    tensor = TensorProto(name="w", dims=[9], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", "36")):
        tensor.external_data.add(key=key, value=value)
    graph = helper.make_graph([], "g", [], [], [tensor])
    (tmp_path / "weights.bin").write_bytes(content)
    with pytest.raises(
        ModelError, match=r"'weights\.bin' of tensor 'w' is (a Git LFS pointer|an HTML page).*(git lfs|raw)"
    ):
        external.check(onnx.ModelProto(graph=graph), tmp_path)


@pytest.mark.parametrize("content", [POINTER, PAGE])
def test_in_the_place_of_data(tmp_path: Path, content: bytes) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("set.npz", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "test_batch"):
        (tmp_path / name).write_bytes(content)
    for spec in (f"npz:{tmp_path / 'set.npz'}", f"mnist:{tmp_path}", f"cifar10:{tmp_path}"):
        with pytest.raises(
            DataError, match=r"is (a Git LFS pointer|an HTML page).*, expected an? .*(git lfs pull|raw file)"
        ):
            load_data(spec)
    with pytest.raises(DataError, match=r"array\.npy is a \.npy file of one array, .* np\.savez"):
        load_data(f"npz:{tmp_path / 'array.npy'}")


def test_a_pointer_in_the_place_of_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image", reason="picture folders need Pillow")
    for number in range(5):
        (tmp_path / "cat").mkdir(exist_ok=True)
        (tmp_path / "cat" / f"{number}.png").write_bytes(POINTER)
    with pytest.raises(DataError, match=r"\.png is a Git LFS pointer, .* expected a PNG or JPEG picture"):
        load_data(f"folder:{tmp_path}")


def test_a_damaged_file_of_the_right_kind_is_not_called_foreign(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=np.zeros((4, 2, 2), np.uint8), labels=np.zeros(4, int))
    content = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "set.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cannot read .* as an \.npz file"):
        load_data(f"npz:{tmp_path / 'set.npz'}")

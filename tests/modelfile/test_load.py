"""Reading model files: what a good one gives, and one clear line for every kind of bad one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from jr_onnx.errors import ModelError
from jr_onnx.modelfile import from_proto, load
from jr_onnx.modelfile.wire import THRESHOLD


def model() -> onnx.ModelProto:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\ng (float[N] x) => (float[N] y) { h = Mul(x, w) y = Relu(h) }'
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(THRESHOLD, np.float32), "w"))
    return proto


def test_a_file_comes_as_a_small_proto_with_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    data = model().SerializeToString()
    path.write_bytes(data)
    file = load(path)
    assert (file.path, file.name, file.folder) == (path, "model.onnx", tmp_path)
    assert (file.sha256, file.length_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert len(file.payloads) == 1
    assert len(file.proto.SerializeToString()) < 1000


def test_a_string_is_a_path_too(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model().SerializeToString())
    assert load(str(tmp_path / "model.onnx")).name == "model.onnx"


def test_a_proto_is_copied_whole() -> None:
    source = model()
    file = from_proto(source)
    file.proto.graph.name = "changed"
    assert source.graph.name == "g"
    assert (file.path, file.folder, file.name, len(file.payloads)) == (None, None, "", 0)
    assert file.sha256 == hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\), expected an ONNX model"),
        (b"<html><body>404</body></html>", "is an HTML page, expected an ONNX model"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a PNG picture, expected an ONNX model"),
        (b"PK\x03\x04" + bytes(30), "is a zip archive .*, expected an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer, .*Run `git lfs pull`"),
        (bytes(1000), "field number 0 at byte 0"),
        (b"\x08\x08", "holds no graph, so it is not an ONNX model"),
        (b"\x08\x08\x3a\x00", "a graph without nodes and outputs"),
        (model().SerializeToString()[:-20], "is not an ONNX model, or is cut off"),
        (model().SerializeToString()[:THRESHOLD], "is not an ONNX model, or is cut off"),
    ],
)
def test_what_is_no_model_is_refused_with_its_path(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "thing.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load(path)
    assert "thing.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="is a directory, expected an ONNX model file"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="is not a regular file"):
        load(tmp_path / "pipe")
    with pytest.raises(ModelError, match="cannot read"):
        load("a\0b")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"cannot read .*Not a directory"):
        load(tmp_path / "file" / "model.onnx")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ModelError, match="cannot read"):
        load(tmp_path / "loop")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.onnx"
    path.write_bytes(model().SerializeToString())
    path.chmod(0)
    with pytest.raises(ModelError, match=r"cannot read .*Permission denied"):
        load(path)

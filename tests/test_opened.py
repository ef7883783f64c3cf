"""Files that others change while they are read: named, never a signal, never waited for."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from jr_onnx import opened as opened_module
from jr_onnx.errors import ModelError
from jr_onnx.modelfile import load
from jr_onnx.modelfile.save import assemble, save
from jr_onnx.opened import OpenedFile
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime.session import InferenceSession


@pytest.fixture
def model(tmp_path: Path) -> Path:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 300] x) => (float[N, 300] y) '
        "{ h = MatMul (x, w) y = Relu (h) }"
    )
    weights = np.random.default_rng(0).random((300, 300), dtype=np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("window", [1, 7, 64 << 10])
def test_a_view_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(opened_module, "_WINDOW_BYTES", window)
    monkeypatch.setattr(opened_module, "_PIECE_BYTES", 100)
    data = np.random.default_rng(1).bytes(1234)
    path = tmp_path / "file"
    path.write_bytes(data)
    view = OpenedFile(path).view()
    assert len(view) == 1234
    assert bytes(view[position] for position in range(1234)) == data
    assert view[10:20][3:].tobytes() == data[13:20]
    assert len(view[20:10]) == 0
    assert b"".join(view.pieces()) == data
    assert OpenedFile(path).read_private().tobytes() == data
    with pytest.raises(IndexError):
        view[1234]


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "nothing", "loop"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.onnx"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    for read in (load, OpenedFile):
        with pytest.raises(ModelError, match=r"not a regular file|is a directory|does not exist|cannot read"):
            read(path)


def test_a_link_is_followed_only_where_it_may_be(model: Path) -> None:
    link = model.with_name("link.onnx")
    link.symlink_to(model)
    assert OpenedFile(link).size == model.stat().st_size
    with pytest.raises(ModelError, match="is a symbolic link"):
        OpenedFile(link, follow=False)


def test_a_file_that_becomes_shorter_is_named(model: Path) -> None:
    source = load(model)
    assert len(source.payloads) == 1
    os.truncate(model, 1000)
    for use in (lambda: assemble(source.proto, source.payloads), lambda: save(source.proto, source.payloads, model)):
        with pytest.raises(ModelError, match="became shorter while it was read"):
            use()
    with pytest.raises(ModelError, match="cut off"):
        load(model)


def test_a_file_that_is_written_to_meanwhile_is_not_mixed(model: Path, tmp_path: Path) -> None:
    """Half of the old weights and half of the new would be a model that nobody made."""
    source = load(model)
    with model.open("r+b") as stream:
        stream.seek(500)
        stream.write(b"other bytes")
    os.utime(model, ns=(1, 1))
    with pytest.raises(ModelError, match="was changed while it was read"):
        save(source.proto, source.payloads, tmp_path / "copy.onnx")
    assert not list(tmp_path.glob("*copy*"))


def test_a_file_that_is_replaced_meanwhile_is_the_old_one(model: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    source = load(model)
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    other.replace(model)
    save(source.proto, source.payloads, tmp_path / "copy.onnx")
    assert source.sha256 == digest
    assert hashlib.sha256((tmp_path / "copy.onnx").read_bytes()).hexdigest() == digest


# A process of its own, for what it guards against would end this one.
TRUNCATED = """
import os, sys, onnxruntime
from jr_onnx.errors import ModelError
from jr_onnx.runtime import skeleton
from jr_onnx.runtime.session import InferenceSession
real = skeleton.join
def join(*words):  # the weights are about to be read
    os.truncate(sys.argv[1], 1000)
    return real(*words)
skeleton.join = join
try:
    InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
except ModelError as error:
    sys.exit(str(error))
"""


def test_a_session_survives_a_file_that_is_truncated_meanwhile(model: Path) -> None:
    retrofit, _ = rewrite(model, 0.5)
    done = subprocess.run(
        [sys.executable, "-c", TRUNCATED, str(retrofit)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1, done.stderr
    assert "while it was read" in done.stderr


def test_external_data_is_taken_from_memory(model: Path, tmp_path: Path) -> None:
    """The file may go, and what stands in it may change: the session has what it was given."""
    folder = tmp_path / "external"
    folder.mkdir()
    onnx.save(onnx.load(model), folder / "e.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    retrofit, _ = rewrite(folder / "e.onnx", 0.5)
    x = np.random.default_rng(2).random((2, 300), dtype=np.float32) - 0.5
    for path, way in ((folder / "e.onnx", "auto"), (retrofit, "auto"), (retrofit, "plain"), (retrofit, "optimised")):
        expected = InferenceSession(path, providers=["CPUExecutionProvider"], retrofit=way).run(None, {"x": x})[0]
        contents = {"w.bin": memoryview((folder / "w.bin").read_bytes())}
        data = Path(path).read_bytes()
        session = InferenceSession(data, providers=["CPUExecutionProvider"], retrofit=way, external_data=contents)
        assert session.retrofit.mode == {"optimised": "optimised", "plain": "plain"}.get(way, session.retrofit.mode)
        del contents
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)
        session.set_providers(["CPUExecutionProvider"])
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)


def test_many_readers_of_one_file_do_not_disturb_each_other(model: Path) -> None:
    source = load(model)
    wanted = assemble(source.proto, source.payloads).SerializeToString(deterministic=True)
    found: list[bytes] = []

    def read() -> None:
        found.append(assemble(source.proto, source.payloads).SerializeToString(deterministic=True))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 4

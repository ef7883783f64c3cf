"""Writing: a file appears whole or not at all, and nothing is left behind."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from jr_onnx.errors import OutputError
from jr_onnx.modelfile import assemble, atomic_path, atomic_write, save
from jr_onnx.modelfile.wire import THRESHOLD, split

OLD = b"the old file"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "out.onnx"
    path.write_bytes(OLD)
    return path


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def untouched(target: Path) -> bool:
    return target.read_bytes() == OLD and names(target.parent) == [target.name]


def test_chunks_become_one_file(target: Path) -> None:
    atomic_write(target, [b"a", memoryview(b"bc"), b""])
    assert target.read_bytes() == b"abc"
    assert names(target.parent) == [target.name]


def test_the_file_has_the_mode_of_any_other_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", [b"x"])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_an_error_while_writing_leaves_the_old_file_and_no_litter(target: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half of the new"
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        atomic_write(target, chunks())
    assert untouched(target)


def test_an_interrupt_leaves_the_old_file_and_no_litter(target: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half of the new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(target, chunks())
    assert untouched(target)


def test_a_full_disk_is_said_and_leaves_the_old_file(target: Path) -> None:
    """A limit on the file size stands for the full disk: the write fails in the same place."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*out\.onnx: File too large. Nothing was changed"):
            atomic_write(target, [bytes(1 << 15)] * 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert untouched(target)


def test_no_space_has_its_own_hint(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"the disk is full. Nothing was changed; free some space"):
        atomic_write(target, [b"new"])
    assert untouched(target)


KILLED = """
import os, signal, sys
from pathlib import Path
from jr_onnx.modelfile import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"new, but never renamed")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_between_write_and_rename_leaves_the_old_file(target: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == OLD


def test_a_missing_folder_and_a_folder_in_the_way_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the folder .*nowhere does not exist. Create it"):
        atomic_write(tmp_path / "nowhere" / "out", [b"x"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder is a directory, expected a file name"):
        atomic_write(tmp_path / "folder", [b"x"])
    assert names(tmp_path) == ["folder"]
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(OutputError, match=r"the folder .*file is not a folder"):
        atomic_write(tmp_path / "file" / "out", [b"x"])


def test_a_device_or_a_pipe_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("pipe", "null"):
        with pytest.raises(OutputError, match=f"{name} is a device or a pipe, expected a file name"):
            atomic_write(tmp_path / name, [b"x"])
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "null").is_symlink()
    assert names(tmp_path) == ["null", "pipe"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            atomic_write(tmp_path / "out", [b"x"])
    finally:
        tmp_path.chmod(0o700)


def test_long_names_work(tmp_path: Path) -> None:
    for name in ("x" * 200, "ü" * 100, "模" * 80):
        atomic_write(tmp_path / name, [b"x"])
    assert len(names(tmp_path)) == 3


def test_a_name_beyond_the_file_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        atomic_write(tmp_path / ("x" * 300), [b"x"])
    assert names(tmp_path) == []


def tokenised() -> tuple[onnx.ModelProto, object]:
    model = onnx.ModelProto()
    model.graph.initializer.append(onnx.TensorProto(raw_data=b"w" * THRESHOLD))
    skeleton, payloads = split(model.SerializeToString())
    return onnx.ModelProto.FromString(skeleton), payloads


def test_save_and_assemble_put_the_payloads_back(tmp_path: Path) -> None:
    proto, payloads = tokenised()
    save(proto, payloads, tmp_path / "m.onnx")  # type: ignore[arg-type]
    assert onnx.load(tmp_path / "m.onnx").graph.initializer[0].raw_data == b"w" * THRESHOLD
    assert assemble(proto, payloads).graph.initializer[0].raw_data == b"w" * THRESHOLD  # type: ignore[arg-type]


def test_a_lost_payload_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    proto, payloads = tokenised()
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data + b"!"
    with pytest.raises(OutputError, match=r"1 of 1 tensors were changed.*Nothing was changed"):
        save(proto, payloads, tmp_path / "m.onnx")  # type: ignore[arg-type]
    assert names(tmp_path) == []


def test_what_a_killed_writer_left_is_removed_at_the_next_run(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom jr_onnx.modelfile import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as part:\n    part.write_bytes(b'half')\n    os.kill(os.getpid(), 9)\n"
    )
    target = tmp_path / "net.onnx"
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False, timeout=60)
    assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    atomic_write(target, [b"whole"])
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_a_writer_at_work_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "net.onnx"
    with atomic_path(target) as first:
        first.write_bytes(b"slow")
        atomic_write(target, [b"fast"])
        assert first.exists()
    assert target.read_bytes() == b"slow"

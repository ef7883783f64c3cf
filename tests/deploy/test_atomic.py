"""Folders are put in place in one step; whatever goes wrong before leaves the old state."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jr_onnx.deploy import atomic
from jr_onnx.errors import OutputError
from tests.deploy.builders import tree


def _fill(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "file").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(params=["kernel", "fallback"])
def renaming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways: with renameat2, and on a file system that does not offer it."""
    if request.param == "fallback":

        def refuse(source: Path, target: Path, flags: int) -> None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        monkeypatch.setattr(atomic, "_renameat2", refuse)
    return str(request.param)


def test_a_new_folder_appears(tmp_path: Path, renaming: str) -> None:
    target = tmp_path / "deep" / "repository" / "net"
    with atomic.staging(tmp_path / "deep" / "repository") as aside:
        staged = _fill(aside / "net", "new")
        atomic.sync_tree(staged)
        atomic.publish(staged, target, replace=False)
    assert tree(tmp_path / "deep") == {"repository/net/file": b"new"}
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "repository"]


@pytest.mark.parametrize("empty", [True, False])
def test_an_existing_folder_is_never_replaced_unasked(tmp_path: Path, renaming: str, empty: bool) -> None:
    target = tmp_path / "net"
    target.mkdir() if empty else _fill(target, "old")
    before = tree(target)
    with atomic.staging(target) as aside, pytest.raises(OutputError, match="already exists"):
        atomic.publish(_fill(aside / "net", "new"), target, replace=False)
    assert tree(target) == before


def test_a_folder_is_replaced_on_request(tmp_path: Path, renaming: str) -> None:
    target = _fill(tmp_path / "net", "old")
    with atomic.staging(target) as aside:
        atomic.publish(_fill(aside / "net", "new"), target, replace=True)
    assert tree(tmp_path) == {"net/file": b"new"}


def test_a_failure_before_publishing_leaves_the_old_state_and_no_litter(tmp_path: Path) -> None:
    target = _fill(tmp_path / "net", "old")

    def fail_half_way() -> None:
        with atomic.staging(target) as aside:
            _fill(aside / "net", "new")
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail_half_way()
    assert tree(tmp_path) == {"net/file": b"old"}
    assert list(tmp_path.iterdir()) == [target]


def test_where_the_second_of_two_renames_fails_the_first_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path, flags: int) -> None:
        raise OSError(errno.ENOSYS, "not offered")

    monkeypatch.setattr(atomic, "_renameat2", refuse)
    target = _fill(tmp_path / "net", "old")
    with atomic.staging(target) as aside, pytest.raises(OutputError, match="cannot write"):
        atomic.publish(aside / "not there", target, replace=True)
    assert tree(target) == {"file": b"old"}


def test_a_killed_process_leaves_the_old_state(tmp_path: Path) -> None:
    target = _fill(tmp_path / "net", "old")
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom jr_onnx.deploy.atomic import staging\n"
        "with staging(Path(sys.argv[1])) as aside:\n"
        "    (aside / 'net').mkdir()\n    (aside / 'net' / 'file').write_text('new')\n    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(target)], check=False).returncode == 9
    assert tree(target) == {"file": b"old"}
    left = [path.name for path in tmp_path.iterdir() if path != target]
    assert len(left) == 1
    assert left[0].startswith(atomic.STAGING_PREFIX)


def test_a_folder_that_is_a_file_system_of_its_own_is_staged_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = _fill(tmp_path / "mounted", "old")
    real = Path.stat

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = real(path, follow_symlinks=follow_symlinks)
        if path != target:
            return found
        values = list(found)
        values[2] += 1  # another device
        return os.stat_result(values)

    monkeypatch.setattr(Path, "stat", stat)
    with atomic.staging(target) as aside:
        assert aside.parent == target


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write"), atomic.staging(blocked / "repository"):
        pass

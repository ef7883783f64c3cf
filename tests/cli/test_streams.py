"""Saying something never stops doing something: pipes without a reader, full disks, readers that stop reading."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from jr_onnx.cli.streams import UnfailingStream
from tests.cli.conftest import small_model

COMMAND = [sys.executable, "-m", "jr_onnx"]
FULL = Path("/dev/full")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(small_model(), path)
    return path


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError as error:
            assert error.errno == errno.EBADF  # noqa: PT017 - a test may have closed its end


def test_without_a_reader_nothing_is_raised(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    stream = UnfailingStream(pipe[1], waits=True)
    assert stream.write(b"x" * 100_000) == 100_000
    assert stream.failure is None, "a reader that has seen enough is no failure"


def test_a_full_disk_is_noted_and_not_raised() -> None:
    with FULL.open("wb", buffering=0) as file:
        stream = UnfailingStream(file.fileno(), waits=True)
        assert stream.write(b"result") == 6
        assert stream.failure is not None
        assert stream.failure.errno == errno.ENOSPC


def test_a_reader_that_stops_reading_is_not_waited_for(pipe: tuple[int, int]) -> None:
    stream = UnfailingStream(pipe[1], waits=False)
    size = 4 << 20  # far more than any pipe holds
    assert stream.write(b"a" * size) == size
    began = time.monotonic()
    for _ in range(1000):
        stream.write(b"lost\n")
    # Had it been patient each time, this would be 250 s; a thousand polls that do not wait are far below one.
    assert time.monotonic() - began < 60
    while len(os.read(pipe[0], 1 << 16)) == 1 << 16:
        if not _readable(pipe[0]):
            break
    stream.write(b"heard again")
    assert os.read(pipe[0], 1 << 16).endswith(b"heard again")


def _readable(descriptor: int) -> bool:
    import select

    return bool(select.select([descriptor], [], [], 0)[0])


def test_whole_lines_arrive(pipe: tuple[int, int]) -> None:
    stream = UnfailingStream(pipe[1], waits=False)
    text = b"".join(b"line %d\n" % number for number in range(1000))
    stream.write(text)
    assert os.read(pipe[0], 1 << 16) == text


@pytest.mark.parametrize("how", ["gone", "full", "closed"])
def test_a_rewrite_is_done_whatever_becomes_of_its_messages(model: Path, how: str) -> None:
    """Both streams fail at once; the file is written, and the exit code says whether the result was heard."""
    target = model.with_name("net.jr.onnx")
    words = [*COMMAND, "rewrite", str(model), "--kappa", "0.5"]
    if how == "closed":
        done = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *words], check=False, timeout=60)
    elif how == "full":
        with FULL.open("wb") as full:
            done = subprocess.run(words, stdout=full, stderr=full, check=False, timeout=60)
    else:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(words, stdout=writing, stderr=writing, check=False, timeout=60)
        os.close(writing)
    assert done.returncode == (74 if how == "full" else 0)
    assert onnx.load(target).metadata_props


def test_the_exit_code_is_the_commands_own_though_nobody_reads(model: Path) -> None:
    """`jr-onnx inspect leaky.onnx | head -0` with pipefail must not call a model without sites fine."""
    reading, writing = os.pipe()
    os.close(reading)
    plain = onnx.load(model)
    plain.graph.node[1].op_type = "Tanh"
    onnx.save(plain, model)
    done = subprocess.run(
        [*COMMAND, "inspect", str(model)], stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(writing)
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr
    assert b"0 sites" in done.stderr


def test_a_full_disk_is_named_on_stderr(model: Path) -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "inspect", str(model)], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.returncode == 74
    assert done.stderr.endswith(b"jr-onnx: the output cannot be written: No space left on device\n")
    assert b"Exception ignored" not in done.stderr

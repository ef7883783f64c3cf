"""Real files with random damage: a reader gives images or a DataError, never anything else."""

from __future__ import annotations

import gzip
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from jr_onnx.data import Preprocessing, load
from jr_onnx.data.cifar_pickle import read_python_batch
from jr_onnx.data.folder import Folder
from jr_onnx.data.mnist import read_idx
from jr_onnx.data.resizing import Resizing
from jr_onnx.errors import DataError
from tests.data.builders import cifar_arrays, idx_bytes, python2_batch, random_bytes

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A change of a file: bytes replaced, removed, inserted, doubled, or the end cut off."""
    kind = draw(st.sampled_from(["replace", "cut", "remove", "insert", "double", "head"]))
    # Half of the changes fall into the first or last 200 bytes, where headers and directories are.
    where, near = draw(st.floats(0, 1, exclude_max=True)), draw(st.sampled_from(["front", "back", "any", "any"]))
    junk = draw(st.binary(min_size=1, max_size=9) | st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff"]))

    def apply(content: bytes) -> bytes:
        width = min(200, len(content)) if near != "any" else len(content)
        position = int(where * width) + (len(content) - width if near == "back" else 0)
        before, after = content[:position], content[position:]
        return {
            "replace": before + junk + after[len(junk) :],
            "cut": before,
            "remove": before + after[len(junk) :],
            "insert": before + junk + after,
            "double": before + after + after,
            "head": junk + content[len(junk) :],
        }[kind]

    return apply


def _survives(read: Callable[[], object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = ""
        try:
            read()
        except DataError as error:
            message = str(error)
    assert "\n" not in message


@FUZZ
@given(damage(), st.booleans())
def test_idx(tmp_path: Path, change: Callable[[bytes], bytes], packed: bool) -> None:
    content = idx_bytes(random_bytes(5, 6, 7))
    path = tmp_path / ("images.gz" if packed else "images")
    path.write_bytes(change(gzip.compress(content) if packed else content))
    _survives(lambda: read_idx(path, 3))


@FUZZ
@given(damage(), damage())
def test_cifar_pickle(tmp_path: Path, first: Callable[[bytes], bytes], second: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "test_batch"
    path.write_bytes(second(first(python2_batch(*cifar_arrays(2, 0)))))
    _survives(lambda: read_python_batch(path, 2))


@FUZZ
@given(damage(), st.booleans())
def test_npz(tmp_path: Path, change: Callable[[bytes], bytes], packed: bool) -> None:
    path = tmp_path / "set.npz"
    save = np.savez_compressed if packed else np.savez
    save(path, images=random_bytes(9, 5, 5), labels=np.arange(9), class_names=np.array(list("abcdefghi")))
    path.write_bytes(change(path.read_bytes()))
    _survives(lambda: load(f"npz:{path}"))


@FUZZ
@given(
    arrays(st.sampled_from(["u1", "i2", "f4", "f8", "?"]), array_shapes(min_dims=1, max_dims=5, max_side=6)),
    arrays(st.sampled_from(["u1", "i8", "f4", "?", "<U1"]), array_shapes(min_dims=1, max_dims=3, max_side=6)),
    st.sampled_from(["", "?range=0,1", "?range=-1,1&layout=NHWC", "?layout=NCHW"]),
)
def test_npz_of_any_arrays(tmp_path: Path, images: np.ndarray, labels: np.ndarray, options: str) -> None:
    """Whatever is accepted is pixels from 0 to 1 with a class each."""
    path = tmp_path / "set.npz"
    np.savez(path, images=images, labels=labels)

    def read() -> None:
        data = load(f"npz:{path}{options}")
        assert data.images.min() >= 0
        assert data.images.max() <= 1
        assert len(data.labels) == len(data)

    _survives(read)


@FUZZ
@given(
    st.text("mean=stdrgelayouzi;,.0123456789NCHWBGR-x", max_size=40)
    | st.lists(
        st.sampled_from(
            [
                "mnist",
                "cifar10",
                "mean=0",
                "std=0",
                "std=1,2",
                "size=4",
                "size=3x5",
                "resize=9",
                "order=BGR",
                "range=0,9",
            ]
        ),
        max_size=4,
    ).map(";".join)
)
def test_preprocessings(text: str) -> None:
    _survives(lambda: Preprocessing.parse(text))


@FUZZ
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 30), st.integers(1, 20), st.integers(1, 20))
def test_sizes(height: int, width: int, resize: int, down: int, across: int) -> None:
    """Whatever the sizes, the crop has the one that was asked for."""
    pytest.importorskip("PIL.Image", reason="resizing needs Pillow")
    try:
        chosen = Preprocessing(size=(down, across), resize=resize)
    except DataError:
        assert 0 < resize < max(down, across)
        return
    planes = Resizing(chosen).planes(random_bytes(2, 3, height, width), "set")
    assert planes.shape == (2, 3, down, across)


@FUZZ
@given(st.lists(st.text("019ab", min_size=1, max_size=3), min_size=1, max_size=5, unique=True))
def test_class_folders_of_any_names(tmp_path: Path, names: list[str]) -> None:
    """Every folder has a class of its own, and the classes have the folders' names."""
    pillow = pytest.importorskip("PIL.Image", reason="picture folders need Pillow")
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        for name in names:
            (Path(folder) / name).mkdir()
            for number in range(4):
                picture = Path(folder) / name / f"{number}.png"
                pillow.fromarray(np.full((2, 2), len(name), np.uint8)).save(picture)

        def read() -> None:
            block = Folder(Path(folder)).block("one")
            assert len(set(block.labels)) == len(names)
            assert {block.class_names[label] for label in block.labels} == set(names)

        _survives(read)


@FUZZ
@given(damage())
def test_npz_header(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    import io
    import zipfile

    member = io.BytesIO()
    np.save(member, random_bytes(9, 5, 5))
    path = tmp_path / "set.npz"
    np.savez(tmp_path / "labels.npz", labels=np.arange(9))
    with zipfile.ZipFile(tmp_path / "labels.npz") as source, zipfile.ZipFile(path, "w") as target:
        target.writestr("labels.npy", source.read("labels.npy"))
        target.writestr("images.npy", change(member.getvalue()))
    _survives(lambda: load(f"npz:{path}"))


@FUZZ
@given(damage(), st.sampled_from(["PNG", "JPEG"]))
def test_pictures(tmp_path: Path, change: Callable[[bytes], bytes], kind: str) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="picture folders need Pillow")
    from jr_onnx.data.folder import decode

    path = tmp_path / "picture.png"
    pillow.fromarray(random_bytes(9, 8, 3)).save(path, format=kind)
    path.write_bytes(change(path.read_bytes()))
    _survives(lambda: decode(pillow, [path]))


@FUZZ
@given(damage())
def test_lists_of_labels(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    pytest.importorskip("PIL.Image", reason="picture folders need Pillow")
    content = "file,label\n" + "".join(f"{number}.png,{number}\n" for number in range(9))
    (tmp_path / "labels.csv").write_bytes(change(content.encode()))
    _survives(lambda: load(f"folder:{tmp_path}"))


@FUZZ
@given(st.text(max_size=40))
def test_specifications(spec: str) -> None:
    if spec != "digits":
        _survives(lambda: load(spec))

"""The op library in a Triton package: which models need it, what is packaged, what is refused."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from jr_onnx import provenance
from jr_onnx.deploy import OpLibrary, Placement, TritonOptions, package_triton, verify
from jr_onnx.errors import InputError, RefusalError
from tests.deploy.builders import retrofitted, save


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A file that begins like a shared library."""
    path = tmp_path / "libops.so"
    path.write_bytes(b"\x7fELF" + bytes(12))
    return path


def test_the_operator_library_is_packaged_with_an_absolute_path(tmp_path: Path, model: Path, library: Path) -> None:
    custom = retrofitted(model, 0.06, lowering="custom")
    options = TritonOptions(name="net", op_library=OpLibrary("/mnt/models/", library))
    package_triton(custom, tmp_path / "r", options)
    assert (tmp_path / "r/net/libops.so").read_bytes() == library.read_bytes()
    config = (tmp_path / "r/net/config.pbtxt").read_text(encoding="utf-8")
    assert 'op_library_filename: "/mnt/models/net/libops.so"' in config
    (package,) = verify(tmp_path / "r")
    assert package.manifest.triton is not None
    assert package.manifest.triton.server_path == "/mnt/models/"
    assert "libops.so" in [entry.path for entry in package.manifest.files]


def test_a_custom_lowering_needs_no_library(tmp_path: Path, model: Path) -> None:
    custom = retrofitted(model, 0.06, lowering="custom")
    package_triton(custom, tmp_path / "r", TritonOptions(name="net"))
    assert "op_library" not in (tmp_path / "r/net/config.pbtxt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("lowering", "with_library"), [("where", False), ("thresholded", False), ("custom", False), ("custom", True)]
)
def test_tensorrt_gets_no_custom_operator(
    tmp_path: Path, model: Path, library: Path, lowering: str, with_library: bool
) -> None:
    retrofit = retrofitted(model, 0.06, lowering=lowering)
    options = TritonOptions(
        name="net",
        placement=Placement("gpu", accelerator="tensorrt"),
        op_library=OpLibrary("/models", library) if with_library else None,
    )
    if lowering != "custom":
        package_triton(retrofit, tmp_path / "r", options)
        assert "tensorrt" in (tmp_path / "r/net/config.pbtxt").read_text(encoding="utf-8")
        return
    with pytest.raises(RefusalError, match="TensorRT has no jr_onnx::JumpRelu") as caught:
        package_triton(retrofit, tmp_path / "r", options)
    assert "--lowering thresholded" in caught.value.hint
    assert not (tmp_path / "r").exists()


def test_a_library_that_nothing_uses_is_refused(tmp_path: Path, model: Path, library: Path) -> None:
    with pytest.raises(InputError, match="no node of the model uses it"):
        package_triton(model, tmp_path / "r", TritonOptions(name="net", op_library=OpLibrary("/models", library)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("libops.so", b"#!/bin/sh\n", "is not a shared library"),
        ("lib ops.so", b"\x7fELF", "expected a plain name ending in .so"),
        ("libops.dll", b"\x7fELF", "expected a plain name ending in .so"),
        ("libops.so", None, "does not exist"),
    ],
)
def test_what_is_no_library_is_refused(
    tmp_path: Path, model: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / "somewhere" / name
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    custom = retrofitted(model, 0.06, lowering="custom")
    with pytest.raises(InputError, match=message):
        package_triton(custom, tmp_path / "r", TritonOptions(name="net", op_library=OpLibrary("/models", path)))


def test_an_operator_without_definition_needs_the_library(tmp_path: Path, model: Path, library: Path) -> None:
    proto = onnx.load(retrofitted(model, 0.06, lowering="custom"))
    del proto.functions[:]
    provenance.remove(proto)  # it names the function, and a file that contradicts its provenance is refused first
    bare = save(proto, tmp_path / "bare.onnx")
    with pytest.raises(RefusalError, match="holds no definition of it"):
        package_triton(bare, tmp_path / "r", TritonOptions(name="net"))
    package_triton(bare, tmp_path / "r", TritonOptions(name="net", op_library=OpLibrary("/models", library)))

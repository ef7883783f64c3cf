"""Changes to a model's files while it is loaded and served do not affect the server."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from jr_onnx.deploy import TritonOptions, package_triton
from jr_onnx.errors import IntegrityError, JrError, ModelError
from jr_onnx.serve import private
from jr_onnx.serve.catalogue import Catalogue
from jr_onnx.serve.opening import open_session, read_checked
from jr_onnx.serve.options import Running
from jr_onnx.serve.private import read_privately
from tests.deploy.builders import classifier, save
from tests.serve.support import GOOD, Rest
from tools.checks.serving.processes import jr_onnx, running

X = np.random.default_rng(3).random((2, 3, 8, 8), dtype=np.float32)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return save(classifier(), tmp_path / "m.onnx").resolve()


@pytest.fixture
def external(tmp_path: Path) -> Path:
    folder = tmp_path / "external"
    folder.mkdir()
    return save(classifier(), folder / "m.onnx", external="m.data").resolve()


def answer(path: Path) -> np.ndarray:
    model = read_privately(path)
    read_checked(model)
    return open_session(model, Running()).run(None, {"x": X})[0]


def test_external_data_is_served_from_memory(plain: Path, external: Path) -> None:
    model = read_privately(external)
    assert read_checked(model).external == ()
    external.with_name("m.data").write_bytes(b"gone")
    external.unlink()
    np.testing.assert_array_equal(open_session(model, Running()).run(None, {"x": X})[0], answer(plain))


@pytest.mark.parametrize("name", ["m.onnx", "m.data"])
@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "nothing", "truncated"])
def test_what_takes_the_place_of_a_file_is_refused(external: Path, name: str, kind: str, tmp_path: Path) -> None:
    victim = external.with_name(name)
    other = shutil.copy(victim, tmp_path / "other")
    victim.unlink()
    if kind == "pipe":
        os.mkfifo(victim)
    elif kind == "link":
        victim.symlink_to(other)
    elif kind == "folder":
        victim.mkdir()
    elif kind == "truncated":
        victim.write_bytes(Path(other).read_bytes()[:50])
    with pytest.raises(ModelError):
        read_privately(external)


def test_a_link_to_the_folder_is_refused(external: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    external.parent.rename(moved)
    external.parent.symlink_to(moved)
    with pytest.raises(ModelError, match="reached through a symbolic link"):
        read_privately(external)


@pytest.mark.parametrize("name", ["model.onnx", "m.data"])
def test_the_manifest_is_compared_with_what_was_read(external: Path, name: str, tmp_path: Path) -> None:
    """A file that changes between the check of the manifest and the load: the window is not there."""
    package_triton(external, tmp_path / "repository", TritonOptions(name="net"))
    (entry,) = Catalogue([str(tmp_path / "repository")]).find("net")
    assert entry.digests is not None
    assert set(entry.digests) >= {"model.onnx", "m.data"}
    read_privately(entry.path, entry.digests)
    victim = entry.path.with_name(name)
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    with pytest.raises(IntegrityError, match="does not match its manifest: it was changed since it was verified"):
        read_privately(entry.path, entry.digests)


def test_external_data_that_no_manifest_names_is_refused(external: Path, tmp_path: Path) -> None:
    package_triton(external, tmp_path / "repository", TritonOptions(name="net"))
    (entry,) = Catalogue([str(tmp_path / "repository")]).find("net")
    assert entry.digests is not None
    with pytest.raises(IntegrityError, match="in no manifest"):
        read_privately(entry.path, {"model.onnx": entry.digests["model.onnx"]})


def test_a_model_that_became_a_link_in_the_repository_is_refused(plain: Path, tmp_path: Path) -> None:
    package_triton(plain, tmp_path / "repository", TritonOptions(name="net"))
    package_triton(plain, tmp_path / "other", TritonOptions(name="net"))
    catalogue = Catalogue([str(tmp_path / "repository")])
    shutil.rmtree(tmp_path / "repository" / "net")
    (tmp_path / "repository" / "net").symlink_to(tmp_path / "other" / "net")
    with pytest.raises(JrError, match="symbolic link"):
        catalogue.find("net")


def test_a_file_too_large_for_onnx_runtime_is_not_read(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "_MOST_BYTES", 100)
    with pytest.raises(ModelError, match="more than the 2 GB"):
        read_privately(plain)


def test_the_server_outlives_its_files(models: dict[str, Path], tmp_path: Path) -> None:
    """A pipe in the place of a model, a truncated one, a missing one: refused loads, and the answers go on."""
    path = tmp_path / "net.onnx"
    shutil.copy(models["fixed"], path)
    with running(jr_onnx(f"net={path}", "--no-grpc", "--model-control")) as server:
        client = Rest(server.http_port, timeout=60)
        good = client.infer("net", GOOD)
        assert good.status == 200
        for kind in ("pipe", "truncated", "nothing", "link"):
            path.unlink(missing_ok=True)
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "truncated":
                path.write_bytes(models["fixed"].read_bytes()[:500])
            elif kind == "link":
                path.symlink_to(models["fixed"])
            assert client.ask("POST", "/v2/repository/models/net/load", {}).status >= 400
            assert client.infer("net", GOOD).status == 200
        path.unlink()
        shutil.copy(models["fixed"], path)
        assert client.ask("POST", "/v2/repository/models/net/load", {}).status == 200
        client.close()
        assert server.terminate() == 0


def test_a_retrofit_with_a_bound_in_external_data_is_packaged_and_served(tmp_path: Path) -> None:
    from jr_onnx.rewriter import rewrite

    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) '
        "<float low = {0.0}, float high = {6.0}> { y = Clip (x, low, high) }"
    )
    path = save(model, tmp_path / "c.onnx", external="c.data")
    written, _ = rewrite(path, 0.5)
    package_triton(written, tmp_path / "repository", TritonOptions(name="net"))
    (entry,) = Catalogue([str(tmp_path / "repository")]).find("net")
    loaded = read_privately(entry.path, entry.digests)
    read_checked(loaded)
    session = open_session(loaded, Running())
    assert not session.retrofit.mismatch
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], np.where(X > 0.5, X, 0))

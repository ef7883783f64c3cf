"""The manifest finds every change; it never follows a link or a path out of the package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jr_onnx.deploy import TritonOptions, expect_packages, package_triton, verify
from jr_onnx.deploy.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest, read_manifest, write_manifest
from jr_onnx.errors import IntegrityError
from jr_onnx.records import dumps, loads
from tests.deploy.builders import tree


def _edit_manifest(package: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = package / MANIFEST_NAME
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def test_an_untouched_package_holds(repository: Path) -> None:
    (package,) = verify(repository)
    assert package.label == "net/1"
    assert package.folder == repository / "net" / "1"
    assert [entry.path for entry in package.manifest.files] == ["1/model.onnx", "config.pbtxt"]
    assert not package.signed
    assert not package.signature_checked


@pytest.mark.parametrize("part", [".", "net", "net/1"])
def test_repository_model_and_version_can_each_be_checked(repository: Path, part: str) -> None:
    assert [package.label for package in verify(repository / part)] == ["net/1"]


def test_a_version_alone_still_checks_what_it_shares(repository: Path) -> None:
    with (repository / "net" / "config.pbtxt").open("a", encoding="utf-8") as stream:
        stream.write("\n")
    with pytest.raises(IntegrityError, match=r"net/config\.pbtxt was changed"):
        verify(repository / "net" / "1")


def test_a_shared_file_that_changed_is_named_once(repository: Path, model: Path) -> None:
    package_triton(model, repository, TritonOptions(name="net", version=2))
    with (repository / "net" / "config.pbtxt").open("a", encoding="utf-8") as stream:
        stream.write("\n")
    with pytest.raises(IntegrityError) as caught:
        verify(repository)
    assert str(caught.value).count("config.pbtxt was changed") == 1


def test_a_manifest_survives_its_own_reading_and_writing(repository: Path) -> None:
    manifest = read_manifest(repository / "net" / "1" / MANIFEST_NAME)
    assert loads(Manifest, dumps(manifest)) == manifest


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_changed_byte_of_any_file_is_found(repository: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["net/1/model.onnx", "net/config.pbtxt"]))
    path = repository / name
    before = path.read_bytes()
    position = data.draw(st.integers(0, len(before) - 1))
    change = data.draw(st.integers(1, 255))
    changed = bytearray(before)
    changed[position] ^= change
    path.write_bytes(changed)
    try:
        with pytest.raises(IntegrityError, match="was changed"):
            verify(repository)
    finally:
        path.write_bytes(before)
    verify(repository)


def _grow(repository: Path) -> None:
    with (repository / "net" / "1" / "model.onnx").open("ab") as stream:
        stream.write(b"\0")


def _remove(repository: Path) -> None:
    (repository / "net" / "1" / "model.onnx").unlink()


def _add_to_version(repository: Path) -> None:
    (repository / "net" / "1" / "model.py").write_text("", encoding="utf-8")


def _add_to_repository(repository: Path) -> None:
    (repository / "README").write_text("", encoding="utf-8")


def _add_hidden(repository: Path) -> None:
    (repository / "net" / ".hidden").write_text("", encoding="utf-8")


def _add_empty_version(repository: Path) -> None:
    (repository / "net" / "2").mkdir()


def _add_model_without_manifest(repository: Path) -> None:
    shutil.copytree(repository / "net", repository / "other")
    (repository / "other" / "1" / MANIFEST_NAME).unlink()


def _link_file(repository: Path) -> None:
    path = repository / "net" / "1" / "model.onnx"
    path.rename(repository.parent / "elsewhere.onnx")
    path.symlink_to(repository.parent / "elsewhere.onnx")


def _link_folder(repository: Path) -> None:
    path = repository / "net" / "1"
    path.rename(repository.parent / "elsewhere")
    path.symlink_to(repository.parent / "elsewhere")
    shutil.copytree(repository.parent / "elsewhere", repository / "net" / "3")


def _extra_link(repository: Path) -> None:
    (repository / "net" / "1" / "link").symlink_to("/etc/hostname")


def _pipe(repository: Path) -> None:
    os.mkfifo(repository / "net" / "1" / "pipe")


def _folder_in_place_of_file(repository: Path) -> None:
    path = repository / "net" / "1" / "model.onnx"
    path.unlink()
    path.mkdir()


def _stray_signature(repository: Path) -> None:
    (repository / "net" / SIGNATURE_NAME).write_text("{}", encoding="utf-8")


def _renamed_model(repository: Path) -> None:
    (repository / "net").rename(repository / "other")


def _renamed_version(repository: Path) -> None:
    (repository / "net" / "1").rename(repository / "net" / "2")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_grow, r"net/1/model\.onnx was changed \(\d+ bytes, expected \d+\)"),
        (_remove, r"net/1/model\.onnx is missing"),
        (_add_to_version, r"net/1/model\.py is in no manifest"),
        (_add_to_repository, r"README is in no manifest"),
        (_add_hidden, r"net/\.hidden is in no manifest"),
        (_add_empty_version, r"the folder net/2 is empty"),
        (_add_model_without_manifest, r"other/1/model\.onnx is in no manifest"),
        (_link_file, r"net/1/model\.onnx is a symbolic link"),
        (_link_folder, r"net/1 is a symbolic link"),
        (_extra_link, r"net/1/link is a symbolic link"),
        (_pipe, r"net/1/pipe is a special file"),
        (_folder_in_place_of_file, r"net/1/model\.onnx is missing"),
        (_stray_signature, r"net/jr_onnx\.manifest\.sig is in no manifest"),
        (_renamed_model, r"is for net/1, found in other/1"),
        (_renamed_version, r"is for net/1, found in net/2"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_damage_is_found_and_named(repository: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(repository)
    with pytest.raises(IntegrityError, match=message) as caught:
        verify(repository)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "/etc/hostname",
        "1/../../outside",
        "",
        ".",
        "1//model.onnx",
        "./config.pbtxt",
        "2/model.onnx",
        "a\0b",
    ],
)
def test_a_manifest_that_reaches_out_of_its_package_is_refused(repository: Path, path: str) -> None:
    (repository.parent / "outside").write_text("", encoding="utf-8")

    def change(document: dict[str, Any]) -> None:
        document["files"][0]["path"] = path

    _edit_manifest(repository / "net" / "1", change)
    with pytest.raises(IntegrityError, match=r"expected a plain path|is not of version 1"):
        verify(repository)


def test_a_file_named_twice_is_refused(repository: Path) -> None:
    _edit_manifest(repository / "net" / "1", lambda document: document["files"].append(document["files"][0]))
    with pytest.raises(IntegrityError, match="twice"):
        verify(repository)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\xff", '{"schema": "jr_onnx.manifest/3"}', "[" * 100_000])
def test_what_is_no_manifest_is_refused(repository: Path, text: str) -> None:
    (repository / "net" / "1" / MANIFEST_NAME).write_bytes(text.encode("latin-1"))
    with pytest.raises(IntegrityError, match="cannot read the manifest"):
        verify(repository)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"holds no jr_onnx\.manifest"):
        verify(tmp_path)


def test_what_is_no_folder_is_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(IntegrityError, match="is not a folder"):
        verify(model)
    with pytest.raises(IntegrityError, match="No such file"):
        verify(tmp_path / "nowhere")


def test_a_name_that_cannot_be_printed_is_escaped(repository: Path) -> None:
    Path(os.fsdecode(os.fsencode(repository) + b"/\xff\x1b[31m")).write_text("", encoding="utf-8")
    with pytest.raises(IntegrityError) as caught:
        verify(repository)
    assert str(caught.value).isprintable()


def test_many_problems_are_counted_on_one_line(repository: Path) -> None:
    for number in range(9):
        (repository / f"extra{number}").write_text("", encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"extra0 .*extra4 .*; and 4 more$"):
        verify(repository)


def test_one_package_is_checked_whatever_lies_beside_it(repository: Path, model: Path) -> None:
    package_triton(model, repository, TritonOptions(name="other"))
    _grow(repository)
    assert [package.label for package in verify(repository / "other")] == ["other/1"]
    with pytest.raises(IntegrityError):
        verify(repository)


def test_an_expected_package_that_was_taken_away_is_found(repository: Path, model: Path) -> None:
    package_triton(model, repository, TritonOptions(name="other"))
    expect_packages(verify(repository), ["net/1", "other/1"])
    shutil.rmtree(repository / "net")
    with pytest.raises(IntegrityError, match="the package net/1 is missing, found other/1"):
        expect_packages(verify(repository), ["net/1", "other/1"])


def test_checking_changes_nothing(repository: Path) -> None:
    before = tree(repository)
    verify(repository)
    assert tree(repository) == before


def test_checking_a_package_imports_neither_onnx_nor_torch() -> None:
    script = (
        "import sys\nfrom jr_onnx.deploy.verification import verify\n"
        "print({'onnx', 'torch', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def _nest(repository: Path) -> None:
    (repository / "fraud").mkdir()
    shutil.copytree(repository / "net", repository / "fraud" / "net")


def _nest_alone(repository: Path) -> None:
    _nest(repository)
    shutil.rmtree(repository / "net")


def _nest_deeper(repository: Path) -> None:
    (repository / "a" / "b").mkdir(parents=True)
    (repository / "net").rename(repository / "a" / "b" / "net")


def _nest_in_a_version(repository: Path) -> None:
    copy = shutil.copytree(repository / "net", repository.parent / "copy")
    copy.rename(repository / "net" / "1" / "net")


@pytest.mark.parametrize("move", [_nest, _nest_alone, _nest_deeper, _nest_in_a_version])
def test_a_package_holds_directly_below_the_repository_alone(repository: Path, move: Callable[[Path], None]) -> None:
    move(repository)
    with pytest.raises(IntegrityError, match=r"the package net/1 lies in .*net/1, expected directly below the repo"):
        verify(repository)


def test_a_deployment_holds_in_a_folder_of_its_own(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "compose.yaml").write_text("services: {}", encoding="utf-8")
    write_manifest(tmp_path / "own", kind="compose", name="jr-onnx")
    assert verify(tmp_path / "own")[0].label == "jr-onnx"
    (tmp_path / "own").rename(repository / "own")
    with pytest.raises(IntegrityError, match="the compose deployment jr-onnx lies in own, expected in a folder of its"):
        verify(repository)


@pytest.mark.parametrize(
    "name",
    ["net/1", "", ".", "..", "net\t1", "\x1b[2J\x1b]0;owned\x07x", "n\u202eten", "net\n", "nét", "a" * 200, " net"],
)
@pytest.mark.parametrize("kind", ["triton", "compose", "kserve"])
def test_a_name_that_no_package_has_is_refused(tmp_path: Path, kind: Any, name: str) -> None:
    folder = tmp_path / "p" / "1" if kind == "triton" else tmp_path / "p"
    folder.mkdir(parents=True)
    (folder / "f").write_text("x", encoding="utf-8")
    write_manifest(folder, kind=kind, name=name, version=1 if kind == "triton" else None)
    with pytest.raises(IntegrityError, match="cannot read the manifest") as caught:
        verify(tmp_path / "p")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("kind", "version"), [("triton", None), ("compose", 1), ("triton", 0), ("triton", -1)])
def test_a_version_where_there_is_none_is_refused(tmp_path: Path, kind: Any, version: int | None) -> None:
    (tmp_path / "f").write_text("x", encoding="utf-8")
    write_manifest(tmp_path, kind=kind, name="digits", version=version)
    with pytest.raises(IntegrityError, match="expected one of 1 or more for triton and none for a deployment"):
        read_manifest(tmp_path / MANIFEST_NAME)


@pytest.mark.parametrize("created", ["", "yesterday", "2026-11-01", "9999-99-99T00:00:00Z", "\x1b[2J"])
def test_an_invalid_time_is_refused(repository: Path, created: str) -> None:
    _edit_manifest(repository / "net" / "1", lambda document: document.update(created=created))
    with pytest.raises(IntegrityError, match="it was made at") as caught:
        verify(repository)
    assert str(caught.value).isprintable()


def test_a_package_of_the_earlier_form_is_named_with_the_way_out(repository: Path, model: Path) -> None:
    def age(document: dict[str, Any]) -> None:
        document["schema"] = "jr_onnx.manifest/1"
        del document["created"]

    _edit_manifest(repository / "net" / "1", age)
    with pytest.raises(IntegrityError, match=r"form of an earlier version.*jr-onnx package triton --force"):
        verify(repository)
    package_triton(model, repository, TritonOptions(name="net", force=True))
    assert [package.label for package in verify(repository)] == ["net/1"]


def test_a_build_can_fix_its_time(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for name in ("a", "b"):
        package_triton(model, tmp_path / name, TritonOptions(name="net"))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert verify(tmp_path / "a")[0].manifest.created == "2023-11-14T22:13:20Z"


def test_the_manifest_records_whether_requests_are_joined(tmp_path: Path, model: Path) -> None:
    package_triton(model, tmp_path / "r", TritonOptions(name="net"))
    settings_ = verify(tmp_path / "r")[0].manifest.triton
    assert settings_ is not None
    assert settings_.joined
    assert settings_.joining == "the rows of a batch are proved independent, and a trial agrees"

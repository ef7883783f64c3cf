"""Signatures: only the owner of the key could have made the manifest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jr_onnx.deploy import TritonOptions, package_triton, signing, verify
from jr_onnx.deploy.manifest import MANIFEST_NAME, SIGNATURE_NAME
from jr_onnx.deploy.signing import check_private_key
from jr_onnx.errors import InputError, IntegrityError, MissingExtraError
from tests.deploy.builders import make_keys


@pytest.fixture
def signed(tmp_path: Path, model: Path, key_pair: tuple[Path, Path]) -> Path:
    root = tmp_path / "signed"
    package_triton(model, root, TritonOptions(name="net", sign_key=key_pair[0]))
    return root


def test_a_signed_package_holds_for_the_owners_key(signed: Path, key_pair: tuple[Path, Path]) -> None:
    (package,) = verify(signed, key_pair[1])
    assert package.signed
    assert package.signature_checked


def test_without_a_key_the_signature_is_not_trusted(signed: Path) -> None:
    (package,) = verify(signed)
    assert package.signed
    assert not package.signature_checked


def test_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    _, public = make_keys(tmp_path / "others")
    with pytest.raises(IntegrityError, match="does not hold for the key"):
        verify(signed, public)


def test_a_manifest_made_to_fit_a_changed_model_is_found(
    signed: Path, key_pair: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    forged = tmp_path / "forged"
    package_triton(model, forged, TritonOptions(name="net", version=1, all_versions=True))
    shutil.copy(signed / "net" / "1" / SIGNATURE_NAME, forged / "net" / "1" / SIGNATURE_NAME)
    verify(forged)  # every digest fits
    with pytest.raises(IntegrityError, match="does not hold for the key"):
        verify(forged, key_pair[1])


def test_what_is_believed_is_what_the_signature_was_checked_for(
    signed: Path, key_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest that is swapped between the check of its signature and its use."""
    manifest = signed / "net" / "1" / MANIFEST_NAME
    real = signing._verify

    def check_and_swap(*words: Any, **options: Any) -> None:
        real(*words, **options)
        manifest.write_text(manifest.read_text().replace('"name": "net"', '"name": "fraud"'))

    monkeypatch.setattr(signing, "_verify", check_and_swap)
    (package,) = verify(signed, key_pair[1])
    assert package.manifest.name == "net"
    monkeypatch.setattr(signing, "_verify", real)
    with pytest.raises(IntegrityError, match="does not hold for the key"):
        verify(signed, key_pair[1])


def test_a_changed_file_of_a_signed_package_is_found(signed: Path, key_pair: tuple[Path, Path]) -> None:
    with (signed / "net" / "1" / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(IntegrityError, match="was changed"):
        verify(signed, key_pair[1])


def test_an_unsigned_package_is_refused_where_a_key_is_given(repository: Path, key_pair: tuple[Path, Path]) -> None:
    with pytest.raises(IntegrityError, match="is not signed"):
        verify(repository, key_pair[1])


def test_one_unsigned_package_spoils_the_repository(signed: Path, model: Path, key_pair: tuple[Path, Path]) -> None:
    package_triton(model, signed, TritonOptions(name="unsigned"))
    with pytest.raises(IntegrityError, match="unsigned/1 is not signed"):
        verify(signed, key_pair[1])
    verify(signed / "net", key_pair[1])


def test_packages_added_later_leave_the_first_signature_valid(
    signed: Path, model: Path, key_pair: tuple[Path, Path]
) -> None:
    first = (signed / "net" / "1" / SIGNATURE_NAME).read_bytes()
    package_triton(model, signed, TritonOptions(name="net", version=2, sign_key=key_pair[0]))
    package_triton(model, signed, TritonOptions(name="other", sign_key=key_pair[0]))
    labels = [package.label for package in verify(signed, key_pair[1])]
    assert labels == ["net/1", "net/2", "other/1"]
    assert (signed / "net" / "1" / SIGNATURE_NAME).read_bytes() == first


@pytest.mark.parametrize("text", ["", "{}", "no json", '{"verificationMaterial": {}}', "[" * 100_000])
def test_a_forged_signature_never_gets_past(signed: Path, key_pair: tuple[Path, Path], text: str) -> None:
    (signed / "net" / "1" / SIGNATURE_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(IntegrityError, match="does not hold") as caught:
        verify(signed, key_pair[1])
    assert "\n" not in str(caught.value)


def test_a_signature_moved_to_another_package_does_not_hold(
    signed: Path, model: Path, key_pair: tuple[Path, Path]
) -> None:
    package_triton(model, signed, TritonOptions(name="other"))
    shutil.copy(signed / "net" / "1" / SIGNATURE_NAME, signed / "other" / "1" / SIGNATURE_NAME)
    with pytest.raises(IntegrityError, match="does not hold"):
        verify(signed, key_pair[1])


def test_a_linked_signature_is_refused(signed: Path, key_pair: tuple[Path, Path]) -> None:
    signature = signed / "net" / "1" / SIGNATURE_NAME
    signature.rename(signed.parent / "elsewhere")
    signature.symlink_to(signed.parent / "elsewhere")
    with pytest.raises(IntegrityError, match="symbolic link"):
        verify(signed, key_pair[1])


def test_the_librarys_own_command_accepts_the_signature(signed: Path, key_pair: tuple[Path, Path]) -> None:
    package = signed / "net" / "1"
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(package / MANIFEST_NAME)]
    command += ["--signature", str(package / SIGNATURE_NAME), "--public_key", str(key_pair[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_signed_statement_names_the_manifests_digest(signed: Path) -> None:
    bundle = json.loads((signed / "net" / "1" / SIGNATURE_NAME).read_text(encoding="utf-8"))
    assert bundle["mediaType"].startswith("application/vnd.dev.sigstore.bundle")


@pytest.mark.parametrize("content", [None, "no key", "public"])
def test_a_key_that_cannot_sign_is_refused_before_anything_is_written(
    tmp_path: Path, model: Path, key_pair: tuple[Path, Path], content: str | None
) -> None:
    key = tmp_path / "some.pem"
    if content == "public":
        shutil.copy(key_pair[1], key)
    elif content is not None:
        key.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"cannot sign|cannot read the key"):
        package_triton(model, tmp_path / "repository", TritonOptions(name="net", sign_key=key))
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("make", "what"),
    [
        ("genrsa -out {key} 2048", "it is an RSA key"),
        ("genpkey -algorithm ed25519 -out {key}", "it is an Ed25519 key"),
        ("ecparam -name secp256k1 -genkey -noout -out {key}", "it lies on the curve secp256k1"),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:x -out {key}", "it is encrypted"),
    ],
)
def test_a_key_of_another_kind_is_called_by_its_name(tmp_path: Path, make: str, what: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the keys, is not installed")
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", *make.format(key=key).split()], check=True, capture_output=True)
    with pytest.raises(InputError, match=f"cannot sign: {what}; expected .* elliptic curve .P-256, P-384 or P-521"):
        check_private_key(key)


def test_the_wrong_half_of_a_pair_is_named(key_pair: tuple[Path, Path], signed: Path) -> None:
    with pytest.raises(InputError, match="cannot sign: it is a public key"):
        check_private_key(key_pair[1])
    with pytest.raises(InputError, match="cannot check a signature: it is a private key"):
        verify(signed, key_pair[0])


def test_a_private_key_cannot_stand_in_for_the_public_one(signed: Path, key_pair: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="cannot check a signature"):
        verify(signed, key_pair[0])


def test_a_missing_key_file_is_said(signed: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the key"):
        verify(signed, tmp_path / "nowhere.pem")


def test_without_the_library_the_extra_is_named(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "OpenSSL", None)
    with pytest.raises(MissingExtraError, match=r"jr-onnx\[serve\]"):
        verify(repository, tmp_path / "key.pem")


def test_a_signed_package_does_not_hold_as_another_model(
    signed: Path, model: Path, key_pair: tuple[Path, Path]
) -> None:
    package_triton(model, signed, TritonOptions(name="fraud", sign_key=key_pair[0]))
    shutil.rmtree(signed / "fraud")
    (signed / "fraud").mkdir()
    shutil.copytree(signed / "net", signed / "fraud" / "net")
    with pytest.raises(IntegrityError, match="expected directly below the repository"):
        verify(signed, key_pair[1])
    shutil.rmtree(signed / "fraud")
    shutil.copytree(signed / "net", signed / "fraud")
    with pytest.raises(IntegrityError, match="is for net/1, found in fraud/1"):
        verify(signed, key_pair[1])


def test_an_older_signed_version_of_the_same_number_is_refused_by_date(
    tmp_path: Path, model: Path, key_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TritonOptions(name="net", sign_key=key_pair[0], force=True)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    package_triton(model, tmp_path / "r", options)
    shutil.copytree(tmp_path / "r", tmp_path / "old")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700003600")
    package_triton(model, tmp_path / "r", options)
    limit = datetime.fromtimestamp(1700003600, UTC)
    verify(tmp_path / "r", key_pair[1], not_before=limit)
    verify(tmp_path / "old", key_pair[1])
    with pytest.raises(
        IntegrityError, match="net/1 was made at 2023-11-14T22:13:20Z, expected not before 2023-11-14T23"
    ):
        verify(tmp_path / "old", key_pair[1], not_before=limit)
    with pytest.raises(InputError, match="is given without a key"):
        verify(tmp_path / "old", not_before=limit)

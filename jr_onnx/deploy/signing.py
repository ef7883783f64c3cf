"""Sign a manifest and check the signature, through the model-signing library (a Sigstore bundle, offline).

What is signed is the manifest file; it holds the digest of every other file. The bundle can be checked with the
library's own command line as well:

    model_signing verify key jr_onnx.manifest --signature jr_onnx.manifest.sig --public_key public.pem
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from jr_onnx.deploy.manifest import small_file
from jr_onnx.errors import InputError, IntegrityError, one_line, require
from jr_onnx.records import read_regular

_KEY_HINT = (
    "Make a pair with: openssl ecparam -name prime256v1 -genkey -noout -out key.pem, then "
    "openssl ec -in key.pem -pubout -out public.pem"
)
_LONGEST_REASON = 200
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_FOREIGN = (
    (b"BEGIN OPENSSH PRIVATE KEY", "it is a key in OpenSSH's own format"),
    (b"BEGIN CERTIFICATE", "it is a certificate"),
    (b"ENCRYPTED", "it is encrypted"),
)


def check_private_key(key: Path) -> None:
    """Refuse a key that cannot sign, before any work is done for it.

    Raises:
        InputError: The file cannot be read or holds no unencrypted private key on a supported curve.
        MissingExtraError: model-signing is not installed.
    """
    signing = _library("signing")
    try:
        read_regular(key)  # the library would wait for a pipe
        signing.Config().use_elliptic_key_signer(private_key=key)
    except OSError as error:
        raise InputError(f"cannot read the key {key}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"the key {key} cannot sign: {_problem(key, error, private=True)}; expected an unencrypted private key "
            "on an elliptic curve (P-256, P-384 or P-521) in PEM",
            hint=_KEY_HINT,
        ) from None


def sign(manifest: Path, signature: Path, key: Path) -> None:
    """Sign a manifest.

    Args:
        manifest: The manifest file.
        signature: Where the signature goes.
        key: Private key, PEM, an elliptic curve (P-256, P-384 or P-521), not encrypted.

    Raises:
        InputError: See `check_private_key`.
        MissingExtraError: model-signing is not installed.
    """
    check_private_key(key)
    _library("signing").Config().use_elliptic_key_signer(private_key=key).sign(manifest, signature)


def check_signature(manifest: Path, signature: Path, key: Path) -> bytes:
    """Check that the owner of a key signed exactly this manifest, and return the bytes that were signed.

    Both files are copied first, and the copies are checked: what is returned is what the signature holds for, whatever
    has become of the files meanwhile.

    Args:
        manifest: The manifest file.
        signature: Its signature.
        key: The public key, PEM.

    Raises:
        IntegrityError: There is no signature, or it does not fit.
        InputError: The key cannot be read.
        MissingExtraError: model-signing is not installed.
    """
    verifying = _library("verifying")
    try:
        read_regular(key)  # the library would wait for a pipe
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except OSError as error:
        raise InputError(f"cannot read the key {key}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"the key {key} cannot check a signature: {_problem(key, error, private=False)}; expected a public key "
            "on an elliptic curve (P-256, P-384 or P-521) in PEM",
            hint=_KEY_HINT,
        ) from None
    if signature.is_symlink() or not signature.is_file():
        raise IntegrityError(f"{manifest.parent} is not signed", hint="Package it with --sign KEY")
    content, bundle = small_file(manifest), small_file(signature)
    with tempfile.TemporaryDirectory(prefix="jr-onnx-signature-") as folder:
        copies = Path(folder) / manifest.name, Path(folder) / signature.name
        for copy, data in zip(copies, (content, bundle), strict=True):
            copy.write_bytes(data)
        _verify(config, *copies, named=manifest, key=key)
    return content


def _verify(config: Any, manifest: Path, signature: Path, *, named: Path, key: Path) -> None:
    try:
        # The library prints warnings about old bundles; data goes to stdout, so they do not.
        with contextlib.redirect_stdout(sys.stderr):
            config.verify(manifest, signature)
    except Exception as error:  # noqa: BLE001 - a forged bundle makes the library fail in any way it likes
        reason = one_line(error, _LONGEST_REASON)
        raise IntegrityError(f"the signature of {named} does not hold for the key {key.name}: {reason}") from None


def _problem(key: Path, error: Exception, *, private: bool) -> str:
    """Describe what is wrong with a key; the library below fails on RSA keys with an AttributeError."""
    content = read_regular(key)
    for mark, what in _FOREIGN:
        if mark in content:
            return what
    if (b"PRIVATE KEY-----" in content) != private:
        return f"it is a {'public' if private else 'private'} key"
    serialization: Any = require("cryptography.hazmat.primitives.serialization", "serve")
    try:
        if private:
            found = serialization.load_pem_private_key(content, None)
        else:
            found = serialization.load_pem_public_key(content)
    except Exception:  # noqa: BLE001 - what cannot be read is told below
        return "it holds no key in PEM that can be read"
    curve = getattr(found, "curve", None)
    if curve is not None:
        return f"it lies on the curve {curve.name}" if curve.name not in _CURVES else one_line(error, _LONGEST_REASON)
    kind = type(found).__name__.strip("_").removesuffix("PrivateKey").removesuffix("PublicKey")
    return f"it is an {kind} key" if kind[0] in "AERX" else f"it is a {kind} key"


def _library(part: str) -> Any:
    require("OpenSSL", "serve")  # model-signing needs pyOpenSSL and does not say so
    return require(f"model_signing.{part}", "serve")

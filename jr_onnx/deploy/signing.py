"""Sign a manifest and check the signature, through the model-signing library (a Sigstore bundle, offline).

What is signed is the manifest file; it holds the digest of every other file. The bundle can be checked with the
library's own command line as well:

    model_signing verify key jr_onnx.manifest --signature jr_onnx.manifest.sig --public_key public.pem
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from jr_onnx.errors import InputError, IntegrityError, one_line, require

_KEY_HINT = "Make a pair with: openssl ecparam -name prime256v1 -genkey -noout -out key.pem, then openssl ec -pubout"
_LONGEST_REASON = 200


def check_private_key(key: Path) -> None:
    """Refuse a key that cannot sign, before any work is done for it.

    Raises:
        InputError: The file cannot be read or holds no unencrypted private key on a supported curve.
        MissingExtraError: model-signing is not installed.
    """
    signing = _library("signing")
    try:
        signing.Config().use_elliptic_key_signer(private_key=key)
    except OSError as error:
        raise InputError(f"cannot read the key {key}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"the key {key} cannot sign: {error}; expected an unencrypted elliptic curve key in PEM",
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


def check_signature(manifest: Path, signature: Path, key: Path) -> None:
    """Check that the owner of a key signed exactly this manifest.

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
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except OSError as error:
        raise InputError(f"cannot read the key {key}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"the key {key} cannot check a signature: {error}; expected a public elliptic curve key in PEM",
            hint=_KEY_HINT,
        ) from None
    if signature.is_symlink() or not signature.is_file():
        raise IntegrityError(f"{manifest.parent} is not signed", hint="Package it with --sign KEY")
    try:
        # The library prints warnings about old bundles; data goes to stdout, so they do not.
        with contextlib.redirect_stdout(sys.stderr):
            config.verify(manifest, signature)
    except Exception as error:  # noqa: BLE001 - a forged bundle makes the library fail in any way it likes
        reason = one_line(error, _LONGEST_REASON)
        raise IntegrityError(f"the signature of {manifest} does not hold for the key {key.name}: {reason}") from None


def _library(part: str) -> Any:
    require("OpenSSL", "serve")  # model-signing needs pyOpenSSL and does not say so
    return require(f"model_signing.{part}", "serve")

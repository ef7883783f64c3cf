"""Which ONNX Runtime a Triton release holds, and which models that ONNX Runtime opens.

The IR version and opset are the highest each ONNX Runtime accepted when its wheel was tried with models of every
version. A release that is not in the table is judged by the nearest older one, because ONNX Runtime only ever
accepts more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jr_onnx.errors import InputError, RefusalError

DEFAULT_RELEASE = "26.08"


@dataclass(frozen=True, slots=True)
class Release:
    """One Triton release.

    Attributes:
        tag: Year and month, as in the image tag `26.08-py3`.
        onnxruntime: Version of the ONNX Runtime inside.
        ir_version: Highest IR version it opens.
        opset: Highest opset of the standard domain it opens.
    """

    tag: str
    onnxruntime: str
    ir_version: int
    opset: int


RELEASES = (
    Release("23.05", "1.15.0", 9, 19),
    Release("24.10", "1.19.2", 10, 21),
    Release("25.12", "1.23.2", 11, 23),
    Release("26.01", "1.23.2", 11, 23),
    Release("26.04", "1.24.4", 13, 25),
    Release("26.05", "1.24.4", 13, 25),
    Release("26.06", "1.24.4", 13, 25),
    Release("26.07", "1.27.0", 13, 26),
    Release("26.08", "1.28.0", 13, 26),
)
"""The releases whose ONNX Runtime is known, oldest first."""


def image(tag: str) -> str:
    """Return the container image of a release."""
    return f"nvcr.io/nvidia/tritonserver:{tag}-py3"


def find_release(tag: str) -> Release:
    """Return the release of this tag, or what is known of the nearest older one under this tag.

    Raises:
        InputError: The tag is not of the form 26.08, or older than every release in the table.
    """
    if re.fullmatch(r"[0-9]{2}\.(0[1-9]|1[0-2])", tag) is None:
        raise InputError(f"the Triton release is {tag!r}, expected year and month, for instance {DEFAULT_RELEASE}")
    older = [release for release in RELEASES if release.tag <= tag]
    if not older:
        raise InputError(f"the Triton release is {tag}, expected {RELEASES[0].tag} or a later one")
    known = older[-1]
    return Release(tag, known.onnxruntime, known.ir_version, known.opset)


def check_model(ir_version: int, opset: int, tag: str, what: str) -> Release:
    """Refuse a model that the ONNX Runtime of a Triton release would not open.

    Args:
        ir_version: The model's IR version.
        opset: The model's opset of the standard domain; 0 where it imports none.
        tag: The Triton release.
        what: How to call the model in the error.

    Raises:
        RefusalError: The IR version or the opset is too new; the hint names the release that opens it.
        InputError: See `find_release`.
    """
    release = find_release(tag)
    if ir_version <= release.ir_version and opset <= release.opset:
        return release
    found = [f"IR version {ir_version}"] if ir_version > release.ir_version else []
    found += [f"opset {opset}"] if opset > release.opset else []
    fitting = [entry.tag for entry in RELEASES if ir_version <= entry.ir_version and opset <= entry.opset]
    remedies = [f"use --triton-release {fitting[0]} or later"] if fitting else []
    if opset > release.opset:
        remedies.append(f"convert the source model to opset {release.opset} (jr-onnx rewrite --opset {release.opset})")
    if ir_version > release.ir_version:
        remedies.append(f"export the source model with IR version {release.ir_version}")
    raise RefusalError(
        f"{what} has {' and '.join(found)}, but Triton {tag} (ONNX Runtime {release.onnxruntime}) opens at most "
        f"IR version {release.ir_version} and opset {release.opset}",
        hint=f"{remedies[0][0].upper()}{remedies[0][1:]}{''.join(f', or {remedy}' for remedy in remedies[1:])}",
    )

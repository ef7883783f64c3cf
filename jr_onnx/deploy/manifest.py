"""The manifest of a package: the SHA-256 of every file, the provenance of the rewrite, and how both are checked.

    repository/                              one Triton model repository, any number of packages
      digits/                                a model
        config.pbtxt                         shared by the model's versions
        labels.txt
        1/                                   a package: one version of one model
          model.onnx
          jr_onnx.manifest                   names ../config.pbtxt, ../labels.txt and model.onnx
          jr_onnx.manifest.sig               with --sign
        2/ ...                               another package, with its own manifest

The manifest belongs to the version, so a model or version that is added later, or taken away, leaves every other
manifest and signature as it is. A manifest of kind "triton" lists files relative to the model's folder, any other
kind relative to its own. Files that all versions share stand in each version's manifest.

The signature covers the manifest's bytes and thereby name, version, date and, through the digests, every file. A
package holds in its own place alone: `<name>/<version>` directly below the repository, a deployment in the folder that
is checked. So nobody without the key can offer one model under another's name.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from jr_onnx._version import __version__
from jr_onnx.deploy.options import check_model_name
from jr_onnx.errors import InputError, IntegrityError, ModelError
from jr_onnx.opened import OpenedFile
from jr_onnx.provenance import Provenance
from jr_onnx.records import Record, dumps, loads

MANIFEST_NAME = "jr_onnx.manifest"  # not an ending that `kubectl apply -f FOLDER` would take for a resource
SIGNATURE_NAME = "jr_onnx.manifest.sig"
Kind = Literal["triton", "kserve", "compose"]
_FORMER_SCHEMA = "jr_onnx.manifest/1"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_OWN_NAMES = (MANIFEST_NAME, SIGNATURE_NAME)
_LARGEST_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class FileEntry(Record):
    """One file of a package, its path with slashes."""

    SCHEMA: ClassVar[str] = "jr_onnx.manifest_file/1"
    path: str
    length_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TritonSettings(Record):
    """What a deployment must know of a packaged model.

    Attributes:
        release: The Triton release the model was checked against.
        device: cpu or gpu.
        gpus: The GPUs the model names; none named means all the server sees.
        server_path: Where the server finds the repository, where the model needs that path to load.
        joined: The server joins requests into batches.
        joining: Why it does, or why not.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.triton_settings/2"
    release: str
    device: Literal["cpu", "gpu"]
    gpus: tuple[int, ...] = ()
    server_path: str | None = None
    joined: bool = False
    joining: str = ""


@dataclass(frozen=True, slots=True)
class Manifest(Record):
    """The whole manifest.

    Attributes:
        kind: What the package is for.
        name: Name of the model or deployment.
        version: Version of the model; None where there is none.
        created_by: Version of this package that wrote it.
        created: When, in UTC, ISO 8601 to the second.
        files: Every file of the package but the manifest and its signature, sorted by path.
        provenance: The provenance of the rewrite; None for a model that is not a retrofit and for deployments.
        triton: Settings of a model package; None for deployments.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.manifest/2"
    kind: Kind
    name: str
    version: int | None
    created_by: str
    created: str
    files: tuple[FileEntry, ...]
    provenance: Provenance | None = None
    triton: TritonSettings | None = None


def write_manifest(
    folder: Path,
    *,
    kind: Kind,
    name: str,
    version: int | None = None,
    provenance: Provenance | None = None,
    triton: TritonSettings | None = None,
) -> Path:
    """Hash the files of a freshly built package and write its manifest.

    Args:
        folder: The folder that gets the manifest: the version's folder of a model, else the package's folder.
        kind: See `Manifest`, as for the other arguments.
        name: Name of the model or deployment.
        version: Version of the model.
        provenance: Provenance of the rewrite.
        triton: Settings of a model package.

    Returns:
        The manifest's path.
    """
    base = base_of(folder, kind)
    paths = scan(folder).files
    if base != folder:
        paths |= {path for path in base.iterdir() if path.is_file()}
    entries = [_entry(path, base) for path in paths if path.name not in _OWN_NAMES]
    manifest = Manifest(
        kind=kind,
        name=name,
        version=version,
        created_by=__version__,
        created=_now(),
        files=tuple(sorted(entries, key=lambda entry: entry.path)),
        provenance=provenance,
        triton=triton,
    )
    target = folder / MANIFEST_NAME
    target.write_text(dumps(manifest) + "\n", encoding="utf-8")
    return target


def small_file(path: Path) -> bytes:
    """Read a manifest or a signature: one regular file, no link, of a bounded size.

    Raises:
        IntegrityError: It cannot be read, is something else, or is too large.
    """
    try:
        file = OpenedFile(path, "a manifest's", follow=False)
        if file.size >= _LARGEST_MANIFEST_BYTES:
            raise IntegrityError(f"{path} has {_LARGEST_MANIFEST_BYTES} bytes or more, no manifest has")
        return file.read(0, file.size)
    except ModelError as error:
        raise IntegrityError(error.message) from None


def read_manifest(path: Path) -> Manifest:
    """Read a manifest without checking the files it lists.

    Raises:
        IntegrityError: It cannot be read or is not a manifest.
    """
    return parse_manifest(small_file(path), path)


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """Parse the bytes of a manifest.

    Raises:
        IntegrityError: They are not a manifest.
    """
    try:
        manifest = loads(Manifest, content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise IntegrityError(f"cannot read the manifest {path}: {error}") from None
    except RecursionError:
        raise IntegrityError(f"cannot read the manifest {path}: it is nested too deeply") from None
    except InputError as error:
        if glance(path).schema == _FORMER_SCHEMA:
            raise IntegrityError(
                f"the manifest {path} has the form of an earlier version, which neither dated packages nor held them "
                "to their place in a repository",
                hint="Package the model again: jr-onnx package triton --force, with the same name, version and --sign",
            ) from None
        raise IntegrityError(f"cannot read the manifest {path}: {error.message}") from None
    _check_words(manifest, path)
    seen: set[str] = set()
    for entry in manifest.files:
        _check_path(entry.path, manifest, path)
        if entry.path in seen:
            raise IntegrityError(f"the manifest {path} names {entry.path!r} twice")
        seen.add(entry.path)
    return manifest


@dataclass(frozen=True, slots=True)
class Scan:
    """The contents of a folder: regular files, folders, and others."""

    files: set[Path]
    folders: set[Path]
    problems: list[str]


def scan(root: Path) -> Scan:
    """Find everything below a folder, following no link."""
    if not root.is_dir():
        raise IntegrityError(
            f"the package {root} is not a folder", hint="Give what jr-onnx package triton or compose wrote"
        )
    result = Scan(set(), set(), [])
    pending = [root]
    while pending:
        current = pending.pop()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            raise IntegrityError(f"cannot read the folder {current}: {error.strerror}") from None
        for entry in entries:
            path = Path(entry.path)
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                result.folders.add(path)
                pending.append(path)
            elif stat.S_ISREG(mode):
                result.files.add(path)
            else:
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
                result.problems.append(f"{show(path, root)} is {kind}, expected a regular file")
    return result


def moment(text: str) -> datetime:
    """Read the time of a manifest, in exactly the form in which one is written."""
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)


def _now() -> str:
    """Return the time for a manifest; SOURCE_DATE_EPOCH fixes it for reproducible builds."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.fromtimestamp(int(fixed), UTC) if fixed.isdecimal() else datetime.now(UTC)
    return now.strftime(_TIME)


def _check_words(manifest: Manifest, where: Path) -> None:
    """Refuse names and numbers that no package has; they are shown to people and compared with what they expect."""
    try:
        check_model_name(manifest.name)
        moment(manifest.created)
    except (InputError, ValueError) as error:
        reason = error.message if isinstance(error, InputError) else f"it was made at {manifest.created!r}"
        raise IntegrityError(f"cannot read the manifest {where}: {reason}") from None
    has_version = manifest.version is not None
    if has_version != (manifest.kind == "triton") or (manifest.version is not None and manifest.version < 1):
        raise IntegrityError(
            f"cannot read the manifest {where}: a {manifest.kind} package of version {manifest.version}, expected "
            "one of 1 or more for triton and none for a deployment"
        )


@dataclass(frozen=True, slots=True)
class Glance:
    """The unverified header of a manifest of any version: for replacing a package, never for trust."""

    schema: str = ""
    kind: str = ""
    paths: frozenset[str] = frozenset()


def glance(path: Path) -> Glance:
    """Read a manifest of this or an earlier version; nothing is checked, and what is not a manifest is empty."""
    try:
        document = json.loads(small_file(path))
        paths = frozenset(str(entry["path"]) for entry in document["files"])
        return Glance(str(document["schema"]), str(document["kind"]), paths)
    except (IntegrityError, ValueError, KeyError, TypeError, RecursionError):
        return Glance()


def _check_path(text: str, manifest: Manifest, where: Path) -> None:
    """Refuse a path that leaves the package, or that reaches into another version of the model."""
    path = PurePosixPath(text)
    plain = text == str(path) and not path.is_absolute() and ".." not in path.parts and path.parts != ()
    if not plain or "\x00" in text or path.name in _OWN_NAMES:
        raise IntegrityError(f"the manifest {where} names {text!r}, expected a plain path inside the package")
    if manifest.kind == "triton" and len(path.parts) > 1 and path.parts[0] != str(manifest.version):
        raise IntegrityError(f"the manifest {where} names {text!r}, which is not of version {manifest.version}")


def base_of(folder: Path, kind: Kind) -> Path:
    """Return the folder that the paths of a manifest are relative to."""
    return folder.parent if kind == "triton" else folder


def _entry(path: Path, base: Path) -> FileEntry:
    length, digest = digest_of(path)
    return FileEntry(path.relative_to(base).as_posix(), length, digest)


def digest_of(path: Path) -> tuple[int, str]:
    """Return length and SHA-256 of a regular file, never following a link that took its place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return stream.tell(), digest
    except OSError as error:
        raise IntegrityError(f"cannot read {path}: {error.strerror}") from None


def show(path: Path, root: Path) -> str:
    """Return a path below the root, with anything unprintable escaped."""
    return ascii(str(path.relative_to(root)))[1:-1]

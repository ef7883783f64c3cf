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

The signature covers the manifest's bytes and thereby, through the digests, every file.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from jr_onnx._version import __version__
from jr_onnx.errors import InputError, IntegrityError
from jr_onnx.provenance import Provenance
from jr_onnx.records import Record, dumps, loads

MANIFEST_NAME = "jr_onnx.manifest"  # no ending that `kubectl apply -f FOLDER` would take for a resource
SIGNATURE_NAME = "jr_onnx.manifest.sig"
Kind = Literal["triton", "kserve", "compose"]
_OWN_NAMES = (MANIFEST_NAME, SIGNATURE_NAME)
_LARGEST_MANIFEST_BYTES = 64 << 20
_PROBLEMS_SHOWN = 5


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
        files: Every file of the package but the manifest and its signature, sorted by path.
        provenance: The provenance of the rewrite; None for a model that is no retrofit and for deployments.
        triton: Settings of a model package; None for deployments.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.manifest/1"
    kind: Kind
    name: str
    version: int | None
    created_by: str
    files: tuple[FileEntry, ...]
    provenance: Provenance | None = None
    triton: TritonSettings | None = None


@dataclass(frozen=True, slots=True)
class VerifiedPackage:
    """A package whose manifest holds.

    Attributes:
        folder: Where the manifest lies.
        base: The folder its paths are relative to.
        manifest: The manifest; its digests may be compared with what is loaded later.
        signed: A signature lies beside it.
        signature_checked: That signature was checked with a key.
    """

    folder: Path
    base: Path
    manifest: Manifest
    signed: bool
    signature_checked: bool

    @property
    def label(self) -> str:
        """Name and version, for instance `digits/1`."""
        version = self.manifest.version
        return self.manifest.name if version is None else f"{self.manifest.name}/{version}"


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
    base = _base(folder, kind)
    paths = _scan(folder).files
    if base != folder:
        paths |= {path for path in base.iterdir() if path.is_file()}
    entries = [_entry(path, base) for path in paths if path.name not in _OWN_NAMES]
    manifest = Manifest(
        kind=kind,
        name=name,
        version=version,
        created_by=__version__,
        files=tuple(sorted(entries, key=lambda entry: entry.path)),
        provenance=provenance,
        triton=triton,
    )
    target = folder / MANIFEST_NAME
    target.write_text(dumps(manifest) + "\n", encoding="utf-8")
    return target


def verify(folder: str | Path, key: str | Path | None = None) -> tuple[VerifiedPackage, ...]:
    """Check every package below a folder against its manifest.

    Found are: a file that was changed, is missing, or that no manifest names; a symbolic link or special file; an
    empty folder; a manifest that does not belong to the place where it lies; and, with a key, a missing or wrong
    signature. A whole package that was taken away cannot be noticed here: compare the answer with what you expect.

    Args:
        folder: A model repository, one model or one version in it, or a deployment package.
        key: File with the public key (PEM, an elliptic curve); every package must then be signed by its owner.

    Returns:
        The packages, sorted by place.

    Raises:
        IntegrityError: Something does not hold; the message lists it.
        InputError: The key cannot be read.
        MissingExtraError: A key was given and model-signing is not installed.
    """
    root = Path(folder)
    try:
        root = root.resolve(strict=True)
    except OSError as error:
        raise IntegrityError(f"cannot read the package {folder}: {error.strerror}") from None
    found = _scan(root)
    manifests = sorted(path for path in found.files if path.name == MANIFEST_NAME)
    if not manifests:
        raise IntegrityError(f"{folder} holds no {MANIFEST_NAME}", hint="Make it with: jr-onnx package triton")
    problems = list(found.problems)
    packages = [_check_package(path, key, problems) for path in manifests]
    covered = {path for package in packages if package for path in _covered(package)} | set(manifests)
    # Where a manifest cannot be used, it alone is the problem, not each file that it may have named.
    unusable = [path.parent for path, package in zip(manifests, packages, strict=True) if package is None]
    unknown = [path for path in sorted(found.files - covered) if not _may_belong(path, unusable)]
    problems += [f"{_show(path, root)} is in no manifest" for path in unknown]
    occupied = {parent for path in found.files for parent in path.parents}
    problems += [f"the folder {_show(path, root)} is empty" for path in sorted(found.folders - occupied)]
    problems = list(dict.fromkeys(problems))  # a file that versions share is named by the manifest of each
    if problems:
        more = len(problems) - _PROBLEMS_SHOWN
        listed = "; ".join(problems[:_PROBLEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise IntegrityError(f"the package {folder} does not match its manifest: {listed}")
    return tuple(package for package in packages if package)


def expect_packages(packages: Iterable[VerifiedPackage], labels: Iterable[str]) -> None:
    """Refuse an answer of `verify` that lacks one of these packages, named like `digits/1`.

    Raises:
        IntegrityError: A package is missing.
    """
    there = [package.label for package in packages]
    missing = [label for label in labels if label not in there]
    if missing:
        raise IntegrityError(f"the package {missing[0]} is missing, found {', '.join(there)}")


def read_manifest(path: Path) -> Manifest:
    """Read a manifest without checking the files it lists.

    Raises:
        IntegrityError: It cannot be read or is not a manifest.
    """
    try:
        if path.stat().st_size > _LARGEST_MANIFEST_BYTES:
            raise IntegrityError(f"{path} is larger than {_LARGEST_MANIFEST_BYTES} bytes, no manifest is")
        manifest = loads(Manifest, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise IntegrityError(f"cannot read the manifest {path}: {error}") from None
    except RecursionError:
        raise IntegrityError(f"cannot read the manifest {path}: it is nested too deeply") from None
    except InputError as error:
        raise IntegrityError(f"cannot read the manifest {path}: {error.message}") from None
    seen: set[str] = set()
    for entry in manifest.files:
        _check_path(entry.path, manifest, path)
        if entry.path in seen:
            raise IntegrityError(f"the manifest {path} names {entry.path!r} twice")
        seen.add(entry.path)
    return manifest


@dataclass(frozen=True, slots=True)
class _Scan:
    files: set[Path]
    folders: set[Path]
    problems: list[str]


def _scan(root: Path) -> _Scan:
    """Find everything below a folder, following no link."""
    if not root.is_dir():
        raise IntegrityError(f"the package {root} is not a folder")
    result = _Scan(set(), set(), [])
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
                result.problems.append(f"{_show(path, root)} is {kind}, expected a regular file")
    return result


def _check_package(path: Path, key: str | Path | None, problems: list[str]) -> VerifiedPackage | None:
    """Check one package, adding what does not hold to `problems`; None where the manifest itself is unusable."""
    try:
        # The signature first: what an unsigned manifest says is not worth parsing where a key was given.
        signature = path.with_name(SIGNATURE_NAME)
        if key is not None:
            from jr_onnx.deploy.signing import check_signature

            check_signature(path, signature, Path(key))
        manifest = read_manifest(path)
    except IntegrityError as error:
        problems.append(str(error))
        return None
    folder = path.parent
    base = _base(folder, manifest.kind)
    if manifest.kind == "triton" and (folder.name, base.name) != (str(manifest.version), manifest.name):
        problems.append(
            f"the manifest {path} is for {manifest.name}/{manifest.version}, found in {base.name}/{folder.name}"
        )
    for entry in manifest.files:
        problem = _check_file(base, entry)
        if problem:
            problems.append(problem)
    return VerifiedPackage(folder, base, manifest, signature.exists(), key is not None)


def _check_file(base: Path, entry: FileEntry) -> str:
    path = base / entry.path
    shown = f"{base.name}/{entry.path}"
    current = base
    for part in PurePosixPath(entry.path).parts:
        current = current / part
        if current.is_symlink():
            return f"{shown} is reached through a symbolic link"
    if not path.is_file():
        return f"{shown} is missing"
    length, digest = _digest(path)
    if length != entry.length_bytes:
        return f"{shown} was changed ({length} bytes, expected {entry.length_bytes})"
    if digest != entry.sha256:
        return f"{shown} was changed (SHA-256 {digest[:12]}..., expected {entry.sha256[:12]}...)"
    return ""


def _may_belong(path: Path, folders: list[Path]) -> bool:
    """Return whether a file lies in one of these packages, or beside its folder where versions share files."""
    return any(path.is_relative_to(folder) or path.parent == folder.parent for folder in folders)


def _covered(package: VerifiedPackage) -> Iterable[Path]:
    yield package.folder / SIGNATURE_NAME
    for entry in package.manifest.files:
        yield package.base / entry.path


def _check_path(text: str, manifest: Manifest, where: Path) -> None:
    """Refuse a path that leaves the package, or that reaches into another version of the model."""
    path = PurePosixPath(text)
    plain = text == str(path) and not path.is_absolute() and ".." not in path.parts and path.parts != ()
    if not plain or "\x00" in text or path.name in _OWN_NAMES:
        raise IntegrityError(f"the manifest {where} names {text!r}, expected a plain path inside the package")
    if manifest.kind == "triton" and len(path.parts) > 1 and path.parts[0] != str(manifest.version):
        raise IntegrityError(f"the manifest {where} names {text!r}, which is not of version {manifest.version}")


def _base(folder: Path, kind: Kind) -> Path:
    return folder.parent if kind == "triton" else folder


def _entry(path: Path, base: Path) -> FileEntry:
    length, digest = _digest(path)
    return FileEntry(path.relative_to(base).as_posix(), length, digest)


def _digest(path: Path) -> tuple[int, str]:
    """Return length and SHA-256 of a regular file, never following a link that took its place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return stream.tell(), digest
    except OSError as error:
        raise IntegrityError(f"cannot read {path}: {error.strerror}") from None


def _show(path: Path, root: Path) -> str:
    """Return a path below the root, with anything unprintable escaped."""
    return ascii(str(path.relative_to(root)))[1:-1]

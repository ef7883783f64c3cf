"""Check packages: every file against its manifest, the manifest against its place, its date and its signature."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from jr_onnx.deploy.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    FileEntry,
    Manifest,
    base_of,
    digest_of,
    moment,
    parse_manifest,
    scan,
    show,
    small_file,
)
from jr_onnx.errors import InputError, IntegrityError, printable

_PROBLEMS_SHOWN = 5


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


def verify(
    folder: str | Path, key: str | Path | None = None, *, not_before: datetime | None = None
) -> tuple[VerifiedPackage, ...]:
    """Check every package below a folder against its manifest.

    Found are: a file that was changed, is missing, or that no manifest names; a symbolic link or special file; an
    empty folder; a manifest that does not belong to the place where it lies; with a key, a missing or wrong signature;
    and with a date, a package that is older. A whole package that was taken away cannot be noticed here: compare the
    answer with what you expect.

    Args:
        folder: A model repository, one model or one version in it, or a deployment package.
        key: File with the public key (PEM, an elliptic curve); every package must then be signed by its owner.
        not_before: Refuse packages made earlier, so that an older signed one cannot take the place of a newer one.

    Returns:
        The packages, sorted by place.

    Raises:
        IntegrityError: Something does not hold; the message lists it.
        InputError: The key cannot be read, or a date was given without a key.
        MissingExtraError: A key was given and model-signing is not installed.
    """
    if not_before is not None and key is None:
        raise InputError(
            "the earliest date (not_before) is given without a key: a date that no signature covers proves nothing",
            hint="Give --key PUBLIC.pem too",
        )
    root = Path(folder)
    try:
        root = root.resolve(strict=True)
    except OSError as error:
        raise IntegrityError(f"cannot read the package {folder}: {error.strerror}") from None
    found = scan(root)
    manifests = sorted(path for path in found.files if path.name == MANIFEST_NAME)
    if not manifests:
        raise IntegrityError(f"{folder} holds no {MANIFEST_NAME}", hint="Make it with: jr-onnx package triton")
    problems = list(found.problems)
    packages = [_check_package(path, key, root, not_before, problems) for path in manifests]
    covered = {path for package in packages if package for path in _covered(package)} | set(manifests)
    # Where a manifest cannot be used, it alone is the problem, not each file that it may have named.
    unusable = [path.parent for path, package in zip(manifests, packages, strict=True) if package is None]
    unknown = [path for path in sorted(found.files - covered) if not _may_belong(path, unusable)]
    problems += [f"{show(path, root)} is in no manifest" for path in unknown]
    occupied = {parent for path in found.files for parent in path.parents}
    problems += [f"the folder {show(path, root)} is empty" for path in sorted(found.folders - occupied)]
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


def _check_package(
    path: Path, key: str | Path | None, root: Path, not_before: datetime | None, problems: list[str]
) -> VerifiedPackage | None:
    """Check one package, adding what does not hold to `problems`; None where the manifest itself is unusable."""
    try:
        # The signature first: what an unsigned manifest says is not worth parsing where a key was given.
        signature = path.with_name(SIGNATURE_NAME)
        if key is not None:
            from jr_onnx.deploy.signing import check_signature

            content = check_signature(path, signature, Path(key))
        else:
            content = small_file(path)
        manifest = parse_manifest(content, path)
    except IntegrityError as error:
        problems.append(str(error))
        return None
    folder = path.parent
    base = base_of(folder, manifest.kind)
    problem = _misplaced(manifest, folder, root) or _too_old(manifest, not_before)
    if problem:
        problems.append(problem)
    for entry in manifest.files:
        problem = _check_file(base, entry)
        if problem:
            problems.append(problem)
    return VerifiedPackage(folder, base, manifest, signature.exists(), key is not None)


def _misplaced(manifest: Manifest, folder: Path, root: Path) -> str:
    """Return why a manifest does not belong where it lies, "" where it does."""
    place = show(folder, root) if folder != root else "."
    if manifest.kind != "triton":
        if folder == root:
            return ""
        return f"the {manifest.kind} deployment {manifest.name} lies in {place}, expected in a folder of its own"
    base, label = folder.parent, f"{manifest.name}/{manifest.version}"
    if (base.name, folder.name) != (manifest.name, str(manifest.version)):
        found = printable(f"{base.name}/{folder.name}")
        return f"the manifest {printable(str(folder / MANIFEST_NAME))} is for {label}, found in {found}"
    if root not in (folder, base, base.parent):
        return f"the package {label} lies in {place}, expected directly below the repository"
    return ""


def _too_old(manifest: Manifest, not_before: datetime | None) -> str:
    if not_before is None or moment(manifest.created) >= not_before:
        return ""
    label = manifest.name if manifest.version is None else f"{manifest.name}/{manifest.version}"
    wanted = not_before.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"the package {label} was made at {manifest.created}, expected not before {wanted}"


def _check_file(base: Path, entry: FileEntry) -> str:
    path = base / entry.path
    shown = printable(f"{base.name}/{entry.path}")
    current = base
    for part in PurePosixPath(entry.path).parts:
        current = current / part
        if current.is_symlink():
            return f"{shown} is reached through a symbolic link"
    if not path.is_file():
        return f"{shown} is missing"
    length, digest = digest_of(path)
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

"""The models that can be loaded: model files and packages of repositories, found and verified, not yet opened.

repository/<name>/<version>/model.onnx     what `jr-onnx package triton` writes
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jr_onnx.deploy.verification import VerifiedPackage, verify
from jr_onnx.errors import InputError, IntegrityError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_ENDINGS = (".onnx", ".ort", ".jr", ".opt")
_MODEL_FILE = "model.onnx"
_ONLY_VERSION = "1"


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One version of one model.

    Attributes:
        name: Name of the model.
        version: Its version, a number as text.
        path: The model file.
        digests: SHA-256 of the files beside the model, by path relative to its folder; None for a file alone.
        shared: SHA-256 of the files that all versions of the model share, by name; None for a file alone.
    """

    name: str
    version: str
    path: Path
    digests: Mapping[str, str] | None = None
    shared: Mapping[str, str] | None = None


class Catalogue:
    """All models that can be loaded: those given at the start, and those added to repositories since.

    Args:
        sources: Model files, `NAME=FILE`, and repositories.
        key: Public key that every package must be signed for.
        not_before: Refuse packages made earlier; needs a key.
        all_versions: Serve all versions of a packaged model instead of the latest.

    Raises:
        InputError: A source does not exist, has no usable name, or two have the same.
        IntegrityError: A repository does not match its manifests.
    """

    def __init__(
        self,
        sources: Iterable[str],
        *,
        key: Path | None = None,
        not_before: datetime | None = None,
        all_versions: bool = False,
    ) -> None:
        self._key = key
        self._not_before = not_before
        self._all_versions = all_versions
        self._files: dict[str, CatalogueEntry] = {}
        self._repositories: list[Path] = []
        for source in sources:
            self._add(source)

    def names(self) -> list[str]:
        """Return the names of all models, including those added to a repository since the start."""
        names = set(self._files)
        for repository in self._repositories:
            names.update(
                folder.name for folder in repository.iterdir() if folder.is_dir() and _NAME.fullmatch(folder.name)
            )
        return sorted(names)

    def find(self, name: str) -> list[CatalogueEntry]:
        """Return the versions of a model that are to be served, oldest first; none if there is no such model.

        Raises:
            IntegrityError: The model's packages do not match their manifests.
        """
        if name in self._files:
            return [self._files[name]]
        if not _NAME.fullmatch(name):
            return []
        for repository in self._repositories:
            folder = repository / name
            if folder.is_symlink():
                raise IntegrityError(f"the package {folder} is a symbolic link, expected a folder")
            if folder.is_dir():
                entries = self._verified(repository / name, repository)
                entries.sort(key=lambda entry: int(entry.version))
                return entries if self._all_versions else entries[-1:]
        return []

    def _add(self, source: str) -> None:
        name, separator, rest = source.partition("=")
        has_name = bool(separator) and not Path(source).exists()
        path = Path(rest if has_name else source)
        if path.is_dir():
            if has_name:
                raise InputError(f"{source!r} gives a name to a repository, expected one of a file")
            self._add_repository(path)
        elif path.is_file():
            if self._key is not None:
                raise IntegrityError(
                    f"a key was given, but the single file {path} carries no signature",
                    hint="Package it with: jr-onnx package triton --sign KEY",
                )
            self._add_file(name if has_name else _name_of(path), path)
        else:
            raise InputError(f"there is no model file or repository {path}")

    def _add_file(self, name: str, path: Path) -> None:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{name!r} is not a valid model name, expected letters, digits, '_', '-' and '.'",
                hint=f"Give one: NAME={path}",
            )
        self._refuse_twice(name, path)
        self._files[name] = CatalogueEntry(name, _ONLY_VERSION, path.resolve())

    def _add_repository(self, path: Path) -> None:
        repository = path.resolve()
        self._verified(repository, repository)
        for folder in sorted(repository.iterdir()):
            if folder.is_dir():
                self._refuse_twice(folder.name, folder)
        self._repositories.append(repository)

    def _verified(self, folder: Path, repository: Path) -> list[CatalogueEntry]:
        """Verify the packages in a folder, and return them by the names of their manifests.

        A manifest's name is that of its folder, which `verify` holds it to; and the folder must lie in the repository
        itself, or a copy of one model inside another's folder would be offered under the other's name.
        """
        packages = verify(folder, self._key, not_before=self._not_before)
        for package in packages:
            if package.manifest.kind == "triton" and package.base.parent != repository:
                raise IntegrityError(
                    f"the package {package.label} lies in {package.base.parent}, expected directly below {repository}",
                    hint="Serve the repository that jr-onnx package triton wrote",
                )
        return [_entry(package) for package in packages]

    def _refuse_twice(self, name: str, path: Path) -> None:
        if name in self.names():
            raise InputError(f"there are two models of the name {name!r}, the second is {path}", hint="Give NAME=FILE")


def _entry(package: VerifiedPackage) -> CatalogueEntry:
    path = package.folder / _MODEL_FILE
    if package.manifest.kind != "triton" or package.manifest.version is None or not path.is_file():
        raise InputError(
            f"{package.folder} holds no model but a package of kind {package.manifest.kind!r}",
            hint="Serve the repository that jr-onnx package triton wrote",
        )
    inside = f"{package.folder.relative_to(package.base).as_posix()}/"
    digests = {
        item.path.removeprefix(inside): item.sha256 for item in package.manifest.files if item.path.startswith(inside)
    }
    shared = {item.path: item.sha256 for item in package.manifest.files if "/" not in item.path}
    return CatalogueEntry(package.manifest.name, str(package.manifest.version), path, digests, shared)


def _name_of(path: Path) -> str:
    name = path.name
    while True:
        ending = next((ending for ending in _ENDINGS if name.endswith(ending) and name != ending), None)
        if ending is None:
            return _NOT_IN_NAME.sub("_", name)
        name = name.removesuffix(ending)

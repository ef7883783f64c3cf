"""The models that are loaded, by name and version; loading and unloading while requests go on."""

from __future__ import annotations

import asyncio
from typing import Any

from jr_onnx.errors import IntegrityError, JrError
from jr_onnx.serve.catalogue import Catalogue, CatalogueEntry
from jr_onnx.serve.faults import ForbiddenError, LoadError, UnknownError, log_failure, quoted
from jr_onnx.serve.kserve_import import kserve_module
from jr_onnx.serve.model import ServedModel
from jr_onnx.serve.options import Limits, Running
from jr_onnx.serve.workers import loading

_repository: Any = kserve_module("kserve.model_repository")
_extension: Any = kserve_module("kserve.protocol.model_repository_extension")
_POLL_S = 0.01


class Registry(_repository.ModelRepository):  # type: ignore[misc] # kserve has no type information
    """Loaded models; `models` of the base class holds the latest version of each.

    Args:
        catalogue: What can be loaded.
        running: How models run.
        limits: How much requests may ask for.
    """

    def __init__(self, catalogue: Catalogue, running: Running, limits: Limits) -> None:
        super().__init__("")
        self._catalogue = catalogue
        self._running = running
        self._limits = limits
        self._versions: dict[str, dict[str, ServedModel]] = {}
        self._loading = asyncio.Lock()

    def find(self, name: str, version: str = "") -> ServedModel:
        """Return a loaded model, its latest version where none is named.

        Raises:
            UnknownError: It is not loaded.
        """
        versions = self._versions.get(name)
        if versions is None:
            raise UnknownError(f"there is no model {quoted(name)}")
        model = versions.get(version) if version else self.models.get(name)
        if not isinstance(model, ServedModel):
            raise UnknownError(f"model {quoted(name)} has no version {quoted(version)}, only {', '.join(versions)}")
        return model

    def all(self) -> list[ServedModel]:
        """Return every version of every loaded model."""
        return [model for versions in self._versions.values() for model in versions.values()]

    def available(self) -> list[str]:
        """Return the names of all models that are loaded or can be."""
        return sorted({*self._catalogue.names(), *self._versions})

    def open_all(self) -> list[ServedModel]:
        """Open everything in the catalogue, before the server starts."""
        for name in self._catalogue.names():
            entries = self._catalogue.find(name)
            self._install(name, [self._open(entry) for entry in entries])
        return self.all()

    async def load(self, name: str) -> None:
        """Load or reload a model; requests to the old one are still answered by it.

        Raises:
            UnknownError: There is no such model.
            LoadError: It cannot be opened, or its package does not match its manifest; the log says why.
        """
        async with self._loading:
            models = await loading(self._open_for_client, name)
            old = list(self._versions.get(name, {}).values())
            self._install(name, models)
        await _finish(old)

    async def unload_model(self, name: str) -> None:
        """Unload a model after the answers to its requests; one that is not loaded stays so.

        Raises:
            UnknownError: There is no such model.
        """
        if name not in self._versions:
            if name in await asyncio.to_thread(self.available):
                return
            raise UnknownError(f"there is no model {quoted(name)}")
        old = list(self._versions.pop(name).values())
        self.models.pop(name, None)
        await _finish(old)

    def _open_for_client(self, name: str) -> list[ServedModel]:
        """Open a model at a client's request; errors of files, with their paths, go to the log alone."""
        try:
            return self._open_model(name)
        except UnknownError:
            raise
        except (JrError, OSError) as error:
            log_failure(f"model {quoted(name)} cannot be loaded: {error}")
            why = "does not match its manifest" if isinstance(error, IntegrityError) else "is not usable"
            raise LoadError(f"the package or file of model {quoted(name)} {why}", hint="See the server's log") from None

    def _open_model(self, name: str) -> list[ServedModel]:
        entries = self._catalogue.find(name)
        if not entries:
            raise UnknownError(f"there is no model {quoted(name)} to load")
        return [self._open(entry) for entry in entries]

    def _open(self, entry: CatalogueEntry) -> ServedModel:
        return ServedModel(
            entry.name, entry.version, entry.path, self._running, self._limits, entry.digests, entry.shared
        )

    def _install(self, name: str, models: list[ServedModel]) -> None:
        if models:
            self._versions[name] = {model.version: model for model in models}
            self.update(models[-1], name)


class RepositoryExtension(_extension.ModelRepositoryExtension):  # type: ignore[misc] # kserve has no type information
    """The protocol's repository extension over both transports.

    Args:
        registry: The models.
        allowed: Clients may load and unload.
    """

    def __init__(self, registry: Registry, *, allowed: bool) -> None:
        super().__init__(registry)
        self._registry = registry
        self._allowed = allowed

    async def index(self, filter_ready: bool = False) -> list[dict[str, str]]:
        """List the loaded models and, unless `filter_ready`, those that can be loaded."""
        rows = [{"name": model.name, "version": model.version, "state": "READY"} for model in self._registry.all()]
        loaded = {row["name"] for row in rows}
        if not filter_ready:
            names = await asyncio.to_thread(self._registry.available)
            rows += [
                {"name": name, "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
                for name in names
                if name not in loaded
            ]
        return sorted(rows, key=lambda row: (row["name"], row["version"]))

    async def load(self, model_name: str) -> None:
        """Load a model; see `Registry.load`."""
        self._refuse_unless_allowed()
        await self._registry.load(model_name)

    async def unload(self, model_name: str) -> None:
        """Unload a model; see `Registry.unload_model`."""
        self._refuse_unless_allowed()
        await self._registry.unload_model(model_name)

    def _refuse_unless_allowed(self) -> None:
        if not self._allowed:
            raise ForbiddenError("models of this server stay as they are", hint="Start it with --model-control")


async def _finish(models: list[ServedModel]) -> None:
    """Close models after the last answer; every request is bounded by its timeout, so this ends."""
    while any(model.pending for model in models):
        await asyncio.sleep(_POLL_S)
    for model in models:
        model.stop()

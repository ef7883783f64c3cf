"""The extensions over REST, as one table of paths; `rest` looks up here what it does not answer itself.

GET       /v2/models/NAME[/versions/V]/config   .../stats        GET /v2/models/stats
GET POST  /v2/trace/setting   /v2/models/NAME/trace/setting   /v2/logging
GET       /v2/systemsharedmemory[/region/NAME]/status            likewise cudasharedmemory
POST      /v2/systemsharedmemory/region/NAME/register   .../systemsharedmemory[/region/NAME]/unregister
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from jr_onnx.records import JsonValue
from jr_onnx.serve.dataplane import DataPlane
from jr_onnx.serve.extensions import forms
from jr_onnx.serve.extensions.statistics import all_forms
from jr_onnx.serve.faults import UnknownError, quoted

_MEMORIES: Final = ("systemsharedmemory", "cudasharedmemory")

Answer = Callable[[dict[str, JsonValue]], JsonValue]
"""Answers a request whose body is a JSON object."""


class Extensions:
    """Answers the extensions' requests.

    Args:
        dataplane: The models.
    """

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane

    def find(self, parts: list[str]) -> dict[str, Answer] | None:
        """Return what answers a path, by HTTP method; None for a path of no extension.

        Args:
            parts: The path's parts behind `/v2`.

        Raises:
            UnknownError: The path names a model that is not loaded.
        """
        if parts[:1] == ["models"]:
            return self._of_model(parts[1:])
        if parts == ["trace", "setting"]:
            return _settings("trace", forms.TRACE)
        if parts == ["logging"]:
            return _settings("log", forms.log_settings())
        if parts and parts[0] in _MEMORIES:
            return _shared_memory(parts[1:])
        return None

    def _of_model(self, parts: list[str]) -> dict[str, Answer] | None:
        if parts == ["stats"] and all(model.name != "stats" for model in self._dataplane.all()):
            return {"GET": lambda _: all_forms(self._dataplane.all())}
        if parts[-2:] == ["trace", "setting"] and len(parts) == 3:
            self._dataplane.find(parts[0])
            return _settings("trace", forms.TRACE)
        if len(parts) < 2 or parts[-1] not in ("config", "stats"):
            return None
        name, version = model_of(parts[:-1])
        model = self._dataplane.find(name, version)
        if parts[-1] == "config":
            return {"GET": lambda _: forms.configuration(model)}
        models = [model] if version else [other for other in self._dataplane.all() if other.name == name]
        return {"GET": lambda _: all_forms(models)}


def model_of(parts: list[str]) -> tuple[str, str]:
    """Return name and version of NAME or NAME/versions/VERSION.

    Raises:
        UnknownError: It is neither.
    """
    if len(parts) == 1 and parts[0]:
        return parts[0], ""
    if len(parts) == 3 and parts[1] == "versions" and parts[2]:
        return parts[0], parts[2]
    raise UnknownError(f"there is no path {quoted('/v2/models/' + '/'.join(parts))}")


def _settings(what: str, kept: dict[str, JsonValue]) -> dict[str, Answer]:
    return {"GET": lambda _: kept, "POST": lambda wanted: forms.keep_settings(what, wanted, kept)}


def _shared_memory(parts: list[str]) -> dict[str, Answer] | None:
    named = parts[:1] == ["region"] and len(parts) == 3
    action = parts[-1] if named or len(parts) == 1 else ""
    name = parts[1] if named else ""

    def status(_: dict[str, JsonValue]) -> JsonValue:
        forms.expect_no_region(name)
        return []

    def register(_: dict[str, JsonValue]) -> None:
        forms.refuse_shared_memory()

    if action == "status":
        return {"GET": status}
    if action == "register" and named:
        return {"POST": register}
    if action == "unregister":
        return {"POST": lambda _: {}}  # there is nothing to unregister, which is what the client wants
    return None

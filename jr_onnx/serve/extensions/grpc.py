"""The extensions over gRPC, and gRPC's health service, as lines of the server's table of methods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from google.protobuf import json_format

from jr_onnx.records import JsonValue
from jr_onnx.serve.dataplane import DataPlane
from jr_onnx.serve.extensions import forms
from jr_onnx.serve.extensions.messages import message
from jr_onnx.serve.extensions.statistics import all_forms
from jr_onnx.serve.faults import UnknownError, quoted
from jr_onnx.serve.grpc_call import GrpcCall
from jr_onnx.serve.grpc_method import Method, parser
from jr_onnx.serve.repository import RepositoryExtension

HEALTH: Final = "grpc.health.v1.Health"
_WATCH_S: Final = 0.5  # between two checks for a watcher
_VALUES: Final = {bool: "bool_param", int: "uint32_param", str: "string_param"}


class ExtensionService:
    """Answers the extensions' requests.

    Args:
        service: Name of the inference service.
        dataplane: The models.
        extension: What can be loaded.
    """

    def __init__(self, service: str, dataplane: DataPlane, extension: RepositoryExtension) -> None:
        self._service = service
        self._dataplane = dataplane
        self._extension = extension

    def methods(self) -> dict[str, Method]:
        """Return the methods by path."""
        table = {
            "ModelConfig": self._config,
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
            "TraceSetting": self._trace,
            "LogSettings": self._log,
        }
        found = {f"/{self._service}/{name}": _method(f"{name}Request", answer) for name, answer in table.items()}
        for memory in ("SystemSharedMemory", "CudaSharedMemory"):
            for action, answer in (("Status", _status), ("Register", _register), ("Unregister", _unregister)):
                name = f"{memory}{action}"
                found[f"/{self._service}/{name}"] = _method(f"{name}Request", answer(f"{name}Response"))
        check = parser(message("HealthCheckRequest"))
        found[f"/{HEALTH}/Check"] = Method(check, self._check, is_open=True)
        found[f"/{HEALTH}/Watch"] = Method(check, self._watch, streams=True)
        return found

    async def _config(self, request: Any, call: GrpcCall) -> Any:
        del call
        form = forms.configuration(self._dataplane.find(request.name, request.version))
        return _filled("ModelConfigResponse", {"config": form})

    async def _statistics(self, request: Any, call: GrpcCall) -> Any:
        del call
        models = self._dataplane.all()
        if request.name:
            wanted = self._dataplane.find(request.name, request.version)
            models = [
                model for model in models if model is wanted or (model.name == request.name and not request.version)
            ]
        return _filled("ModelStatisticsResponse", all_forms(models))

    async def _index(self, request: Any, call: GrpcCall) -> Any:
        del call
        return _filled("RepositoryIndexResponse", {"models": await self._extension.index(filter_ready=request.ready)})

    async def _trace(self, request: Any, call: GrpcCall) -> Any:
        del call
        if request.model_name:
            self._dataplane.find(request.model_name)
        # A setting without values is to be set to its default.
        wanted: dict[str, JsonValue] = {name: list(value.value) or None for name, value in request.settings.items()}
        kept = forms.keep_settings("trace", wanted, forms.TRACE)
        answer = message("TraceSettingResponse")()
        for name, value in kept.items():
            answer.settings[name].value.extend(value if isinstance(value, list) else [value])
        return answer

    async def _log(self, request: Any, call: GrpcCall) -> Any:
        del call
        wanted = {}
        for name, value in request.settings.items():
            field = value.WhichOneof("parameter_choice")
            wanted[name] = None if field is None else getattr(value, field)
        kept = forms.keep_settings("log", wanted, forms.log_settings())
        answer = message("LogSettingsResponse")()
        for name, value in kept.items():
            setattr(answer.settings[name], _VALUES[type(value)], value)
        return answer

    async def _check(self, request: Any, call: GrpcCall) -> Any:
        del call
        if request.service not in ("", self._service, HEALTH):
            raise UnknownError(f"there is no service {quoted(request.service)}")
        return await self._health()

    async def _watch(self, requests: AsyncIterator[Any], call: GrpcCall) -> AsyncIterator[Any]:
        """Send the health now and whenever it changes, until the server stops."""
        async for request in requests:
            known = request.service in ("", self._service, HEALTH)
            last = None
            while True:
                health = await self._health() if known else message("HealthCheckResponse")(status="SERVICE_UNKNOWN")
                if health != last:
                    yield health
                    last = health
                if not await self._dataplane.ready():
                    return
                with call.resting():
                    await asyncio.sleep(_WATCH_S)

    async def _health(self) -> Any:
        ready = await self._dataplane.ready()
        return message("HealthCheckResponse")(status="SERVING" if ready else "NOT_SERVING")


def _method(request: str, answer: Callable[[Any, GrpcCall], Any]) -> Method:
    return Method(parser(message(request)), answer)


def _filled(name: str, form: dict[str, Any]) -> Any:
    return json_format.ParseDict(form, message(name)())


def _status(response: str) -> Callable[[Any, GrpcCall], Any]:
    async def answer(request: Any, call: GrpcCall) -> Any:
        del call
        forms.expect_no_region(request.name)
        return message(response)()

    return answer


def _register(response: str) -> Callable[[Any, GrpcCall], Any]:
    del response

    async def answer(request: Any, call: GrpcCall) -> Any:
        del request, call
        forms.refuse_shared_memory()

    return answer


def _unregister(response: str) -> Callable[[Any, GrpcCall], Any]:
    async def answer(request: Any, call: GrpcCall) -> Any:
        del request, call
        return message(response)()

    return answer

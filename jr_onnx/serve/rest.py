"""The REST side of the Open Inference Protocol v2 as one ASGI application.

    GET  /v2   /v2/health/live   /v2/health/ready   /metrics
    GET  /v2/models   /v2/models/NAME[/versions/V]   .../ready
    POST /v2/models/NAME[/versions/V]/infer
    POST /v2/repository/index   /v2/repository/models/NAME/load   .../unload

Every error has the protocol's form, `{"error": "..."}`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from prometheus_client import REGISTRY, exposition

from jr_onnx.errors import JrError
from jr_onnx.serve.body import Body, Disconnected, Receive
from jr_onnx.serve.codec_rest import decode, encode, json_length
from jr_onnx.serve.dataplane import DataPlane
from jr_onnx.serve.faults import BadRequestError, InternalError, MethodError, NotReadyError, UnknownError, quoted
from jr_onnx.serve.gate import Budget, Gate
from jr_onnx.serve.metrics import count_unknown
from jr_onnx.serve.options import Limits
from jr_onnx.serve.repository import RepositoryExtension

Scope = dict[str, Any]
Send = Callable[[Any], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")
_CLOSE = (b"connection", b"close")
_LENGTH = b"inference-header-content-length"
_OPEN_PATHS = ("/", "/v2/health/live", "/v2/health/ready")
_LOG = logging.getLogger("jr_onnx.serve")


class RestApp:
    """The application.

    Args:
        dataplane: Models and answers.
        extension: Loading and unloading.
        gate: Who may ask.
        limits: How much.
        budget: Bytes of all bodies together.
    """

    def __init__(
        self, dataplane: DataPlane, extension: RepositoryExtension, gate: Gate, limits: Limits, budget: Budget
    ) -> None:
        self._dataplane = dataplane
        self._extension = extension
        self._gate = gate
        self._limits = limits
        self._budget = budget
        self.accepted = 0
        self.answered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        self.accepted += 1
        headers = dict(scope["headers"])
        parts = scope["path"].split("/")
        try:
            if scope["path"] not in _OPEN_PATHS:
                self._gate.check(headers.get(b"authorization"))
            if parts[-1] == "infer" and parts[:3] == ["", "v2", "models"]:
                status, answer, body = await self._infer(scope, headers, parts[3:-1], receive, started)
            else:
                status, answer, body = await self._other(scope, parts[1:], headers, receive)
        except Disconnected:
            self.answered += 1
            return
        except Exception as error:  # noqa: BLE001 - whatever happens, the client gets an answer in the protocol's form
            status, answer, body = failure(error)
        answer.append((b"content-length", b"%d" % len(body)))
        if self._dataplane.draining or status in (408, 413):
            answer.append(_CLOSE)
        await send({"type": "http.response.start", "status": status, "headers": answer})
        await send({"type": "http.response.body", "body": body})
        self.answered += 1

    async def _infer(
        self, scope: Scope, headers: dict[bytes, bytes], parts: list[str], receive: Receive, started: float
    ) -> tuple[int, Headers, bytes]:
        transport = "rest"
        try:
            _expect_method(scope, "POST")
            name, version = _model(parts)
            model = self._dataplane.find(name, version)
        except JrError as error:
            count_unknown(transport, error.http_status)
            raise
        try:
            with Body(headers, self._limits, self._budget) as body:
                data = await body.read(receive)
                started = time.perf_counter()
                call = decode(model.face, data, json_length(headers.get(_LENGTH), len(data), self._limits.json_bytes))
                del data
                outputs = await model.answer(call, self._limits.timeout_s)
                answer, size = encode(model.face, call, outputs)
        except Disconnected:
            raise
        except Exception as error:
            status = error.http_status if isinstance(error, JrError) else InternalError.http_status
            model.metrics.count(transport, status, time.perf_counter() - started)
            raise
        model.metrics.count(transport, 200, time.perf_counter() - started)
        if size is None:
            return 200, [_JSON], answer
        return 200, [_BINARY, (_LENGTH, b"%d" % size)], answer

    async def _other(
        self, scope: Scope, parts: list[str], headers: dict[bytes, bytes], receive: Receive
    ) -> tuple[int, Headers, bytes]:
        if parts[:2] == ["v2", "repository"]:
            return await self._repository(scope, parts[2:], headers, receive)
        _expect_known(parts, scope["path"])
        _expect_method(scope, "GET")
        if parts == ["metrics"]:
            accept = headers.get(b"accept", b"").decode("latin-1")
            encoder, content_type = exposition.choose_encoder(accept)
            return 200, [(b"content-type", content_type.encode())], encoder(REGISTRY)
        if parts in ([""], ["v2", "health", "live"]):
            return _json({"live": True})
        if parts == ["v2", "health", "ready"]:
            if not await self._dataplane.ready():
                raise NotReadyError("the server is about to stop")
            return _json({"ready": True})
        if parts == ["v2"]:
            return _json(self._dataplane.metadata())
        if parts == ["v2", "models"]:
            return _json({"models": [row["name"] for row in await self._extension.index(filter_ready=True)]})
        is_ready = parts[-1] == "ready" and len(parts) > 3
        name, version = _model(parts[2:-1] if is_ready else parts[2:])
        if not is_ready:
            return _json(await self._dataplane.model_metadata(name, version))
        if not await self._dataplane.model_ready(name, version):
            raise NotReadyError(f"model {quoted(name)} is not ready")
        return _json({"name": name, "ready": True})

    async def _repository(
        self, scope: Scope, parts: list[str], headers: dict[bytes, bytes], receive: Receive
    ) -> tuple[int, Headers, bytes]:
        action = parts[-1] if len(parts) == 3 and parts[0] == "models" else ""
        if parts != ["index"] and action not in ("load", "unload"):
            raise UnknownError(f"there is no {quoted(scope['path'])}")
        _expect_method(scope, "POST")
        with Body(headers, self._limits, self._budget) as body:
            data = await body.read(receive)
        wish = _object(data)
        if parts == ["index"]:
            rows = await self._extension.index(filter_ready=wish.get("ready") is True)
            return _json(rows)
        if action == "load":
            if wish.get("parameters"):
                raise BadRequestError("a model is loaded from where the server was told, expected no parameters")
            await self._extension.load(parts[1])
        else:
            await self._extension.unload(parts[1])
        return _json({"name": parts[1], action: True})


def failure(error: Exception) -> tuple[int, Headers, bytes]:
    """Return the answer that an error gives; what is nobody's fault but ours goes to the log, not to the client."""
    known = error if isinstance(error, JrError) else InternalError("internal error", hint="See the server's log")
    if known.http_status == InternalError.http_status:
        _LOG.error("a request failed", exc_info=error)
    headers = [_JSON]
    if known.http_status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if known.http_status == 503:
        headers.append((b"retry-after", b"1"))
    return known.http_status, headers, orjson.dumps({"error": str(known)})


def _json(value: object) -> tuple[int, Headers, bytes]:
    return 200, [_JSON], orjson.dumps(value)


def _object(data: bytes) -> dict[str, Any]:
    if not data.strip():
        return {}
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the request is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequestError(f"the request is {quoted(value)}, expected an object")
    return value


def _model(parts: list[str]) -> tuple[str, str]:
    """Return name and version of NAME or NAME/versions/VERSION."""
    if len(parts) == 1 and parts[0]:
        return parts[0], ""
    if len(parts) == 3 and parts[1] == "versions" and parts[2]:
        return parts[0], parts[2]
    raise UnknownError(f"there is no model {quoted('/'.join(parts))}")


def _expect_known(parts: list[str], path: str) -> None:
    known = parts in ([""], ["metrics"], ["v2"], ["v2", "health", "live"], ["v2", "health", "ready"])
    if not known and parts[:2] != ["v2", "models"]:
        raise UnknownError(f"there is no {quoted(path)}")


def _expect_method(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise MethodError(f"{quoted(scope['path'])} is asked with {method}, not {quoted(scope['method'])}")

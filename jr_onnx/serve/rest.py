"""The REST side of the Open Inference Protocol v2 as one application.

    GET  /v2   /v2/health/live   /v2/health/ready   /metrics
    GET  /v2/models   /v2/models/NAME[/versions/V]   .../ready
    POST /v2/models/NAME[/versions/V]/infer
    POST /v2/repository/index   /v2/repository/models/NAME/load   .../unload
    and the paths of the protocol's extensions (`extensions/rest`)

Every error has the protocol's form, `{"error": "..."}`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from prometheus_client import REGISTRY, exposition

from jr_onnx.element_types import Array
from jr_onnx.errors import JrError
from jr_onnx.serve.call import Call, ModelInterface
from jr_onnx.serve.codec_rest import decode, encode, json_length, parsing_bytes
from jr_onnx.serve.connections import CONNECTIONS
from jr_onnx.serve.dataplane import DataPlane
from jr_onnx.serve.extensions.compression import compressed, expanded, known_encoding, wanted_encoding
from jr_onnx.serve.extensions.rest import Extensions, model_of
from jr_onnx.serve.faults import (
    BadRequestError,
    MethodError,
    NotReadyError,
    OverloadedError,
    UnauthorizedError,
    UnknownError,
    quoted,
    reported,
)
from jr_onnx.serve.gate import ByteBudget, Gate, expect_same_origin
from jr_onnx.serve.http_messages import Request, Response
from jr_onnx.serve.inference import Inference
from jr_onnx.serve.metrics import count_unknown
from jr_onnx.serve.options import Limits
from jr_onnx.serve.repository import RepositoryExtension
from jr_onnx.serve.workers import LARGE_BYTES, LARGE_TEXT_BYTES, Result, Worker, copying, parsing

_TRANSPORT: Final = "rest"
_JSON: Final = (b"content-type", b"application/json")
_BINARY: Final = (b"content-type", b"application/octet-stream")
_LENGTH: Final = b"inference-header-content-length"
_OPEN_PATHS: Final = ("/", "/v2/health/live", "/v2/health/ready")
_WORTH_COMPRESSING: Final = 1024
_SMALL_BODY: Final = 64 * 1024  # of requests without tensors
_INSIDE: Final = CONNECTIONS * 3 // 4
"""How many requests may be answered at a time, so that connections remain for those that are turned away."""


class RestApp:
    """The application.

    Args:
        dataplane: Models and answers.
        extension: Loading and unloading.
        gate: Checks the token.
        limits: Limits of requests.
        budget: Bytes of all requests together.
        is_loopback: Only this machine can reach the server.

    Attributes:
        accepted: How many requests were admitted or refused with a status.
        answered: How many of them were answered.
        timeout_s: How long a request may take.
    """

    def __init__(
        self,
        dataplane: DataPlane,
        extension: RepositoryExtension,
        gate: Gate,
        limits: Limits,
        budget: ByteBudget,
        *,
        is_loopback: bool = False,
    ) -> None:
        self._dataplane = dataplane
        self._extension = extension
        self._gate = gate
        self._limits = limits
        self._budget = budget
        self._is_loopback = is_loopback
        self._inference = Inference(dataplane, budget, _TRANSPORT)
        self._extensions = Extensions(dataplane)
        self._inside = 0
        self._parsing = asyncio.Lock()  # held while JSON is parsed: one request at a time takes that memory
        self.accepted = 0
        self.answered = 0
        self.timeout_s = limits.timeout_s

    @property
    def is_draining(self) -> bool:
        """Whether connections are to be closed after their answers."""
        return self._dataplane.draining

    def admit(self, request: Request) -> int:
        """Return the largest body of a request of which only the head has arrived.

        Raises:
            JrError: The request is not allowed, or cannot succeed whatever its body holds.
        """
        if self.needs_token(request):
            self._gate.check(request.headers.get(b"authorization"))
        known_encoding(_text(request, b"content-encoding"))
        parts = request.path.split("/")
        if not _is_inference(parts):
            return _SMALL_BODY
        try:
            _expect_method(request, "POST")
            self._dataplane.find(*model_of(parts[3:-1]))
        except JrError as error:
            count_unknown(_TRANSPORT, error.http_status)
            raise
        return self._limits.body_bytes

    async def answer(self, request: Request) -> Response:
        """Answer a complete request."""
        self.accepted += 1
        parts = request.path.split("/")
        try:
            if _is_inference(parts):
                return await self._infer(request, parts[3:-1])
            await self._expand(request, _SMALL_BODY)
            return await self._other(request, parts[1:])
        except Exception as error:  # noqa: BLE001 - whatever happens, the client gets an answer in the protocol's form
            return failure(error)
        finally:
            self.answered += 1

    def needs_token(self, request: Request) -> bool:
        """Whether a request needs the token; health checks do not."""
        return request.path not in _OPEN_PATHS

    def refuse(self, error: Exception) -> Response:
        """Return the response to a request that is refused before it is complete, and count it."""
        self.accepted += 1
        self.answered += 1
        return failure(error)

    def failure(self, error: Exception) -> Response:
        """Return the response to an error, with or without a request."""
        return failure(error)

    async def _expand(self, request: Request, largest: int) -> None:
        """Decompress the body."""
        if not known_encoding(_text(request, b"content-encoding")):
            return
        length = len(request.body)
        seconds = request.deadline - asyncio.get_running_loop().time()
        request.body = await expanded(request.body, largest, request.holding.grow, seconds)
        request.holding.shrink(length)

    async def _infer(self, request: Request, parts: list[str]) -> Response:
        if self._inside >= _INSIDE:
            raise OverloadedError(f"{self._inside} requests are being answered already", hint="Ask again later")
        self._inside += 1
        try:
            name, version = model_of(parts)
            await self._expand(request, self._limits.body_bytes)
            seconds = request.deadline - asyncio.get_running_loop().time()
            received = [request.body]
            request.body = bytearray()
            length = len(received[0])
            size = json_length(request.headers.get(_LENGTH), length, self._limits.json_bytes)
            holding = request.take_holding(self._budget)
            worker: Worker | None = copying if length > LARGE_BYTES else None

            async def parse(work: Callable[..., Result], *arguments: object) -> Result:
                async with self._parsing:
                    holding.grow(await parsing(parsing_bytes, received[0], size))
                    return await parsing(work, *arguments)

            if size > LARGE_TEXT_BYTES:
                worker = parse
            answer = await self._inference.answer(
                name,
                version,
                lambda interface: decode(interface, received.pop(), size),
                _response,
                holding,
                seconds,
                worker,
            )
            return await _encoded(answer, wanted_encoding(_text(request, b"accept-encoding")))
        finally:
            self._inside -= 1

    async def _other(self, request: Request, parts: list[str]) -> Response:
        if parts[:2] == ["v2", "repository"]:
            return await self._repository(request, parts[2:])
        found = self._extensions.find(parts[1:]) if parts[:1] == ["v2"] else None
        if found is not None:
            _expect_method(request, *found)
            if request.method == "POST":
                expect_same_origin(request.headers, is_loopback=self._is_loopback)
            answer = found["GET" if request.method == "HEAD" else request.method]
            return _json(answer(_object(request.body) if request.method == "POST" else {}))
        _expect_known(parts, request.path)
        _expect_method(request, "GET")
        if parts == ["metrics"]:
            accept = request.headers.get(b"accept", b"").decode("latin-1")
            encoder, content_type = exposition.choose_encoder(accept)
            return Response(200, [(b"content-type", content_type.encode())], encoder(REGISTRY))
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
        name, version = model_of(parts[2:-1] if is_ready else parts[2:])
        if not is_ready:
            return _json(await self._dataplane.model_metadata(name, version))
        if not await self._dataplane.model_ready(name, version):
            raise NotReadyError(f"model {quoted(name)} is not ready")
        return _json({"name": name, "ready": True})

    async def _repository(self, request: Request, parts: list[str]) -> Response:
        action = parts[-1] if len(parts) == 3 and parts[0] == "models" else ""
        if parts != ["index"] and action not in ("load", "unload"):
            raise UnknownError(f"there is no {quoted(request.path)}")
        _expect_method(request, "POST")
        if action:
            expect_same_origin(request.headers, is_loopback=self._is_loopback)
        wanted = _object(request.body)
        if parts == ["index"]:
            rows = await self._extension.index(filter_ready=wanted.get("ready") is True)
            return _json(rows)
        if action == "load":
            if wanted.get("parameters"):
                raise BadRequestError("a model is loaded from where the server was told, expected no parameters")
            await self._extension.load(parts[1])
        else:
            await self._extension.unload(parts[1])
        return _json({"name": parts[1], action: True})


def failure(error: Exception) -> Response:
    """Return the answer that an error gives."""
    known = reported(error, _TRANSPORT)
    headers = [_JSON]
    if known.http_status == UnauthorizedError.http_status:
        headers.append((b"www-authenticate", b"Bearer"))
    if known.http_status == OverloadedError.http_status:
        headers.append((b"retry-after", b"1"))
    return Response(known.http_status, headers, orjson.dumps({"error": str(known)}))


def _response(interface: ModelInterface, call: Call, outputs: Mapping[str, Array]) -> Response:
    body, size = encode(interface, call, outputs)
    if size is None:
        return Response(200, [_JSON], body)
    return Response(200, [_BINARY, (_LENGTH, b"%d" % size)], body)


def _json(value: object) -> Response:
    return Response(200, [_JSON], orjson.dumps(value))


def _is_inference(parts: list[str]) -> bool:
    return parts[-1] == "infer" and parts[:3] == ["", "v2", "models"]


def _object(data: bytearray) -> dict[str, Any]:
    if not data.strip():
        return {}
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the request is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequestError(f"the request is {quoted(value)}, expected an object")
    return value


def _expect_known(parts: list[str], path: str) -> None:
    known = parts in ([""], ["metrics"], ["v2"], ["v2", "health", "live"], ["v2", "health", "ready"])
    if not known and parts[:2] != ["v2", "models"]:
        raise UnknownError(f"there is no {quoted(path)}")


def _expect_method(request: Request, *methods: str) -> None:
    """Refuse other methods; HEAD is allowed where GET is."""
    if request.method not in methods and not (request.method == "HEAD" and "GET" in methods):
        raise MethodError(f"{quoted(request.path)} is asked with {' or '.join(methods)}, not {quoted(request.method)}")


def _text(request: Request, name: bytes) -> str:
    return request.headers.get(name, b"").decode("latin-1")


async def _encoded(response: Response, encoding: str) -> Response:
    """Compress an answer as the client wishes, where it is long enough to gain by it."""
    if not encoding or len(response.body) < _WORTH_COMPRESSING:
        return response
    body = await parsing(compressed, response.body, encoding)
    return Response(response.status, [*response.headers, (b"content-encoding", encoding.encode())], body)

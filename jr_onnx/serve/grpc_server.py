"""The gRPC side of the Open Inference Protocol v2: kserve's server on an address of our choice, with TLS."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from jr_onnx.errors import InputError, JrError
from jr_onnx.serve.codec_grpc import decode, encode
from jr_onnx.serve.dataplane import DataPlane
from jr_onnx.serve.faults import GRPC_CODES, BadRequestError, InternalError, TimedOutError
from jr_onnx.serve.gate import Budget, Gate
from jr_onnx.serve.kserve_import import kserve_module
from jr_onnx.serve.metrics import count_unknown
from jr_onnx.serve.options import Address, Limits
from jr_onnx.serve.repository import RepositoryExtension

messages: Any = kserve_module("kserve.protocol.grpc.grpc_predict_v2_pb2")
_server: Any = kserve_module("kserve.protocol.grpc.server")
_SERVICE = "inference.GRPCInferenceService"
_OPEN = ("ServerLive", "ServerReady")
_SPARE_RPCS = 64
_TRITON_MODEL_NAME = 2  # its field in Triton's RepositoryModelLoadRequest; kserve's has it in field 1
_LOG = logging.getLogger("jr_onnx.serve")


class GrpcServer(_server.GRPCServer):  # type: ignore[misc] # kserve has no type information
    """kserve's gRPC server, which binds where it is told and answers errors with the right status.

    Args:
        address: Where to listen.
        dataplane: Models and answers.
        extension: Loading and unloading.
        gate: Who may ask.
        limits: How much.
        budget: Bytes of all requests together.
    """

    def __init__(
        self,
        address: Address,
        dataplane: DataPlane,
        extension: RepositoryExtension,
        gate: Gate,
        limits: Limits,
        budget: Budget,
    ) -> None:
        super().__init__(address.grpc_port, dataplane, extension, {}, grace_period=limits.drain_s)
        self._address = address
        self._limits = limits
        self._methods = Methods(dataplane, extension, gate, budget)

    @property
    def accepted(self) -> int:
        """How many requests came."""
        return self._methods.accepted

    @property
    def answered(self) -> int:
        """How many of them were answered."""
        return self._methods.answered

    async def open(self) -> int:
        """Start to listen, and return the port.

        Raises:
            InputError: The port cannot be had, or the certificate does not fit.
        """
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=self._limits.queue + _SPARE_RPCS,
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", self._limits.body_bytes),
                ("grpc.so_reuseport", 0),  # else a second server would take half of the requests in silence
            ],
        )
        self._server.add_generic_rpc_handlers((self._methods.handler(),))
        where = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        target = f"{where}:{self._address.grpc_port}"
        try:
            port = self._add_port(target)
        except RuntimeError as error:
            raise InputError(f"cannot listen on {target} for gRPC: {error}") from None
        await self._server.start()
        return port

    def _add_port(self, target: str) -> int:
        if self._address.tls_cert is None or self._address.tls_key is None:
            return int(self._server.add_insecure_port(target))
        pair = (self._address.tls_key.read_bytes(), self._address.tls_cert.read_bytes())
        return int(self._server.add_secure_port(target, grpc.ssl_server_credentials([pair])))


class Methods:
    """The service's methods; each takes a message and returns one, and raises what is wrong."""

    def __init__(self, dataplane: DataPlane, extension: RepositoryExtension, gate: Gate, budget: Budget) -> None:
        self._dataplane = dataplane
        self._extension = extension
        self._gate = gate
        self._budget = budget
        self.accepted = 0
        self.answered = 0

    def handler(self) -> Any:
        """Return the handler of the service, to be added to a server."""
        table: dict[str, tuple[Callable[[Any, Any], Awaitable[Any]], str]] = {
            "ServerLive": (self._server_live, "ServerLiveRequest"),
            "ServerReady": (self._server_ready, "ServerReadyRequest"),
            "ServerMetadata": (self._server_metadata, "ServerMetadataRequest"),
            "ModelReady": (self._model_ready, "ModelReadyRequest"),
            "ModelMetadata": (self._model_metadata, "ModelMetadataRequest"),
            "ModelInfer": (self._model_infer, "ModelInferRequest"),
            "RepositoryModelLoad": (self._load, "RepositoryModelLoadRequest"),
            "RepositoryModelUnload": (self._unload, "RepositoryModelUnloadRequest"),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._wrapped(name, method),
                request_deserializer=_parser(getattr(messages, request)),
                response_serializer=lambda message: message.SerializeToString(),
            )
            for name, (method, request) in table.items()
        }
        return grpc.method_handlers_generic_handler(_SERVICE, handlers)

    def _wrapped(self, name: str, method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def answer(request: Any, context: Any) -> Any:
            self.accepted += 1
            try:
                if name not in _OPEN:
                    self._gate.check(_authorization(context))
                return await method(_parsed(request), context)
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                known = error if isinstance(error, JrError) else InternalError("internal error, see the server's log")
            finally:
                self.answered += 1
            if known.http_status == InternalError.http_status:
                _LOG.error("a request failed", exc_info=known.__context__ or known)
            code = getattr(grpc.StatusCode, GRPC_CODES[known.http_status])
            return await context.abort(code, str(known))

        return answer

    async def _server_live(self, request: Any, context: Any) -> Any:
        del request, context
        return messages.ServerLiveResponse(live=True)

    async def _server_ready(self, request: Any, context: Any) -> Any:
        del request, context
        return messages.ServerReadyResponse(ready=await self._dataplane.ready())

    async def _server_metadata(self, request: Any, context: Any) -> Any:
        del request, context
        return messages.ServerMetadataResponse(**self._dataplane.metadata())

    async def _model_ready(self, request: Any, context: Any) -> Any:
        del context
        return messages.ModelReadyResponse(ready=await self._dataplane.model_ready(request.name, request.version))

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        del context
        return messages.ModelMetadataResponse(**await self._dataplane.model_metadata(request.name, request.version))

    async def _load(self, request: Any, context: Any) -> Any:
        del context
        name = _repository_model(request)
        await self._extension.load(name)
        return messages.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    async def _unload(self, request: Any, context: Any) -> Any:
        del context
        name = _repository_model(request)
        await self._extension.unload(name)
        return messages.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)

    async def _model_infer(self, request: Any, context: Any) -> Any:
        del context
        started = time.perf_counter()
        transport = "grpc"
        try:
            model = self._dataplane.find(request.model_name, request.model_version)
        except JrError as error:
            count_unknown(transport, error.http_status)
            raise
        size = request.ByteSize()
        status = TimedOutError.http_status  # what it stays if the client's deadline ends this
        try:
            self._budget.take(size)
            try:
                call = decode(model.face, request)
                request.Clear()  # its arrays are copies
                outputs, _ = await model(call)
                answer = encode(model.face, call, outputs, messages)
                status = 200
                return answer
            finally:
                self._budget.give_back(size)
        except Exception as error:
            status = error.http_status if isinstance(error, JrError) else InternalError.http_status
            raise
        finally:
            model.metrics.count(transport, status, time.perf_counter() - started)


def _parser(kind: Any) -> Callable[[bytes], Any]:
    """Return a deserializer that gives None for what is no such message; gRPC would call it an internal error."""

    def parse(data: bytes) -> Any:
        try:
            return kind.FromString(data)
        except DecodeError:
            return None

    return parse


def _parsed(request: Any) -> Any:
    if request is None:
        raise BadRequestError("the message cannot be parsed")
    return request


def _authorization(context: Any) -> bytes | None:
    for name, value in context.invocation_metadata() or ():
        if name == "authorization":
            return value if isinstance(value, bytes) else str(value).encode()
    return None


def _repository_model(request: Any) -> str:
    """Return the model's name from kserve's message, or from Triton's, which has it in another field."""
    for field in UnknownFieldSet(request):
        if field.field_number == _TRITON_MODEL_NAME and isinstance(field.data, bytes):
            try:
                return field.data.decode()
            except UnicodeDecodeError:
                raise BadRequestError("the model's name is not UTF-8") from None
    return str(request.model_name)

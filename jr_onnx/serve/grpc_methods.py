"""The methods of `inference.GRPCInferenceService`, as a table for the gRPC server.

A further method is one more line of `methods`: the class of its request, and what answers it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any, Final

from google.protobuf.unknown_fields import UnknownFieldSet

from jr_onnx.serve.codec_grpc import decode, encode
from jr_onnx.serve.dataplane import DataPlane
from jr_onnx.serve.extensions.grpc import ExtensionService
from jr_onnx.serve.extensions.messages import message
from jr_onnx.serve.faults import BadRequestError, UnknownError, reported
from jr_onnx.serve.gate import ByteBudget
from jr_onnx.serve.grpc_call import GrpcCall
from jr_onnx.serve.grpc_method import Method, parser
from jr_onnx.serve.grpc_tensors import SPLIT_BYTES, split, whole
from jr_onnx.serve.grpc_wire import frame
from jr_onnx.serve.inference import Inference
from jr_onnx.serve.kserve_import import kserve_module
from jr_onnx.serve.options import Limits
from jr_onnx.serve.repository import RepositoryExtension
from jr_onnx.serve.workers import parsing

messages: ModuleType = kserve_module("kserve.protocol.grpc.grpc_predict_v2_pb2")
SERVICE: Final = "inference.GRPCInferenceService"
_TRITON_MODEL_NAME: Final = 2  # its field in Triton's RepositoryModelLoadRequest; kserve's has it in field 1
_TRITON_PARAMETERS: Final = 3
_LAST: Final = "triton_final_response"  # in a stream: nothing more comes for this request


class InferenceService:
    """Answers the service's requests.

    Args:
        dataplane: Models and answers.
        extension: Loading and unloading.
        limits: Limits of requests.
        budget: Bytes of all requests and answers together.
    """

    def __init__(
        self, dataplane: DataPlane, extension: RepositoryExtension, limits: Limits, budget: ByteBudget
    ) -> None:
        self._dataplane = dataplane
        self._extension = extension
        self._limits = limits
        self._inference = Inference(dataplane, budget, "grpc")

    def methods(self) -> dict[str, Method]:
        """Return the methods by path."""
        table = {
            "ServerLive": Method(_parser("ServerLiveRequest"), self._server_live, is_open=True),
            "ServerReady": Method(_parser("ServerReadyRequest"), self._server_ready, is_open=True),
            "ServerMetadata": Method(_parser("ServerMetadataRequest"), self._server_metadata),
            "ModelReady": Method(_parser("ModelReadyRequest"), self._model_ready),
            "ModelMetadata": Method(_parser("ModelMetadataRequest"), self._model_metadata),
            "ModelInfer": Method(lambda data: data, self._model_infer, largest=self._limits.body_bytes),
            "RepositoryModelLoad": Method(_parser("RepositoryModelLoadRequest"), self._load),
            "RepositoryModelUnload": Method(_parser("RepositoryModelUnloadRequest"), self._unload),
        }
        table["ModelStreamInfer"] = Method(
            lambda data: data, self._stream, largest=self._limits.body_bytes, streams=True
        )
        found = {f"/{SERVICE}/{name}": method for name, method in table.items()}
        return found | ExtensionService(SERVICE, self._dataplane, self._extension).methods()

    async def _server_live(self, request: Any, call: GrpcCall) -> Any:
        del request, call
        return messages.ServerLiveResponse(live=True)

    async def _server_ready(self, request: Any, call: GrpcCall) -> Any:
        del request, call
        return messages.ServerReadyResponse(ready=await self._dataplane.ready())

    async def _server_metadata(self, request: Any, call: GrpcCall) -> Any:
        del request, call
        return messages.ServerMetadataResponse(**self._dataplane.metadata())

    async def _model_ready(self, request: Any, call: GrpcCall) -> Any:
        del call
        try:
            is_ready = await self._dataplane.model_ready(request.name, request.version)
        except UnknownError:
            is_ready = False  # as in Triton: a client may ask before the model is there
        return messages.ModelReadyResponse(ready=is_ready)

    async def _model_metadata(self, request: Any, call: GrpcCall) -> Any:
        del call
        return messages.ModelMetadataResponse(**await self._dataplane.model_metadata(request.name, request.version))

    async def _load(self, request: Any, call: GrpcCall) -> Any:
        del call
        if any(field.field_number == _TRITON_PARAMETERS for field in UnknownFieldSet(request)):
            raise BadRequestError("a model is loaded from where the server was told, expected no parameters")
        name = _repository_model(request)
        await self._extension.load(name)
        return messages.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    async def _unload(self, request: Any, call: GrpcCall) -> Any:
        del call
        name = _repository_model(request)
        await self._extension.unload(name)
        return messages.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)

    async def _stream(self, requests: AsyncIterator[memoryview], call: GrpcCall) -> AsyncIterator[Any]:
        """Answer the requests of a stream in their order; an error is sent as the answer of its request."""
        async for data in requests:
            try:
                answer = await self._infer(data, call, _last_of_request)
            except Exception as error:  # noqa: BLE001 - the stream goes on
                yield message("ModelStreamInferResponse")(error_message=str(reported(error, "grpc")))
            else:
                yield answer

    async def _model_infer(self, data: memoryview, call: GrpcCall) -> bytes:
        return await self._infer(data, call, frame)

    async def _infer(self, data: memoryview, call: GrpcCall, framed: Callable[[Any], bytes]) -> bytes:
        """Answer a request; `framed` serialises the response where it is made: no copy of it waits uncounted."""
        if len(data) < SPLIT_BYTES:
            request = whole(data, messages.ModelInferRequest)
        else:
            request = split(data)
            if request.is_typed:
                await parsing(request.weigh, self._limits.json_bytes)
                call.hold(request.extra_bytes)
                await parsing(request.parse, messages.ModelInferRequest)
            else:
                request.parse(messages.ModelInferRequest)
        del data
        return await self._inference.answer(
            *request.model,
            lambda interface: decode(interface, request),
            lambda interface, asked, outputs: framed(encode(interface, asked, outputs, messages)),
            call.take_holding(),
            call.seconds_left(),
            request.worker,
        )


def _last_of_request(answer: Any) -> bytes:
    """Return the response of a stream, of which none follows for the same request, behind its prefix."""
    answer.parameters[_LAST].bool_param = True
    return frame(message("ModelStreamInferResponse")(infer_response=answer.SerializeToString()))


def _parser(name: str) -> Callable[[memoryview], Any]:
    return parser(getattr(messages, name))


def _repository_model(request: Any) -> str:
    """Return the model's name from kserve's message, or from Triton's, which has it in another field.

    Raises:
        BadRequestError: The name is not UTF-8.
    """
    name = str(request.model_name)
    for field in UnknownFieldSet(request):
        if field.field_number == _TRITON_MODEL_NAME and isinstance(field.data, bytes):
            try:
                name = field.data.decode()
            except UnicodeDecodeError:
                raise BadRequestError("the model's name is not UTF-8") from None
    return name

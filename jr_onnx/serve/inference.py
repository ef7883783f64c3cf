"""Answer a complete inference request, the same way for both transports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from jr_onnx.element_types import Array
from jr_onnx.errors import JrError
from jr_onnx.serve.call import Call, ModelInterface
from jr_onnx.serve.dataplane import DataPlane
from jr_onnx.serve.extensions.classification import classification_bytes
from jr_onnx.serve.faults import InternalError, TimedOutError
from jr_onnx.serve.gate import ByteBudget, Holding
from jr_onnx.serve.metrics import count_unknown
from jr_onnx.serve.workers import LARGE_BYTES, LARGE_TEXT_BYTES, Worker, copying, parsing

# The longest numbers in JSON, with a comma: -2.2250738585072014e-308 and -0.000012345678 of 4 bytes or fewer.
_LONG_NUMBER: Final = 25
_SHORT_NUMBER: Final = 17
_Answer = TypeVar("_Answer")


class Inference:
    """What both transports do between a request's last byte and its answer.

    Args:
        dataplane: The models.
        budget: Bytes of all requests and answers together.
        transport: Name of the transport, for the metrics.
    """

    def __init__(self, dataplane: DataPlane, budget: ByteBudget, transport: str) -> None:
        self._budget = budget
        self._dataplane = dataplane
        self._transport = transport

    async def answer(
        self,
        name: str,
        version: str,
        decode: Callable[[ModelInterface], Call],
        encode: Callable[[ModelInterface, Call, Mapping[str, Array]], _Answer],
        holding: Holding,
        seconds: float,
        worker: Worker | None,
    ) -> _Answer:
        """Answer one request; the model is chosen now, and stays open until the answer is ready.

        Args:
            name: The model's name.
            version: Its version, "" for the latest.
            decode: Reads the request.
            encode: Writes the answer.
            holding: The request's bytes in the budget, which are released here.
            seconds: How long the answer may take.
            worker: Where the request is read; None for at once.

        Raises:
            JrError: What is wrong with the request.
        """
        started = time.perf_counter()
        handed_on = False
        try:
            model = self._dataplane.find(name, version)
        except JrError as error:
            count_unknown(self._transport, error.http_status)
            holding.release()
            raise
        status = TimedOutError.http_status  # what it stays if the client's deadline ends this
        try:
            with model.in_use():
                call = decode(model.interface) if worker is None else await worker(decode, model.interface)
                _fit(holding, call)
                call.holding, handed_on = holding, True
                outputs = await model.answer(call, seconds - (time.perf_counter() - started))
                answer = await self._encoded(encode, model.interface, call, outputs)
                status = 200
                return answer
        except Exception as error:
            status = error.http_status if isinstance(error, JrError) else InternalError.http_status
            raise
        finally:
            if not handed_on:
                holding.release()
            model.metrics.count(self._transport, status, time.perf_counter() - started)

    async def _encoded(
        self,
        encode: Callable[[ModelInterface, Call, Mapping[str, Array]], _Answer],
        interface: ModelInterface,
        call: Call,
        outputs: Mapping[str, Array],
    ) -> _Answer:
        """Write the answer; the outputs are counted as long as it takes, the answer is counted by its sender."""
        size = sum(array.nbytes for array in outputs.values())
        size += sum(
            outputs[name].size * (_LONG_NUMBER if outputs[name].itemsize > 4 else _SHORT_NUMBER)
            for name, binary in call.binary.items()
            if not binary
        )
        size += sum(
            classification_bytes(outputs[name], count, interface.labels.get(name, ()))
            for name, count in call.classes.items()
        )
        if size < LARGE_TEXT_BYTES:
            return encode(interface, call, outputs)
        holding = self._budget.settled()
        try:
            holding.grow(size)
            if call.classes or not all(call.binary.values()):
                return await parsing(encode, interface, call, outputs)
            return (
                encode(interface, call, outputs)
                if size < LARGE_BYTES
                else await copying(encode, interface, call, outputs)
            )
        finally:
            holding.release()


def _fit(holding: Holding, call: Call) -> None:
    """Give back what only reading the request took."""
    if not any(array.dtype.hasobject for array in call.inputs.values()):
        holding.shrink(max(0, holding.size - sum(array.nbytes for array in call.inputs.values())))

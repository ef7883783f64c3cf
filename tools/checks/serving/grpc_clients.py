"""The load test's clients over gRPC, with tritonclient's messages; never imported beside kserve, whose are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from tools.checks.serving.clients import REFUSED, TIMEOUT_S, TOO_LARGE_BYTES, Client
from tools.checks.serving.known import Array, ramp

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_CODES = grpc.StatusCode
TURNED_AWAY = "not accepted after the stop"
TOO_LARGE = "too large, refused by gRPC itself"


class GrpcClient(Client):
    """Asks over gRPC with raw and with typed contents, each client over a channel of its own."""

    transport = "gRPC"

    def asks(self) -> tuple[Callable[[], None], ...]:
        """Two in five are raw, one each typed, a drawn kappa, and bad."""
        self._channel = grpc.insecure_channel(self.target, options=[("grpc.use_local_subchannel_pool", 1)])
        self._infer = self._channel.unary_unary(_INFER)  # bytes in both directions: bad requests are no messages
        return (self._good_raw, self._good_raw, self._good_typed, self._drawn, self._bad)

    def attempt(self, ask: Callable[[], None]) -> bool:
        """Make one request.

        A server that stops turns new requests away with UNAVAILABLE; those that gRPC has read but not handed out yet
        end as CANCELLED. None of them was accepted: an accepted one that got no answer of its own would be missing in
        the clients' count.
        """
        try:
            ask()
        except grpc.RpcError as error:
            if self.stopping.is_set():
                self.tally.add(f"gRPC: {TURNED_AWAY}, {error.code().name}")
            else:
                self.tally.fail(f"over gRPC: no answer but {error.code().name}: {error.details()}")
            return False
        return True

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _send(self, request: bytes) -> tuple[grpc.StatusCode, Any]:
        """Return the status and the message, or what was said; an answer is counted, whatever it says."""
        try:
            answer = service_pb2.ModelInferResponse.FromString(self._infer(request, timeout=TIMEOUT_S))
        except grpc.RpcError as error:
            if error.code() in {_CODES.UNAVAILABLE, _CODES.CANCELLED}:
                raise
            if error.code() is _CODES.RESOURCE_EXHAUSTED and len(request) >= TOO_LARGE_BYTES:
                self.tally.add(f"gRPC: {TOO_LARGE}")
            else:
                self.tally.add(f"gRPC: status {error.code().name}")
            return error.code(), error.details()
        self.tally.add("gRPC: status OK")
        return _CODES.OK, answer

    def _good_raw(self) -> None:
        index = self.pick()
        self._good(message(self.known.rows[index]), index)

    def _good_typed(self) -> None:
        index = self.pick()
        request = message(self.known.rows[index], raw=[])
        request.inputs[0].contents.fp32_contents.extend(self.known.rows[index].ravel().tolist())
        self._good(request, index)

    def _good(self, request: Any, index: int) -> None:
        answer = self._answer(request)
        if answer is not None:
            self.compare(_array(answer), index)

    def _drawn(self) -> None:
        answer = self._answer(message(ramp(), model="drawn"))
        if answer is not None:
            self.compare_drawn(_array(answer))

    def _bad(self) -> None:
        rows = self.known.rows[0]
        raw = rows.tobytes()
        invalid = _CODES.INVALID_ARGUMENT
        choices: list[tuple[grpc.StatusCode, bytes]] = [
            (_CODES.NOT_FOUND, _bytes(message(rows, model="nothing"))),
            (invalid, _bytes(message(rows, raw=[raw[:-3]]))),
            (invalid, _bytes(message(rows, raw=[raw + b"extra"]))),
            (invalid, _bytes(message(rows, raw=[raw, raw]))),
            (invalid, _bytes(message(rows, datatype="FP64"))),
            (invalid, _bytes(message(rows, name="z"))),
            (invalid, _bytes(message(rows, shape=[1, -64]))),
            (invalid, _bytes(message(rows, shape=[2**62, 64]))),
            (invalid, _bytes(message(rows))[:-3]),
            (_CODES.RESOURCE_EXHAUSTED, _bytes(message(rows, raw=[bytes(TOO_LARGE_BYTES)]))),
        ]
        expected, request = choices[self.generator.integers(len(choices))]
        code, said = self._send(request)
        if code is not expected:
            self.tally.fail(f"over gRPC: a bad request got {code.name}, expected {expected.name}: {str(said)[:200]}")
        self.tally.add(f"gRPC: {REFUSED}")

    def _answer(self, request: Any) -> Any:
        code, said = self._send(_bytes(request))
        if code is _CODES.OK:
            return said
        self.tally.fail(f"over gRPC: a good request got {code.name}: {said}")
        return None


def message(
    rows: Array,
    *,
    model: str = "fixed",
    name: str = "x",
    datatype: str = "FP32",
    shape: list[int] | None = None,
    raw: list[bytes] | None = None,
) -> Any:
    """Return a request; what is not said fits the rows."""
    request = service_pb2.ModelInferRequest(
        model_name=model, raw_input_contents=[rows.tobytes()] if raw is None else raw
    )
    request.inputs.add(name=name, datatype=datatype, shape=list(rows.shape) if shape is None else shape)
    return request


def _bytes(request: Any) -> bytes:
    data: bytes = request.SerializeToString()
    return data


def _array(answer: Any) -> Array:
    return np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(list(answer.outputs[0].shape))

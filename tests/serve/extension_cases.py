"""Run in a process of its own, like `grpc_cases`: ask for the extensions, streams and health over gRPC.

    python -m tests.serve.extension_cases HOST:PORT

Prints a JSON object: what was answered, or the status code and the message.
"""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as library
from tritonclient.grpc import service_pb2

from tests.serve.grpc_cases import message, outcome

ROWS = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
HEALTH = "/grpc.health.v1.Health/"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


def inputs() -> list[Any]:
    tensor = library.InferInput("x", [2, 16], "FP32")
    tensor.set_data_from_numpy(ROWS)
    return [tensor]


def _y(result: Any) -> list[float]:
    return result.as_numpy("y").ravel().tolist()  # type: ignore[no-any-return] # tritonclient has no types


def called(ask: Callable[[], Any]) -> list[Any]:
    """Return the status, and what was answered or what is wrong."""
    try:
        return ["OK", ask()]
    except grpc.RpcError as error:
        return [error.code().name, error.details()]


def extensions(client: Any) -> dict[str, Any]:
    asks: dict[str, Callable[[], Any]] = {
        "config": lambda: client.get_model_config("fixed", as_json=True),
        "config of nothing": lambda: client.get_model_config("nothing"),
        "statistics": lambda: client.get_inference_statistics("fixed", as_json=True),
        "statistics of all": lambda: client.get_inference_statistics(as_json=True),
        "index": lambda: client.get_model_repository_index(as_json=True),
        "ready nothing": lambda: client.is_model_ready("nothing"),
        "trace": lambda: client.get_trace_settings(as_json=True),
        "trace of nothing": lambda: client.get_trace_settings("nothing"),
        "trace as it is": lambda: client.update_trace_settings(settings={"trace_level": ["OFF"]}, as_json=True),
        "trace on": lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
        "log": lambda: client.get_log_settings(as_json=True),
        "log as it is": lambda: client.update_log_settings({"log_verbose_level": 0}, as_json=True),
        "log more": lambda: client.update_log_settings({"log_verbose_level": 3}),
        "log nothing": lambda: client.update_log_settings({"nothing": 3}),
        "memory": lambda: client.get_system_shared_memory_status(as_json=True),
        "memory of a region": lambda: client.get_cuda_shared_memory_status("r"),
        "register": lambda: client.register_system_shared_memory("r", "/r", 8),
        "register cuda": lambda: client.register_cuda_shared_memory("r", b"", 0, 8),
        "unregister": client.unregister_system_shared_memory,
    }
    return {name: outcome(ask) for name, ask in asks.items()}


def compression(client: Any, target: str) -> dict[str, Any]:
    report = {
        name: outcome(lambda name=name: _y(client.infer("fixed", inputs(), compression_algorithm=name)))
        for name in ("gzip", "deflate")
    }
    with grpc.insecure_channel(target, compression=grpc.Compression.Gzip, options=_LARGE) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        report["bomb"] = called(lambda: infer(bytes(256 << 20)))
        index = channel.unary_unary("/inference.GRPCInferenceService/RepositoryIndex")
        report["bomb where no tensors are"] = called(lambda: len(index(bytes(1 << 20))))
        stream = channel.stream_stream(STREAM)
        report["bomb in a stream"] = called(lambda: list(stream(iter([bytes(256 << 20)]))))
    return report


_LARGE = [("grpc.max_send_message_length", -1)]


def streams(client: Any, target: str) -> dict[str, Any]:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    report: dict[str, Any] = {"many": []}
    client.start_stream(lambda result, error: answers.put((result, error)), compression_algorithm="gzip")
    for number in range(700):  # more than may wait at a time
        client.async_stream_infer("nothing" if number == 5 else "fixed", inputs(), request_id=str(number))
    for _ in range(700):
        result, error = answers.get(timeout=60)
        if error is not None:
            report["many"].append(error.message())
            continue
        response = result.get_response()
        last = response.parameters["triton_final_response"].bool_param
        report["many"].append([response.id, last, _y(result) if response.id in ("0", "699") else None])
    client.stop_stream()
    with grpc.insecure_channel(target) as channel:
        stream = channel.stream_stream(STREAM)
        report["empty"] = called(lambda: len(list(stream(iter([])))))
        report["no message"] = called(lambda: [_stream_error(answer) for answer in stream(iter([b"\xff" * 9]))])
        large = message(model_name="fixed", item={"shape": [2, 16]}, raw_input_contents=[bytes(3 << 20)])
        report["large"] = called(lambda: [_stream_error(a) for a in stream(iter([large.SerializeToString()] * 3))])
    return report


def _stream_error(answer: bytes) -> str:
    return str(service_pb2.ModelStreamInferResponse.FromString(answer).error_message)


def health(target: str) -> dict[str, Any]:
    with grpc.insecure_channel(target) as channel:
        check = channel.unary_unary(f"{HEALTH}Check")
        watch = channel.unary_stream(f"{HEALTH}Watch")

        def first(request: bytes) -> str:
            call = watch(request)
            try:
                return str(next(call).hex())
            finally:
                call.cancel()

        def asked(service: str) -> bytes:
            return bytes([10, len(service)]) + service.encode()

        return {
            "server": called(lambda: check(b"").hex()),
            "service": called(lambda: check(asked("inference.GRPCInferenceService")).hex()),
            "unknown": called(lambda: check(asked("nothing")).hex()),
            "watch": called(lambda: first(b"")),
            "watch unknown": called(lambda: first(asked("nothing"))),
        }


def watched(target: str) -> list[str]:
    """Watch the health and hold an idle stream until the server has gone; say when watching has begun."""
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_stream(f"{HEALTH}Watch")(b"")
        idle = channel.stream_stream(STREAM)(_nothing())
        seen = [next(call).hex()]
        sys.stdout.write("watching\n")
        sys.stdout.flush()
        seen += [answer.hex() for answer in call]
        idle.cancel()
    return seen


def _nothing() -> Iterator[bytes]:
    time.sleep(20)
    yield from ()


def main(arguments: Iterable[str]) -> None:
    target, *rest = arguments
    if rest:
        json.dump(watched(target), sys.stdout)
        return
    client = library.InferenceServerClient(target)
    report = {
        "extensions": extensions(client),
        "compression": compression(client, target),
        "streams": streams(client, target),
        "health": health(target),
    }
    client.close()
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])

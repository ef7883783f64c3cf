"""One way to call the four clients of tritonclient: HTTP and gRPC, each in threads and with asyncio."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import queue
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final

import numpy as np
from tritonclient.utils import InferenceServerException

CLIENTS: Final = ("http", "grpc", "http.aio", "grpc.aio")
_ANSWER_S: Final = 20.0


class Asker:
    """A client, and what came of its calls.

    Args:
        client: One of `CLIENTS`.
        target: Host and port.

    Attributes:
        called: Names of the client's methods that were called.
    """

    def __init__(self, client: str, target: str) -> None:
        self.client = client
        self.target = target
        self.is_grpc = client.startswith("grpc")
        self.is_async = client.endswith("aio")
        self.library: Any = importlib.import_module(f"tritonclient.{client}")
        self.auth: Any = importlib.import_module(f"tritonclient.{client}.auth")
        self.called: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._handle = self._finished(self._open, target)

    def _open(self, target: str) -> Any:
        return self.library.InferenceServerClient(target)

    def _finished(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        async def run() -> Any:
            value = work(*arguments, **options)
            return await value if inspect.isawaitable(value) else value

        return self._loop.run_until_complete(run()) if self.is_async else work(*arguments, **options)

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the client and wait for what it returns; gRPC messages come as JSON."""
        self.called.add(method)
        function = getattr(self._handle, method)
        if "as_json" in inspect.signature(function).parameters:
            options["as_json"] = True
        return self._finished(function, *arguments, **options)

    def methods(self) -> set[str]:
        """Return the names of the client's public methods."""
        return {name for name in dir(self.library.InferenceServerClient) if not name.startswith("_")}

    # what requests are made of

    def input(self, name: str, array: np.ndarray[Any, Any], datatype: str = "FP32", **options: Any) -> Any:
        """Return an input that holds an array."""
        tensor = self.library.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, **options)
        return tensor

    def output(self, name: str, **options: Any) -> Any:
        """Return an output that is asked for."""
        return self.library.InferRequestedOutput(name, **options)

    def later(self, *arguments: Any, **options: Any) -> Any:
        """Return what `async_infer` answers."""
        if not self.is_grpc:
            return self.call("async_infer", *arguments, **options).get_result()
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.call("async_infer", *arguments, lambda result, error: answers.put((result, error)), **options)
        return _value(*answers.get(timeout=_ANSWER_S))

    def stream(
        self, requests: list[dict[str, Any]], count: int, compression: str | None = None
    ) -> list[dict[str, Any]]:
        """Send requests on one stream, and return what became of each of so many answers."""
        answers = (self._stream_async if self.is_async else self._stream)(requests, count, compression)
        return [outcome(partial(_received, *pair)) for pair in answers]

    def _stream(self, requests: list[dict[str, Any]], count: int, compression: str | None) -> list[tuple[Any, Any]]:
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.call(
            "start_stream",
            callback=lambda result, error: answers.put((result, error)),
            compression_algorithm=compression,
        )
        try:
            for request in requests:
                self.call("async_stream_infer", **request)
            return [answers.get(timeout=_ANSWER_S) for _ in range(count)]
        finally:
            self.call("stop_stream")

    def _stream_async(
        self, requests: list[dict[str, Any]], count: int, compression: str | None
    ) -> list[tuple[Any, Any]]:
        self.called.add("stream_infer")

        async def sent() -> AsyncIterator[dict[str, Any]]:
            for request in requests:
                yield request

        async def run() -> list[tuple[Any, Any]]:
            answers = []
            async for answer in self._handle.stream_infer(sent(), compression_algorithm=compression):
                answers.append(answer)
                if len(answers) == count:
                    break
            return answers

        return self._loop.run_until_complete(asyncio.wait_for(run(), _ANSWER_S))

    def close(self) -> None:
        """Close the client."""
        self.call("close")
        self._loop.close()


def outcome(ask: Callable[[], Any]) -> dict[str, Any]:
    """Return what a call came to: what it answered, or how it was refused."""
    try:
        return {"answer": ask()}
    except InferenceServerException as error:
        status = str(error.status()).removeprefix("StatusCode.")
        return {"refused": status, "message": error.message()}


def _received(result: Any, error: Any) -> dict[str, Any]:
    return described(_value(result, error))


def _value(result: Any, error: Any) -> Any:
    if error is not None:
        raise error
    return result


def described(result: Any) -> dict[str, Any]:
    """Return what an inference answered, as JSON: whose answer it is, and the tensors."""
    response = result.get_response()
    is_json = isinstance(response, dict)
    head = response if is_json else {name: getattr(response, name) for name in ("model_name", "model_version", "id")}
    outputs = {}
    for output in response.get("outputs", []) if is_json else response.outputs:
        name = output["name"] if is_json else output.name
        datatype = output["datatype"] if is_json else output.datatype
        array = result.as_numpy(name)
        outputs[name] = {"datatype": datatype, "shape": list(array.shape), "data": [_plain(x) for x in array.ravel()]}
    found = {name: head.get(name, "") for name in ("model_name", "model_version", "id")}
    parameters = response.get("parameters", {}) if is_json else dict.fromkeys(response.parameters, True)
    return {**found, "outputs": outputs, "parameters": sorted(parameters)}


def _plain(element: Any) -> Any:
    if isinstance(element, bytes):
        return element.decode()
    return element.item() if hasattr(element, "item") else element

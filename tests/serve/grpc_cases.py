"""Run in a process of its own, because kserve and tritonclient.grpc cannot be imported in one: ask over gRPC.

    python grpc_cases.py HOST:PORT

Prints a JSON object: for every case the status code and the message, or what was answered.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as library
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from tests.serve.builders import TYPES

ROWS = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)


def message(**changes: Any) -> service_pb2.ModelInferRequest:
    item = {"name": "x", "datatype": "FP32", "shape": [2, 16], **changes.pop("item", {})}
    contents = item.pop("contents", None)
    fields = {"model_name": "fixed", "raw_input_contents": [ROWS.tobytes()], **changes}
    request = service_pb2.ModelInferRequest(**fields)
    tensor = request.inputs.add(**item)
    if contents is not None:
        for name, values in contents.items():
            getattr(tensor.contents, name).extend(values)
    return request


BAD: dict[str, service_pb2.ModelInferRequest] = {
    "unknown model": message(model_name="nothing"),
    "unknown version": message(model_version="9"),
    "no inputs": service_pb2.ModelInferRequest(model_name="fixed"),
    "unknown name": message(item={"name": "z"}),
    "wrong datatype": message(item={"datatype": "FP64"}),
    "wrong shape": message(item={"shape": [2, 17]}),
    "negative size": message(item={"shape": [-1, 16]}),
    "absurd size": message(item={"shape": [2**62, 16]}),
    "too few bytes": message(raw_input_contents=[b"1234"]),
    "more raw contents than inputs": message(raw_input_contents=[b"", b""]),
    "no data": message(raw_input_contents=[]),
    "contents beside raw": message(item={"contents": {"fp32_contents": [1.0]}}),
    "contents in the wrong field": message(raw_input_contents=[], item={"contents": {"fp64_contents": [1.0] * 32}}),
    "contents in two fields": message(
        raw_input_contents=[], item={"contents": {"fp64_contents": [1.0] * 32, "fp32_contents": [1.0] * 32}}
    ),
    "too few elements": message(raw_input_contents=[], item={"contents": {"fp32_contents": [1.0]}}),
    "unknown output": message(outputs=[service_pb2.ModelInferRequest.InferRequestedOutputTensor(name="q")]),
    "NaN": message(raw_input_contents=[np.full(32, np.nan, np.float32).tobytes()]),
    "too many rows": message(item={"shape": [65, 16]}, raw_input_contents=[np.zeros(65 * 16, np.float32).tobytes()]),
    "too large": message(raw_input_contents=[bytes(5 << 20)]),
    "long id": message(id="a" * 2000),
}


def outcome(ask: Callable[[], Any]) -> list[Any]:
    try:
        return ["OK", ask()]
    except InferenceServerException as error:
        return [str(error.status()).removeprefix("StatusCode."), error.message()]


def infer(client: Any, model: str, arrays: dict[str, tuple[str, np.ndarray]]) -> dict[str, Any]:
    inputs = []
    for name, (datatype, array) in arrays.items():
        tensor = library.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    result = client.infer(model, inputs)
    return {
        output.name: [
            element.decode() if isinstance(element, bytes) else element
            for element in result.as_numpy(output.name).ravel().tolist()
        ]
        for output in result.get_response().outputs
    }


def main(target: str) -> None:
    client = library.InferenceServerClient(target)
    stub = client._client_stub
    report: dict[str, Any] = {"ready": client.is_server_ready(), "live": client.is_server_live(), "bad": {}}
    for name, request in BAD.items():
        try:
            stub.ModelInfer(request)
            report["bad"][name] = ["OK", ""]
        except library.grpc.RpcError as error:
            report["bad"][name] = [error.code().name, error.details()]
    typed = message(raw_input_contents=[], item={"contents": {"fp32_contents": ROWS.ravel().tolist()}})
    raw = stub.ModelInfer(typed).raw_output_contents[0]
    report["typed"] = np.frombuffer(raw, np.float32).tolist()
    report["binary"] = infer(client, "fixed", {"x": ("FP32", ROWS)})["y"]
    types = {f"in_{name}": (name, array) for name, (_, array) in TYPES.items()}
    report["types"] = infer(client, "types", types)
    report["metadata"] = client.get_model_metadata("input", as_json=True)
    report["unload"] = outcome(lambda: client.unload_model("whole"))
    report["unloaded"] = outcome(lambda: infer(client, "whole", {"x": ("FP32", ROWS)}))
    report["load"] = outcome(lambda: client.load_model("whole"))
    report["loaded"] = client.is_model_ready("whole")
    report["load nothing"] = outcome(lambda: client.load_model("nothing"))
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])

"""Write a gRPC request as bytes, or ask a server over gRPC once.

A process of its own, because tritonclient's protobuf messages and those of kserve cannot be in one:

    python -m tools.checks.serving.message write '{"name": "x", "shape": [2], "datatype": "FP32"}' x.raw request.bin
    python -m tools.checks.serving.message ask 127.0.0.1:8001 request.bin
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_TIMEOUT_S = 60.0


def write(tensor: str, raw: Path, target: Path) -> None:
    """Write a request to the model `model` with one raw tensor."""
    request = service_pb2.ModelInferRequest(model_name="model", raw_input_contents=[raw.read_bytes()])
    request.inputs.add(**json.loads(tensor))
    target.write_bytes(request.SerializeToString())


def ask(target: str, request: Path) -> None:
    """Send a request and print name, shape and values of the first output, which must be FP32."""
    with grpc.insecure_channel(target, options=[("grpc.max_send_message_length", -1)]) as channel:
        answer = channel.unary_unary(_INFER, response_deserializer=service_pb2.ModelInferResponse.FromString)(
            request.read_bytes(), timeout=_TIMEOUT_S
        )
    output = answer.outputs[0]
    if answer.raw_output_contents:
        values = np.frombuffer(answer.raw_output_contents[0], np.float32).tolist()
    else:
        values = list(output.contents.fp32_contents)
    print(json.dumps({"name": output.name, "shape": list(output.shape), "data": values}))


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        ask(sys.argv[2], Path(sys.argv[3]))

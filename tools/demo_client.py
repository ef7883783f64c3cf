"""Ask a server for the classes of a few digits, over HTTP and gRPC, with tritonclient: the client half of the demo.

    python -m tools.demo_client 127.0.0.1:8000 127.0.0.1:8001

Any server of the Open Inference Protocol v2 that holds the model `digits` will do.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http

from jr_onnx.data import load

COUNT = 8


def main() -> None:
    """Print the true classes and the answers of both transports; exits with 1 if they differ."""
    http_address, grpc_address = sys.argv[1:3]
    data = load("digits", split="test", limit=COUNT)
    print(f"  true classes  {' '.join(str(label) for label in data.labels)}")
    answers = [
        ask(module, address, data.images)
        for module, address in ((tritonclient.http, http_address), (tritonclient.grpc, grpc_address))
    ]
    for name, logits in zip(("HTTP", "gRPC"), answers, strict=True):
        print(f"  over {name}     {' '.join(str(label) for label in logits.argmax(axis=1))}")
    if not np.array_equal(answers[0], answers[1]):
        sys.exit("the two transports gave different answers")


def ask(module: ModuleType, address: str, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the logits (N, 10) that a server gives for images (N, 1, 8, 8)."""
    client = module.InferenceServerClient(address)
    try:
        metadata = client.get_model_metadata("digits", **({"as_json": True} if module is tritonclient.grpc else {}))
        request = module.InferInput(metadata["inputs"][0]["name"], list(images.shape), "FP32")
        request.set_data_from_numpy(images)
        answer = client.infer("digits", [request])
        logits: np.ndarray[Any, Any] = answer.as_numpy(metadata["outputs"][0]["name"])
        return logits
    finally:
        client.close()


if __name__ == "__main__":
    main()

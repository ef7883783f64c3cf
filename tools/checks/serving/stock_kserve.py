"""A server as one writes it with kserve alone, the peer of the measurements: python stock_kserve.py MODEL PORT PORT."""

from __future__ import annotations

import sys
from typing import Any


def main(path: str, http_port: int, grpc_port: int) -> None:
    """Serve one model under the name `model`, with per-request logging off."""
    sys.argv = sys.argv[:1]  # kserve parses the command line when it is imported
    import kserve
    import onnxruntime
    from kserve.logging import logger

    logger.setLevel("ERROR")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    class Model(kserve.Model):  # type: ignore[misc] # kserve has no type information
        """kserve's own way: tensors come as `InferInput` and go as `InferOutput`."""

        def __init__(self) -> None:
            super().__init__("model")
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self.input = self.session.get_inputs()[0].name
            self.output = self.session.get_outputs()[0].name
            self.ready = True

        def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
            del headers, response_headers
            (result,) = self.session.run(None, {self.input: payload.inputs[0].as_numpy()})
            output = kserve.InferOutput(self.output, list(result.shape), "FP32")
            output.set_data_from_numpy(result, binary_data=bool(payload.use_binary_outputs))
            return kserve.InferResponse(payload.id or "", "model", [output])

    print(f"ready: http://127.0.0.1:{http_port} and grpc://127.0.0.1:{grpc_port}", flush=True)
    server = kserve.ModelServer(
        http_port=http_port, grpc_port=grpc_port, enable_latency_logging=False, access_log_format=None
    )
    server.start([Model()])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

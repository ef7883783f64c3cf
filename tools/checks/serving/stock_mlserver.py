"""A server as one writes it with MLServer alone, the peer of the measurements.

    python stock_mlserver.py MODEL HTTP_PORT GRPC_PORT METRICS_PORT

Needs mlserver and onnxruntime, and nothing of this project: it runs in an environment of its own. Tensors are decoded
and encoded by MLServer's NumPy codec. Runs happen in the server's process (`parallel_workers=0`): the model takes less
time than its way to a worker and back. There is no line of log per request, and metrics stay on, as in `jr-onnx serve`.
The event loop is uvloop's, which MLServer's own command takes too.
"""

from __future__ import annotations

import sys
from typing import Any

import mlserver
import onnxruntime
import uvloop
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse


class Model(mlserver.MLModel):  # type: ignore[misc] # MLServer is not installed where this is checked
    """A custom runtime by MLServer's documentation: `load` opens the session, `predict` decodes, runs and encodes."""

    async def load(self) -> bool:
        """Open the session with one thread, as the other server does."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> Any:
        """Answer one request."""
        array = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        (result,) = self._session.run([self._output], {self._input: array})
        return InferenceResponse(
            model_name=self.name, model_version=self.version, outputs=[NumpyCodec.encode_output(self._output, result)]
        )


def main(path: str, http_port: int, grpc_port: int, metrics_port: int) -> None:
    """Serve one model under the name `model`."""
    settings = mlserver.Settings(
        debug=False,  # else it logs every request
        host="127.0.0.1",
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        parallel_workers=0,
        load_models_at_startup=False,
    )
    model = mlserver.ModelSettings(name="model", implementation=Model, parameters=ModelParameters(uri=path))
    print(f"ready: http://127.0.0.1:{http_port} and grpc://127.0.0.1:{grpc_port}", flush=True)
    uvloop.run(mlserver.MLServer(settings).start([model]))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))

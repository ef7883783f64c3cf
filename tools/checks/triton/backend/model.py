"""A backend for tritonserver in Python that stands in for the ONNX Runtime backend, for `tools/checks/triton/run.py`.

Triton's own backend is not on PyPI. This one takes its name and place, so that a model repository made for the real
one is loaded unchanged: it opens `model.onnx` with the ONNX Runtime of pip, refuses an interface that differs from
the configuration, as the real one does, and joins the requests that Triton hands over into one batch.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

# The stub that runs this file ignores PYTHONPATH.
sys.path.extend(os.environ["JR_ONNX_SITE_PACKAGES"].split(os.pathsep))

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

_NUMPY_TYPES = {"tensor(float)": "TYPE_FP32", "tensor(double)": "TYPE_FP64", "tensor(int64)": "TYPE_INT64"}


class TritonPythonModel:
    """One instance of a model; Triton calls the methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model of the version that Triton names."""
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"])
        folder = folder if (folder / "config.pbtxt").exists() else folder / args["model_name"]
        path = folder / args["model_version"] / "model.onnx"
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        for library in config.get("model_operations", {}).get("op_library_filename", []):
            options.register_custom_ops_library(library)
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.batched = config["max_batch_size"] > 0
        self.outputs = [output["name"] for output in config["output"]]
        _check_interface(config, self.session)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one scheduling step, in one run where the model takes batches."""
        feeds = [self._feed(request) for request in requests]
        if self.batched and len(feeds) > 1 and _same_shapes(feeds):
            joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
            edges = np.cumsum([len(next(iter(feed.values()))) for feed in feeds])[:-1]
            columns = [np.split(array, edges) for array in self.session.run(self.outputs, joined)]
            answers = [list(row) for row in zip(*columns, strict=True)]
        else:
            answers = [self.session.run(self.outputs, feed) for feed in feeds]
        return [self._response(arrays) for arrays in answers]

    def _feed(self, request: Any) -> dict[str, np.ndarray[Any, Any]]:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        known = (*self.session.get_inputs(), *self.session.get_overridable_initializers())
        scalars = {value.name for value in known if value.shape == []}
        return {name: array.reshape(()) if name in scalars else array for name, array in tensors.items()}

    def _response(self, arrays: list[np.ndarray[Any, Any]]) -> Any:
        named = zip(self.outputs, arrays, strict=True)
        tensors = [pb_utils.Tensor(name, np.atleast_1d(array)) for name, array in named]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _check_interface(config: dict[str, Any], session: ort.InferenceSession) -> None:
    """Refuse what the real backend refuses: other names, types or counts than the model has."""
    known = {value.name: value for value in (*session.get_inputs(), *session.get_overridable_initializers())}
    required = [entry["name"] for entry in config["input"] if not entry.get("optional")]
    if len(required) != len(session.get_inputs()):
        raise pb_utils.TritonModelException(
            f"configuration expects {len(required)} inputs, model provides {len(session.get_inputs())}"
        )
    known_outputs = {value.name: value for value in session.get_outputs()}
    for entries, values in ((config["input"], known), (config["output"], known_outputs)):
        for entry in entries:
            if entry["name"] not in values:
                raise pb_utils.TritonModelException(f"unexpected tensor {entry['name']!r}, allowed: {sorted(values)}")
            expected = _NUMPY_TYPES.get(values[entry["name"]].type, entry["data_type"])
            if entry["data_type"] != expected:
                raise pb_utils.TritonModelException(
                    f"{entry['name']!r} is configured as {entry['data_type']}, the model has {expected}"
                )


def _same_shapes(feeds: list[dict[str, np.ndarray[Any, Any]]]) -> bool:
    shapes = [{name: array.shape[1:] for name, array in feed.items()} for feed in feeds]
    return all(shape == shapes[0] for shape in shapes)

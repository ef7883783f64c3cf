"""What the extensions return, in the protocol's JSON forms; the gRPC messages are filled from the same forms.

configuration   what Triton would have in its config.pbtxt for the model
statistics      counts and times since the model was loaded (`statistics`)
trace, log      settings that never change here: this server traces nothing, and logs as it was started
shared memory   none: tensors travel in requests and answers
"""

from __future__ import annotations

import logging
from typing import Final

from jr_onnx.deploy.triton_config import LABELS_NAME
from jr_onnx.records import JsonValue
from jr_onnx.serve.faults import BadRequestError, UnimplementedError, UnknownError, quoted
from jr_onnx.serve.model import ServedModel
from jr_onnx.serve.tensors import BYTES, TensorSpec

TRACE: Final[dict[str, JsonValue]] = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}
_NO_SHARED_MEMORY: Final = "shared memory regions are not supported by this server, expected tensors in the request"


def configuration(model: ServedModel) -> dict[str, JsonValue]:
    """Return a model's configuration (Triton's `ModelConfig`)."""
    interface = model.interface
    largest = interface.max_rows if interface.batched else 0
    found: dict[str, JsonValue] = {
        "name": interface.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "version_policy": {"all": {}},
        "max_batch_size": largest,
        "input": [
            {
                **_tensor(spec, batched=largest > 0),
                "format": "FORMAT_NONE",
                "allow_ragged_batch": False,
                "optional": spec.optional,
            }
            for spec in interface.inputs.values()
        ],
        "output": [
            {
                **_tensor(spec, batched=largest > 0),
                "label_filename": LABELS_NAME if spec.name in interface.labels else "",
            }
            for spec in interface.outputs.values()
        ],
        "instance_group": [
            {
                "name": f"{interface.name}_0",
                "kind": "KIND_CPU" if model.on_cpu else "KIND_GPU",
                "count": model.instances,
            }
        ],
        "default_model_filename": model.path.name,
    }
    if model.join_rows > 1:
        found["dynamic_batching"] = {
            "preferred_batch_size": [model.join_rows],
            "max_queue_delay_microseconds": model.delay_us,
        }
    return found


def _tensor(spec: TensorSpec, *, batched: bool) -> dict[str, JsonValue]:
    kind = "STRING" if spec.datatype == BYTES else spec.datatype
    dims = spec.shape[1:] if batched else spec.shape
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": [*dims], "is_shape_tensor": False}


def log_settings() -> dict[str, JsonValue]:
    """Return how this server logs."""
    level = logging.getLogger("jr_onnx").getEffectiveLevel()
    return {
        "log_file": "",
        "log_info": level <= logging.INFO,
        "log_warning": level <= logging.WARNING,
        "log_error": level <= logging.ERROR,
        "log_verbose_level": 0,
        "log_format": "default",
    }


def keep_settings(what: str, wanted: dict[str, JsonValue], kept: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return settings that cannot be changed, unless the client asks for a change.

    Args:
        what: Whose settings, for messages.
        wanted: What a client wants them to be; None for a setting's default.
        kept: What they are.

    Raises:
        BadRequestError: There is no such setting.
        UnimplementedError: A client wants another value.
    """
    for name, value in wanted.items():
        if name not in kept:
            raise BadRequestError(f"there is no {what} setting {quoted(name)}, expected {', '.join(kept)}")
        if value is not None and value != kept[name] and [value] != kept[name]:
            raise UnimplementedError(f"the {what} setting {name} stays {quoted(kept[name])} on this server")
    return kept


def refuse_shared_memory() -> None:
    """Refuse to register a region.

    Raises:
        UnimplementedError: Always.
    """
    raise UnimplementedError(_NO_SHARED_MEMORY)


def expect_no_region(name: str) -> None:
    """Look for a region by name; without a name nothing is looked for.

    Raises:
        UnknownError: There is none of this name, for there is none at all.
    """
    if name:
        raise UnknownError(f"unable to find shared memory region {quoted(name)}: {_NO_SHARED_MEMORY}")

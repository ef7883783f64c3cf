"""Protobuf messages of the protocol that kserve lacks: those of Triton's extensions, and gRPC's health service.

Field numbers and types are those of Triton's `grpc_service.proto` and `model_config.proto`, as far as this server fills
them, and of gRPC's `health.proto`; a field of bytes stands for a message that kserve has, for both look the same. The
classes lie in a pool of their own: kserve and tritonclient both declare messages of these names to protobuf's common
pool.
"""

from __future__ import annotations

import re
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

_INFERENCE: Final = """
ModelConfigRequest: 1 string name, 2 string version
ModelConfigResponse: 1 ModelConfig config
ModelConfig: 1 string name, 2 string platform, 17 string backend, 3 ModelVersionPolicy version_policy, \
4 int32 max_batch_size, 5 repeated ModelInput input, 6 repeated ModelOutput output, \
11 ModelDynamicBatching dynamic_batching, 7 repeated ModelInstanceGroup instance_group, \
8 string default_model_filename
ModelVersionPolicy: 2 All all
All:
ModelInput: 1 string name, 2 DataType data_type, 3 Format format, 4 repeated int64 dims, 6 bool is_shape_tensor, \
7 bool allow_ragged_batch, 8 bool optional
ModelOutput: 1 string name, 2 DataType data_type, 3 repeated int64 dims, 4 string label_filename, 6 bool is_shape_tensor
ModelDynamicBatching: 1 repeated int32 preferred_batch_size, 2 uint64 max_queue_delay_microseconds
ModelInstanceGroup: 1 string name, 4 Kind kind, 2 int32 count
ModelStatisticsRequest: 1 string name, 2 string version
ModelStatisticsResponse: 1 repeated ModelStatistics model_stats
ModelStatistics: 1 string name, 2 string version, 3 uint64 last_inference, 4 uint64 inference_count, \
5 uint64 execution_count, 6 InferStatistics inference_stats, 7 repeated InferBatchStatistics batch_stats
StatisticDuration: 1 uint64 count, 2 uint64 ns
InferStatistics: 1 StatisticDuration success, 2 StatisticDuration fail, 3 StatisticDuration queue, \
4 StatisticDuration compute_input, 5 StatisticDuration compute_infer, 6 StatisticDuration compute_output, \
7 StatisticDuration cache_hit, 8 StatisticDuration cache_miss
InferBatchStatistics: 1 uint64 batch_size, 2 StatisticDuration compute_input, 3 StatisticDuration compute_infer, \
4 StatisticDuration compute_output
RepositoryIndexRequest: 1 string repository_name, 2 bool ready
RepositoryIndexResponse: 1 repeated ModelIndex models
ModelIndex: 1 string name, 2 string version, 3 string state, 4 string reason
SystemSharedMemoryStatusRequest: 1 string name
SystemSharedMemoryStatusResponse:
SystemSharedMemoryRegisterRequest: 1 string name, 2 string key, 3 uint64 offset, 4 uint64 byte_size
SystemSharedMemoryRegisterResponse:
SystemSharedMemoryUnregisterRequest: 1 string name
SystemSharedMemoryUnregisterResponse:
CudaSharedMemoryStatusRequest: 1 string name
CudaSharedMemoryStatusResponse:
CudaSharedMemoryRegisterRequest: 1 string name, 2 bytes raw_handle, 3 int64 device_id, 4 uint64 byte_size
CudaSharedMemoryRegisterResponse:
CudaSharedMemoryUnregisterRequest: 1 string name
CudaSharedMemoryUnregisterResponse:
ModelStreamInferResponse: 1 string error_message, 2 bytes infer_response
TraceSettingRequest: 1 map TraceValue settings, 2 string model_name
TraceSettingResponse: 1 map TraceValue settings
TraceValue: 1 repeated string value
LogSettingsRequest: 1 map LogValue settings
LogSettingsResponse: 1 map LogValue settings
LogValue: 1 choice bool bool_param, 2 choice uint32 uint32_param, 3 choice string string_param
"""
_HEALTH: Final = """
HealthCheckRequest: 1 string service
HealthCheckResponse: 1 ServingStatus status
"""
_ENUMS: Final = {
    "DataType": {
        "TYPE_INVALID": 0, "TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_UINT16": 3, "TYPE_UINT32": 4, "TYPE_UINT64": 5,
        "TYPE_INT8": 6, "TYPE_INT16": 7, "TYPE_INT32": 8, "TYPE_INT64": 9, "TYPE_FP16": 10, "TYPE_FP32": 11,
        "TYPE_FP64": 12, "TYPE_STRING": 13, "TYPE_BF16": 14,
    },
    "Format": {"FORMAT_NONE": 0, "FORMAT_NHWC": 1, "FORMAT_NCHW": 2},
    "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2},
    "ServingStatus": {"UNKNOWN": 0, "SERVING": 1, "NOT_SERVING": 2, "SERVICE_UNKNOWN": 3},
}  # fmt: skip
_FIELD: Final = re.compile(r"(?P<number>\d+) (?:(?P<label>repeated|map|choice) )?(?P<type>\w+) (?P<name>\w+)")
_Field = descriptor_pb2.FieldDescriptorProto


def _file(package: str, text: str, enums: tuple[str, ...]) -> descriptor_pb2.FileDescriptorProto:
    """Return the description of a package's messages, one in each line of the text."""
    file = descriptor_pb2.FileDescriptorProto(name=f"jr_onnx/{package}.proto", package=package, syntax="proto3")
    for name in enums:
        kind = file.enum_type.add(name=name)
        for label, number in _ENUMS[name].items():
            kind.value.add(name=label, number=number)
    for line in text.strip().splitlines():
        name, _, fields = line.partition(":")
        message = file.message_type.add(name=name)
        for match in _FIELD.finditer(fields):
            _add(message, package, **match.groupdict())
    return file


def _add(
    message: descriptor_pb2.DescriptorProto, package: str, *, number: str, label: str | None, type: str, name: str  # noqa: A002 - the pattern's group
) -> None:  # fmt: skip
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if label == "map":
        entry = message.nested_type.add(name=f"{name.capitalize()}CatalogueEntry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
        _set_type(entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL), package, type)
        field.label, field.type = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE
        field.type_name = f".{package}.{message.name}.{entry.name}"
        return
    if label == "repeated":
        field.label = _Field.LABEL_REPEATED
    elif label == "choice":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    _set_type(field, package, type)


def _set_type(field: Any, package: str, kind: str) -> None:
    scalar = getattr(_Field, f"TYPE_{kind.upper()}", None)
    if scalar is not None and kind not in _ENUMS:
        field.type = scalar
        return
    field.type = _Field.TYPE_ENUM if kind in _ENUMS else _Field.TYPE_MESSAGE
    field.type_name = f".{package}.{kind}"


def _classes() -> dict[str, type[Message]]:
    pool = descriptor_pool.DescriptorPool()
    found: dict[str, type[Message]] = {}
    for file in (
        _file("inference", _INFERENCE, ("DataType", "Format", "Kind")),
        _file("grpc.health.v1", _HEALTH, ("ServingStatus",)),
    ):
        pool.Add(file)
        for message in file.message_type:
            descriptor = pool.FindMessageTypeByName(f"{file.package}.{message.name}")
            found[message.name] = message_factory.GetMessageClass(descriptor)
    return found


_CLASSES: Final = _classes()


def message(name: str) -> type[Message]:
    """Return the class of a message.

    Args:
        name: Its name, for instance `ModelConfigRequest`.
    """
    return _CLASSES[name]

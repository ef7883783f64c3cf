"""The messages that kserve lacks, held against tritonclient's own descriptors in a process without kserve."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tools.checks.serving.processes import ROOT

pytest.importorskip("tritonclient", reason="tritonclient is not installed")

_COMPARE = """
import json, sys
from jr_onnx.serve.extensions import messages
from tritonclient.grpc import model_config_pb2, service_pb2

assert "kserve" not in sys.modules
wrong, seen = [], []

def kind(field):
    return field.message_type.name if field.message_type else field.enum_type.name if field.enum_type else field.type

def compare(ours, theirs):
    for field in ours.fields:
        other = theirs.fields_by_name.get(field.name)
        at = f"{ours.name}.{field.name}"
        seen.append(at)
        if other is None or field.number != other.number or field.is_repeated != other.is_repeated:
            wrong.append(at)
        elif at == "ModelStreamInferResponse.infer_response":  # bytes for a message: the same on the wire
            wrong.extend([at] if other.message_type is None or field.type != field.TYPE_BYTES else [])
        elif field.enum_type is not None:
            ours_values = {value.name: value.number for value in field.enum_type.values}
            values = {value.name: value.number for value in other.enum_type.values}
            if not ours_values.items() <= values.items():
                wrong.append(at)
        elif field.message_type is not None and other.message_type is not None:
            compare(field.message_type, other.message_type)
        elif kind(field) != kind(other):
            wrong.append(at)

names = [line.partition(":")[0] for line in messages._INFERENCE.replace("\\\\\\n", "").strip().splitlines()]
tops = [name for name in names if hasattr(service_pb2, name) or hasattr(model_config_pb2, name)]
for name in tops:
    module = service_pb2 if hasattr(service_pb2, name) else model_config_pb2
    compare(messages.message(name).DESCRIPTOR, getattr(module, name).DESCRIPTOR)
print(json.dumps({"wrong": wrong, "tops": tops, "seen": len(seen)}))
"""


def test_every_field_is_the_one_that_tritonclient_knows() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _COMPARE], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["wrong"] == []
    assert {"ModelConfig", "ModelStatistics", "TraceSettingRequest", "LogSettingsResponse"} <= set(report["tops"])
    assert len(report["tops"]) > 25
    assert report["seen"] > 100

"""Model files: read without loading weights, written atomically, external data placed with them."""

from jr_onnx.modelfile.external import (
    ExternalMode,
    absorb,
    check,
    external_file,
    external_place,
    external_tensors,
    place_external_data,
    resolve,
    tensors,
)
from jr_onnx.modelfile.guard import readable
from jr_onnx.modelfile.load import ModelFile, from_proto, load, name_of
from jr_onnx.modelfile.messages import copied
from jr_onnx.modelfile.save import (
    assemble,
    atomic_path,
    atomic_write,
    content_digest,
    refuse_target,
    save,
    serialised,
    write_chunks,
)
from jr_onnx.modelfile.text import require_text
from jr_onnx.modelfile.whole import load_whole, whole

__all__ = [
    "ExternalMode",
    "ModelFile",
    "absorb",
    "assemble",
    "atomic_path",
    "atomic_write",
    "check",
    "content_digest",
    "copied",
    "external_file",
    "external_place",
    "external_tensors",
    "from_proto",
    "load",
    "load_whole",
    "name_of",
    "place_external_data",
    "readable",
    "refuse_target",
    "require_text",
    "resolve",
    "save",
    "serialised",
    "tensors",
    "whole",
    "write_chunks",
]

"""Convert a model to another opset before it is rewritten, with onnx.version_converter, and list what that changed."""

from __future__ import annotations

import hashlib

import onnx
from onnx import version_converter

from jr_onnx.errors import ModelError, blaming
from jr_onnx.modelfile import ModelFile, assemble
from jr_onnx.modelfile.wire import Payloads
from jr_onnx.rewrite.differences import conversion_summary
from jr_onnx.rewrite.expansion import expanded_size
from jr_onnx.rewrite.scopes import main_scope, top_scopes


def convert(source: ModelFile, opset: int) -> tuple[ModelFile, list[str]]:
    """Return the model at another opset, and lines that say what the conversion changed.

    Raises:
        ModelError: The opset does not exist, or the converter does not know how.
    """
    newest = onnx.defs.onnx_opset_version()
    if not 7 <= opset <= newest:
        raise ModelError(f"--opset is {opset}, expected 7 to {newest}")
    if main_scope(source.proto).opset == opset:
        return source, []
    full = assemble(source.proto, source.payloads)
    # The converter replaces every call by the body of its function, in time and memory that nothing else bounds.
    expanded_size(top_scopes(source.proto))
    what = f"onnx cannot convert this model from opset {main_scope(source.proto).opset} to {opset}"
    with blaming(what, ModelError, hint="Try another opset, or export the model again"):
        converted = version_converter.convert_version(full, opset)
    data = converted.SerializeToString(deterministic=True)
    result = ModelFile(source.path, converted, Payloads(), hashlib.sha256(data).hexdigest(), len(data))
    return result, conversion_summary(full, converted)

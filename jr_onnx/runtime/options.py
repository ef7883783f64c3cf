"""Session options of our own that agree with the caller's, which stay untouched and can be used again."""

from __future__ import annotations

import threading

import onnx
from onnx import TensorProto, helper

from jr_onnx.runtime.running import SessionOptions

_lock = threading.Lock()


def copy_options(options: SessionOptions | None) -> SessionOptions:
    """Return a copy of session options; new ones for None.

    Configuration entries, dimension overrides, threads and all else come along. Custom operators do not: ONNX Runtime
    keeps them apart, and gives no way to read them.
    """
    import onnxruntime

    if options is None:
        new: SessionOptions = onnxruntime.SessionOptions()
        return new
    # ONNX Runtime has no copy constructor in Python, but a session hands out a copy of what it was opened with.
    with _lock:
        saved = options.optimized_model_filepath, options.enable_profiling, options.intra_op_num_threads
        try:
            options.optimized_model_filepath, options.enable_profiling, options.intra_op_num_threads = "", False, 1
            probe = onnxruntime.InferenceSession(_smallest_model(), options, providers=["CPUExecutionProvider"])
        finally:
            options.optimized_model_filepath, options.enable_profiling, options.intra_op_num_threads = saved
    copy: SessionOptions = probe.get_session_options()
    copy.optimized_model_filepath, copy.enable_profiling, copy.intra_op_num_threads = saved
    return copy


def knows_jump(options: SessionOptions) -> bool:
    """Tell whether the op library was registered with session options: it must not be registered twice."""
    import onnxruntime

    from jr_onnx.semantics import OP_DOMAIN, OP_TYPE, OP_VERSION

    node = helper.make_node(OP_TYPE, ["x"], ["y"], domain=OP_DOMAIN, kappa=0.5)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(OP_DOMAIN, OP_VERSION)]
    with _lock:
        saved = options.optimized_model_filepath, options.enable_profiling, options.log_severity_level
        try:
            options.optimized_model_filepath, options.enable_profiling, options.log_severity_level = "", False, 4
            onnxruntime.InferenceSession(
                _model(node, imports), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception:  # noqa: BLE001 - whatever it is, the operator cannot be used
            return False
        finally:
            options.optimized_model_filepath, options.enable_profiling, options.log_severity_level = saved
    return True


def _smallest_model() -> bytes:
    return _model(helper.make_node("Identity", ["x"], ["y"]), [helper.make_opsetid("", 17)])


def _model(node: onnx.NodeProto, imports: list[onnx.OperatorSetIdProto]) -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([node], "probe", values[:1], values[1:])
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())

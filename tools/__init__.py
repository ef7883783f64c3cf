"""Programs of the checkout, run as `python -m tools.NAME`; none of them is in the wheel."""

# It switches off ONNX Runtime's usage data, and a tool may import onnxruntime before anything else of this package.
import jr_onnx  # noqa: F401

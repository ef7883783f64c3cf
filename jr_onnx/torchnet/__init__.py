"""An ONNX classifier as a torch module with gradients, and a replaceable derivative at every JumpReLU site."""

from jr_onnx.torchnet.comparison import Comparison
from jr_onnx.torchnet.jump import SiteBackward
from jr_onnx.torchnet.loading import load
from jr_onnx.torchnet.module import OnnxModule
from jr_onnx.torchnet.parity import ParityReport, check_parity
from jr_onnx.torchnet.settings import PassSettings
from jr_onnx.torchnet.sites import TorchSite

__all__ = [
    "Comparison",
    "OnnxModule",
    "ParityReport",
    "PassSettings",
    "SiteBackward",
    "TorchSite",
    "check_parity",
    "load",
]

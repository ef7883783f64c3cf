"""Attacks on classifiers: the paper's own and the adaptive ones; see `base.Attack` for the contract."""

from jr_onnx.attack.apgd import APGD, TargetedAPGD
from jr_onnx.attack.base import Attack
from jr_onnx.attack.ddn import DDN
from jr_onnx.attack.deepfool import DeepFool
from jr_onnx.attack.fgsm import FGSM, IteratedFGSM
from jr_onnx.attack.fmn import FMN
from jr_onnx.attack.pgd import PGD
from jr_onnx.attack.result import AttackResult
from jr_onnx.attack.square import Square
from jr_onnx.attack.surrogate import adaptive_backwards, parse_backward
from jr_onnx.attack.target import ArrayTarget, Target
from jr_onnx.attack.torch_target import TorchTarget
from jr_onnx.attack.transfer import RescaledDeepFool, kappa_sources
from jr_onnx.attack.trust_region import TrustRegion

__all__ = [
    "APGD",
    "DDN",
    "FGSM",
    "FMN",
    "PGD",
    "ArrayTarget",
    "Attack",
    "AttackResult",
    "DeepFool",
    "IteratedFGSM",
    "RescaledDeepFool",
    "Square",
    "Target",
    "TargetedAPGD",
    "TorchTarget",
    "TrustRegion",
    "adaptive_backwards",
    "kappa_sources",
    "parse_backward",
]

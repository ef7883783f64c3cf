"""Choose kappa on a validation split: what it costs in accuracy, what it buys, and whether that is more than chance."""

from jr_onnx.tune.objective import Objective
from jr_onnx.tune.records import TunePoint, TuneResult
from jr_onnx.tune.sweep import TuneRequest, tune_kappa

__all__ = ["Objective", "TunePoint", "TuneRequest", "TuneResult", "tune_kappa"]

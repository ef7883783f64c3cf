"""Measurements: what a retrofit costs against its original, all variants in one interleaved run."""

from jr_onnx.bench.records import BenchReport, CaseResult, Row
from jr_onnx.bench.run import BenchRequest, benchmark

__all__ = ["BenchReport", "BenchRequest", "CaseResult", "Row", "benchmark"]

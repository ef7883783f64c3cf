"""Results of every command, made by hand."""

from __future__ import annotations

from dataclasses import replace

from jr_onnx.bench.records import BenchReport, CaseResult, Environment, Row
from jr_onnx.harden import Contest, Hardening, HardenResult, Recipe
from jr_onnx.harden.validation import EpochRow
from jr_onnx.reproduce.result import Cell, ItemResult
from jr_onnx.tune import TunePoint, TuneResult
from tests.report.test_report import made


def tuning(objective: str = "adaptive") -> TuneResult:
    points = tuple(
        TunePoint(kappa, {"act": kappa}, clean, 0.98 - clean, value, value - 0.4, value - 0.5, value - 0.3, p, allowed)
        for kappa, clean, value, p, allowed in ((0.0, 0.98, 0.4, 1.0, True), (0.5, 0.97, 0.6, 0.001, True),
                                                (1.0, 0.8, 0.7, 0.001, False))
    )  # fmt: skip
    measure = "mean relative perturbation, DeepFool" if objective == "paper" else "robust accuracy, linf 0.1"
    return TuneResult(
        model="net.onnx", data="digits (validation)", data_sha256="d" * 64, samples=200, attacked=50,
        objective=objective, measure=measure, max_drop=0.01, points=points, recommended=1,
        reason="the largest gain", seed=0, versions={}, host="a machine",
    )  # fmt: skip


def benchmark() -> BenchReport:
    place = Environment("2026-11-27T00:00:00Z", "a chip", ("avx2",), 2, "unknown", 0.1, 0.1, "1.32", "3.11", "1", True)
    rows = (
        Row("original", "onnxruntime", 1.0, 1.5, 1.0, 1.0, 1.0),
        Row("thresholded", "plain", 1.2, 1.9, 1.21, 1.15, 1.26),
    )
    case = CaseResult(8, 1, "cpu", 20, rows, {}, {})
    return BenchReport("net.onnx", "a" * 64, 0.5, 4, (case,), place, ("the machine was busy",))


def hardening() -> Hardening:
    rows = tuple(
        EpochRow(epoch, 0.5, clean, robust, robust + 0.02, 0.0, {})
        for epoch, clean, robust in ((0, 0.99, 0.1), (1, 0.95, 0.5), (2, 0.96, 0.7))
    )
    return Hardening("1", "net.onnx", "a" * 64, Recipe(eps=0.1), "digits (train)", "e" * 64, "data", ("w",), "",
                     rows, 2, "", {})  # fmt: skip


def hardened() -> HardenResult:
    evaluation, _ = made()
    contest = Contest({"original": "net.onnx", "hardened": "net.hardened.onnx"}, {"hardened": evaluation}, "hardened",
                      "it is harder to fool")  # fmt: skip
    return HardenResult("net.hardened.onnx", hardening(), (), contest)


def matrix() -> ItemResult:
    cells = tuple(
        Cell(f"gray box, PGD until fooled: from kappa {source}", goal, "accuracy", value, value - 5, value + 5, 100)
        for source, goal, value in (("0", "0", 3.0), ("0", "1", 80.0), ("1", "0", 40.0), ("1", "1", 5.0))
    )
    return ItemResult("figure-7a", "Figure 7(a): source kappa against target kappa", "matrix", ("0", "1"), cells,
                      ("a note",), {"other.onnx": "f" * 64})  # fmt: skip


def iterations() -> ItemResult:
    cells = tuple(
        Cell(f"{label}, step 0.01", str(count), "accuracy", 90.0 - count, 85.0 - count, 95.0 - count, 100, 88.0)
        for label in ("ReLU", "JumpReLU")
        for count in (0, 5, 40)
    )
    return ItemResult("figure-8a", "Figure 8(a): accuracy against iterations", "curves", ("0", "5", "40"), cells)


def table() -> ItemResult:
    cells = (
        Cell("base", "PGD", "accuracy", 60.0, 55.0, 65.0, 100, 61.0),
        Cell("DF", "PGD", "relative", None, None, None, 0, 12.0),
    )
    return ItemResult("table-1a", "Table 1(a)", "table", ("PGD",), cells)


def activations() -> ItemResult:
    cells = tuple(Cell("ReLU", f"{at:g}", "value", max(at, 0.0), None, None, 0) for at in (-1.0, 0.0, 1.0))
    return replace(table(), item="figure-3", title="Figure 3: activations", layout="curves", columns=("-1", "0", "1"),
                   cells=cells)  # fmt: skip

"""Rewrite and verify every model of a folder and the real graphs inside the onnx package; write the table of results.

    python -m tools.checks.zoo [FOLDER] --output docs/model-zoo.md

Every model is rewritten as a file with the lowering that `auto` chooses, and that file is verified against its original
together with every other possible lowering. Exits with code 1 if a model that has sites is not verified.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from jr_onnx.errors import JrError, ModelError, NoSiteError, RefusalError
from jr_onnx.modelfile import load
from jr_onnx.rewriter import RewriteResult, rewrite
from jr_onnx.rewriter.contract import check
from jr_onnx.rewriter.scopes import main_scope
from jr_onnx.verifier import VerifyReport, prove_conversion, verify
from tools.development import data_folder

Array = npt.NDArray[Any]
KAPPA = 0.06
CONVERT_TO = 13


def known_inputs(name: str) -> list[dict[str, Array]] | None:
    """Return inputs that random numbers cannot guess: the sample rate chooses the branch of silero-vad."""
    if "silero_vad" not in name:
        return None
    generator = np.random.default_rng(0)
    rates = [(16000, 512)] if "16k" in name else [(16000, 512), (8000, 256)]
    return [
        {
            "input": generator.standard_normal((1, length)).astype(np.float32) * np.float32(0.1),
            "state": generator.standard_normal((2, 1, 128)).astype(np.float32) * np.float32(0.1),
            "sr": np.asarray(rate, dtype=np.int64),
        }
        for rate, length in rates
    ]


@dataclass(frozen=True)
class Outcome:
    """One row of the table."""

    name: str
    producer: str
    opset: int
    ir_version: int
    sites: str
    lowering: str
    verified: str
    flips: str
    verdict: str
    seconds: float
    status: str

    @property
    def failed(self) -> bool:
        """Whether the row is an alarm."""
        return self.status == "failed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and return the exit code."""
    options = _parse(arguments)
    paths = sorted(options.folder.rglob("*.onnx"))
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    paths += [] if options.no_light else sorted(light.glob("*.onnx"))
    paths = [path for path in paths if not options.only or any(word in path.name for word in options.only)]
    if not paths:
        print(f"no .onnx file in {options.folder}", file=sys.stderr)
        return 2
    outcomes = []
    for path in paths:
        for outcome in examine(path, options.folder, options.samples, options.reference_samples):
            outcomes.append(outcome)
            print(_line(outcome), flush=True)
    print(summary(outcomes))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(page(outcomes, options.samples, options.reference_samples), encoding="utf-8")
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Rewrite and verify every model of a folder.")
    models = data_folder() / "onnx"
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=models,
        help="searched with its sub-folders for .onnx files (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, help="Markdown page to write")
    parser.add_argument("--samples", type=int, default=2, help="inputs for every model")
    parser.add_argument("--reference-samples", type=int, default=1, help="of these for ONNX's reference evaluator")
    parser.add_argument("--no-light", action="store_true", help="leave the models inside the onnx package out")
    parser.add_argument("--only", action="append", metavar="WORD", help="only files whose name holds this; repeatable")
    return parser.parse_args(arguments)


def examine(path: Path, folder: Path, samples: int, reference_samples: int) -> Iterator[Outcome]:
    """Rewrite and verify one model; a model below opset 7 gives two rows, the refusal and the converted one."""
    empty = _blank(path, folder)
    try:
        yield _examine(path, empty, samples, reference_samples, None)
    except RefusalError as error:
        yield replace(empty, verdict=f"refused: {error}", status="refused")
        if empty.opset < 7:
            converted = replace(empty, name=f"{empty.name} (--opset {CONVERT_TO})")
            yield _guarded(path, converted, samples, reference_samples, CONVERT_TO)
    except JrError as error:
        yield _unusable(path, empty, error)


def _guarded(path: Path, row: Outcome, samples: int, reference_samples: int, opset: int) -> Outcome:
    try:
        return _examine(path, row, samples, reference_samples, opset)
    except JrError as error:
        return _unusable(path, row, error)


def _examine(path: Path, row: Outcome, samples: int, reference_samples: int, opset: int | None) -> Outcome:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            prove = prove_conversion if opset is not None else None
            file, result = rewrite(path, KAPPA, output=Path(scratch) / path.name, opset=opset, prove=prove)
        except NoSiteError as error:
            has_relu = "cannot be rewritten" in error.message or "no site can be" in error.message
            return replace(row, verdict=error.message, status="refused" if has_relu else "no site")
        inputs = known_inputs(path.name)
        reference = len(inputs) if inputs is not None else reference_samples
        report = verify(file, original=path, inputs=inputs, samples=samples, reference_samples=reference)
    return _row(row, result, report, time.perf_counter() - start)


def _blank(path: Path, folder: Path) -> Outcome:
    name = str(path.relative_to(folder)) if path.is_relative_to(folder) else f"onnx/light/{path.name}"
    try:
        proto = load(path).proto
    except ModelError as error:
        return Outcome(name, "", 0, 0, "", "", "", "", str(error), 0.0, "unusable")
    producer = f"{proto.producer_name} {proto.producer_version}".strip()
    return Outcome(name, producer, main_scope(proto).opset, proto.ir_version, "", "", "", "", "", 0.0, "")


def _row(row: Outcome, result: RewriteResult, report: VerifyReport, seconds: float) -> Outcome:
    forms = Counter(site.form for site in result.sites)
    passed = sum(item.verdict == "passed" for item in report.checks)
    refused = "; ".join(text.split(":", 1)[0] + " impossible" for text in report.refused_lowerings)
    gaps = sorted({f"{item.what} ({_short(item.detail)})" for item in report.not_run})
    words = f"{passed} checks passed" + (f", not run: {'; '.join(gaps)}" if gaps else "")
    if not report:
        words = f"FAILED: {report.failures[0]}" if report.failures else f"model not run: {report.reason}"
    return replace(
        row,
        sites=", ".join(f"{count} {form}" for form, count in sorted(forms.items())),
        lowering=", ".join(dict.fromkeys(site.lowering for site in result.sites)),
        verified=", ".join(name for name in report.lowerings if name != "the file")
        + (f" ({refused})" if refused else ""),
        flips=str(report.flips),
        verdict=words,
        seconds=seconds,
        status="not run" if report.conclusion == "model not run" else report.conclusion,
    )


def _unusable(path: Path, row: Outcome, error: JrError) -> Outcome:
    """Tell a model that was unusable before from a failure of the rewrite."""
    import onnxruntime

    try:
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        runs = True
    except Exception:  # noqa: BLE001 - ONNX Runtime raises a dozen classes
        runs = False
    problem = check(load(path).proto).problem if row.status != "unusable" else row.verdict
    if not runs and problem is not None:
        words = f"unusable before the rewrite: {problem}"
        return replace(row, verdict=words, status="unusable")
    return replace(row, verdict=f"FAILED: {error}", status="failed")


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."


def _line(outcome: Outcome) -> str:
    return f"{outcome.status:9} {outcome.seconds:6.1f} s  {outcome.name}: {outcome.sites or '-'}; {outcome.verdict}"


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return the counts in one line."""
    counts = Counter(outcome.status for outcome in outcomes)
    names = ("verified", "not run", "no site", "refused", "unusable", "failed")
    rewritten = counts["verified"] + counts["not run"] + counts["failed"]
    return f"rewritten {rewritten}, " + ", ".join(f"{name} {counts[name]}" for name in names)


def page(outcomes: Sequence[Outcome], samples: int, reference_samples: int) -> str:
    """Return the Markdown page."""
    import onnxruntime

    lines = [
        "# Real models, rewritten and verified",
        "",
        "Written by `python -m tools.checks.zoo`; do not edit. Third-party models and the `light` graphs of the onnx "
        f"package, kappa {KAPPA}, {samples} random inputs each (silero-vad: one a sample rate), {reference_samples} of "
        f"them in ONNX's reference evaluator; onnxruntime {onnxruntime.__version__} on the CPU, onnx "
        f"{onnx.__version__}. What each check compares is in [verify.md](verify.md).",
        "",
        f"**{summary(outcomes)}.**",
        "",
        "Every file was rewritten with the lowering that `auto` chose. "
        "`+ op library` is the custom lowering with its kernel registered; without it the function in the file runs.",
        "",
        "| model | producer | opset | IR | sites | auto | verified lowerings | flips | result |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        cells = (
            outcome.name, outcome.producer, str(outcome.opset), str(outcome.ir_version), outcome.sites or "0",
            outcome.lowering, outcome.verified, outcome.flips, outcome.verdict,
        )  # fmt: skip
        lines.append("| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

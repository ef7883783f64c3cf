"""Golden models: ONNX text in, the command line run on it, and the whole result compared with what stands below it.

A file holds its flags on top, the model, a line `# output`, and the expectation. `JR_UPDATE_GOLDEN=1 pytest
tests/rewriter/test_golden.py` writes the expectations again; read the diff before committing it.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import onnx
import pytest
from onnx import parser

from jr_onnx import provenance
from jr_onnx.cli.app import run
from jr_onnx.modelfile import load
from jr_onnx.rewriter import restore
from tests.rewriter.rendering import render

FOLDER = Path(__file__).parent / "golden"
CASES = sorted(FOLDER.glob("*.txt"))
DIVIDER = "\n# output\n"


def read_case(path: Path) -> tuple[list[str], onnx.ModelProto, str]:
    text, _, expected = path.read_text(encoding="utf-8").partition(DIVIDER)
    first, _, body = text.partition("\n")
    assert first.startswith("# flags:"), f"{path.name} lacks its flags"
    return shlex.split(first.removeprefix("# flags:")), parser.parse_model(body), expected


def outcome(model: onnx.ModelProto, flags: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what `jr-onnx rewrite` made of the model, as text."""
    source, output = folder / "model.onnx", folder / "out.onnx"
    onnx.save(model, source)
    code = run(["rewrite", str(source), "-o", str(output), "--json", *flags])
    captured = capsys.readouterr()
    if code:
        assert not output.exists()
        return f"exit code {code}\n{captured.err}{_findings(source, capsys)}".replace(f"{folder}/", "")
    result = json.loads(captured.out)
    written = load(output).proto
    provenance.remove(written)
    lines = [render(written), ""]
    for site in result["sites"]:
        cap = f", cap {site['cap']:g}" if site["cap"] is not None else ""
        lines.append(f"site {site['id']}: {site['form']}, {site['dtype']}, kappa {site['kappa']!r}{cap}, "
                     f"{site['lowering']} ({site['reason']})")  # fmt: skip
    lines += [f"skipped {item}" for item in result["skipped"]]
    lines += [f"refused {item['id']} ({item['op_type']}): {item['reason']}" for item in result["refusals"]]
    lines += [f"change: {item}" for item in result["changes"]]
    lines += [f"warning: {item}" for item in result["warnings"]]
    return "\n".join(lines) + "\n"


def _findings(source: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["inspect", str(source), "--json"]) in (0, 3)
    table = json.loads(capsys.readouterr().out)
    lines = [f"site {item['id']}: {item['form']}, {item['dtype']}\n" for item in table["sites"]]
    lines += [f"refused {item['id']} ({item['op_type']}): {item['reason']}\n" for item in table["refusals"]]
    lines += [f"other {item['id']} ({item['op_type']}): {item['reason']}\n" for item in table["others"]]
    return "".join(lines)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_rewrite_is_the_golden_one(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, model, expected = read_case(path)
    found = outcome(model, flags, tmp_path, capsys)
    if os.environ.get("JR_UPDATE_GOLDEN"):
        text = path.read_text(encoding="utf-8").partition(DIVIDER)[0]
        path.write_text(text + DIVIDER + found, encoding="utf-8")
        return
    assert found == expected


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_restore_gives_the_golden_source_back(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, model, expected = read_case(path)
    if expected.startswith("exit code") or "--opset" in flags:
        # A refused model has nothing to restore; a converted one comes back as the conversion, not as the source.
        return
    source, output = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(model, source)
    assert run(["rewrite", str(source), "-o", str(output), *flags]) == 0, capsys.readouterr().err
    back = restore(onnx.load(output))
    assert back.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_there_are_golden_files_for_every_form_and_lowering() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in CASES)
    for form in ("relu", "clip", "max", "fused_conv", "fused_gemm", "nchwc_conv"):
        assert f": {form}, " in text, form
    for lowering in ("where", "cast_mul", "thresholded", "custom"):
        assert f", {lowering} (" in text, lowering
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        assert f", {dtype}, kappa" in text, dtype

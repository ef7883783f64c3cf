"""Text is plain English in the field's words: expressions that were once used here, and what to write instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Each entry: a regular expression (any case), and what an engineer would write.
INSTEAD = {
    r"\bkin of\b|\b(its|their) kin\b": "what they are, for example: ReLU-like operators",
    r"of all random numbers": "random seed",
    r"\b(do )?everything but writing": "write nothing",
    r"\bgo(es)? on where it (was|stopped)": "an interrupted run resumes",
    r"free (batch )?ax[ei]s": "dynamic axes",
    r"\beverybody\b": "anyone, every client",
    r"\bwhoever\b": "anyone who, or any process that",
    r"\bknows? no\b": "has no",
    r"\bdo(es)? not add up\b": "count mismatch",
    r"nothing to judge by": "no data for it",
    r"\bin the house\b": "in flight",
    r"expected 1 and 0 or more": "must be >= 1",
    r"\b(leaves|left) with (exit )?(code )?\d|\b(leaves|left) with exit": "exits with code",
    r"\bof late\b": "recently",
    r"\bas ever\b": "as usual",
    r"\banew\b": "again; start over",
    r"\bbut for (rounding|its|their|those|one axis|the data|flips)\b": "except, up to",
    r"\btold apart\b": "distinguished",
    r"\bwithout a word\b": "silently",
    r"\bgo(es)? on undisturbed": "keeps running",
}
WHERE = (
    "jr_onnx",
    "tools",
    "models",
    "ops",
    "docs",
    "tests",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "Makefile",
)
SUFFIXES = (".py", ".md", ".h", ".cc", ".cu", ".cuh", ".html", ".css", ".sh", ".yml", "")


def texts() -> dict[str, str]:
    roots = [ROOT / name for name in WHERE]
    paths = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*"))]
    kept = [path for path in paths if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts]
    kept.remove(Path(__file__).resolve())
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in kept}


TEXTS = texts()


def test_there_is_text_to_look_at() -> None:
    assert {"README.md", "docs/rewrite.md", "jr_onnx/errors.py", "tools/demo.py"} <= TEXTS.keys()


@pytest.mark.parametrize("expression", INSTEAD)
def test_no_text_uses(expression: str) -> None:
    pattern = re.compile(expression.replace(" ", r"\s+(?:#\s*)?"), re.IGNORECASE)
    found = [
        f"{name}:{text[: match.start()].count(chr(10)) + 1}: {' '.join(match[0].split())!r}"
        for name, text in TEXTS.items()
        for match in pattern.finditer(text)
    ]
    assert not found, f"write {INSTEAD[expression]!r} instead of\n" + "\n".join(found)

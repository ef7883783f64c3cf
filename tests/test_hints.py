"""A hint is read on the command line and in Python: what only one of them knows is marked as such, or said for both."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "jr_onnx"
# A Python argument: a word, =, and a value. Options (--value NAME=...), parts of a preprocessing or of a specification,
# arguments of other programs and variables of the environment look alike, and are understood on the command line.
_ARGUMENT = re.compile(r"(?<![\w;?&-])([a-z][a-z_]*)=(?!=)")
_NO_ARGUMENT = {
    "size",
    "resize",
    "range",
    "layout",
    "order",
    "mean",
    "std",
    "zipmap",
    "options",
    "axis",
    "return_inverse",
}
# Raised only by classes and functions that no command reaches with other arguments than their own.
PYTHON_ONLY = {
    "attack/target.py",
    "attack/deepfool.py",
    "attack/surrogate.py",
    "torchnet/module.py",
    "runtime/opening.py",
}


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "X" for part in node.values)
    if isinstance(node, ast.BinOp | ast.IfExp):
        return " ".join(_text(part) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr))
    return ""


def _hints(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for keyword in node.keywords if isinstance(node, ast.Call) else ():
            if keyword.arg == "hint":
                yield keyword.value.lineno, _text(keyword.value)


def _complaint(text: str) -> str | None:
    before = re.split(r"[iI]n Python|Python function", text)[0]
    return next((name for name in _ARGUMENT.findall(before) if name not in _NO_ARGUMENT), None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Choose another with output=...", "output"),
        ("Give the others a value (--value NAME=NUMBER, in Python values={...})", None),
        ("Use the preprocessing range=0,255", None),
        ("Add ?layout=NCHW or ?layout=NHWC", None),
    ],
)
def test_the_check_knows_a_python_argument(text: str, complaint: str | None) -> None:
    assert _complaint(text) == complaint


def test_no_hint_names_a_python_argument_alone() -> None:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name not in PYTHON_ONLY:
            found |= {f"{name}:{line}": text for line, text in _hints(path) if _complaint(text)}
    assert found == {}

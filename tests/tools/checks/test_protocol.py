"""The check of the protocol: this server against docs/triton.md, both servers where Triton is, its own logic."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.checks.protocol.table import columns_of, differs, shown, table
from tools.checks.serving.processes import ROOT

ENVIRONMENT_VARIABLE = "JR_ONNX_TRITON_ENVIRONMENT"


def _checked(*options: str) -> None:
    pytest.importorskip("tritonclient", reason="tritonclient is not installed")
    command = [sys.executable, "-m", "tools.checks.protocol", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "every call is answered as triton.md says\n"


@pytest.mark.slow
def test_this_server_answers_every_method_as_the_page_says() -> None:
    _checked("--ours")


@pytest.mark.slow
def test_a_real_tritonserver_answers_as_the_page_says() -> None:
    folder = Path(os.environ.get(ENVIRONMENT_VARIABLE, ROOT / "out" / "triton-environment"))
    if not (folder / "complete").exists():
        pytest.skip(f"no tritonserver here: run python -m tools.checks.triton once, or set {ENVIRONMENT_VARIABLE}")
    _checked("--environment", str(folder))


def _row(client: str = "http", method: str = "infer", what: str = "", **outcome: Any) -> dict[str, Any]:
    return {"client": client, "method": method, "what": what, **outcome}


def test_answers_differ_in_their_form_and_values_but_not_in_rounding_or_words() -> None:
    logits = {"outputs": {"y": {"data": [1.0, -2.0]}}, "id": "1"}
    near = {"outputs": {"y": {"data": [1.0 + 1e-6, -2.0]}}, "id": "1"}
    assert not differs(_row(answer=logits), _row(answer=near))
    for other in (
        {"outputs": {"y": {"data": [1.1, -2.0]}}, "id": "1"},
        {"outputs": {"y": {"data": [1.0]}}, "id": "1"},
        {"outputs": {"y": {"data": [1.0, -2.0]}}, "id": "2"},
        {"outputs": {"y": {"data": [1.0, -2.0]}}},
        {"outputs": {"y": {"data": ["1.0", "-2.0"]}}, "id": "1"},
        None,
    ):
        assert differs(_row(answer=logits), _row(answer=other))
    assert differs(_row(answer=logits), _row(refused="404", message="no"))
    assert differs(_row(refused="400", message="no"), _row(refused="404", message="no"))
    assert not differs(_row(refused="404", message="no"), _row(refused="404", message="other words"))


def test_a_difference_needs_a_reason_and_a_reason_a_difference() -> None:
    known = {"method": "load_model", "what": "unknown model"}
    ours = [_row(answer=1), _row(**known, refused="404", message="")]
    text, problems = table(ours, [_row(answer=1), _row(**known, refused="500", message="")])
    assert problems == []
    assert columns_of(text, 0, 2, 3) == [
        ("`infer`", "answered", "answered"),
        ("`load_model`", "refused (404)", "refused (500)"),
    ]
    _, problems = table(ours, [_row(answer=2), _row(**known, refused="404", message="")])
    assert [problem.split(":")[0] for problem in problems] == ["infer ()", "load_model (unknown model)"]


def test_a_client_with_asyncio_that_is_answered_otherwise_is_seen() -> None:
    rows = [_row(answer=1), _row(client="http.aio", refused="415", message="")]
    _, problems = table(rows, [_row(answer=1)])
    assert problems == ["jr-onnx, http.aio: ('infer', '') is refused (415), not answered"]


def test_cells_say_what_came() -> None:
    assert shown(None) == ""
    assert shown(_row(answer=None)) == "done"
    assert shown(_row(answer=False)) == "false"
    assert shown(_row(answer=[{"answer": 1}])) == "1 answer"
    assert shown(_row(answer=[{"answer": 1}, {"refused": "None"}])) == "answers and an error"

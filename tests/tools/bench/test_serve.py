"""The measurements' own judgement; the figures themselves are not tested."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tools.bench import serve as bench_serve
from tools.bench.serve import judge, line_of
from tools.checks.serving.answers import DisagreementError, check_alike
from tools.checks.serving.peers import PeerError, mlserver_versions
from tools.checks.serving.processes import jr_onnx, running
from tools.checks.serving.workload import conv_model, source_of, write_model, write_requests

ROW = {
    "contest": "one / other",
    "clients": 16,
    "first": {"rps": 900.0, "p50_ms": 2.0, "p99_ms": 9.0},
    "second": {"rps": 300.0, "p50_ms": 5.0, "p99_ms": 9.0},
    "ratio": 3.0,
    "ratio_range": [2.5, 3.5],
    "p99_over_p50": 4.5,
    "p99_over_p50_range": [4.0, 5.0],
}


def test_bars_are_judged_by_the_medians() -> None:
    bars = judge(ROW, 3.0, 4.0)
    assert [(bar["bar"], bar["met"]) for bar in bars] == [("ratio >= 3", True), ("p99 <= 4 p50", False)]
    assert not judge(ROW, 3.01, None)[0]["met"]
    assert judge(ROW, None, 4.5)[0]["met"]
    line = line_of({**ROW, "bars": bars})
    assert line.endswith("| 3.00 (2.50-3.50) | 4.5 (4.0-5.0) | ratio >= 3: met, p99 <= 4 p50: missed |")
    assert line_of({**ROW, "bars": []}).endswith("| none |")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--contests", "triton"], "expected some of kserve, mlserver, batching, got triton"),
        (["--contests", ""], "expected some of kserve, mlserver, batching, got none"),
        (["--contests", "mlserver"], "the contest mlserver needs --mlserver-python PATH"),
        (["--rounds", "0"], "expected at least one round"),
    ],
)
def test_wrong_options_are_said(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        bench_serve.main(words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_interpreter_that_cannot_be_used_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "python")
    assert bench_serve.main(["--contests", "mlserver", "--mlserver-python", missing]) == 2
    assert capsys.readouterr().err == (f"error: --mlserver-python: cannot run {missing}: No such file or directory\n")
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho first >&2\necho 'ImportError: no mlserver' >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    with pytest.raises(PeerError, match=r"cannot import mlserver and onnxruntime \(ImportError: no mlserver\)"):
        mlserver_versions(str(broken))


def test_a_working_interpreter_says_its_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mlserver", "onnxruntime"):
        (tmp_path / f"{name}.py").write_text("__version__ = '1.2'\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.fspath(tmp_path))
    assert mlserver_versions(sys.executable) == "mlserver 1.2 onnxruntime 1.2"


def test_requests_ask_for_the_same_in_three_forms(tmp_path: Path) -> None:
    model = write_model(conv_model(32), tmp_path / "small.onnx")
    assert {node.domain for node in onnx.load(model).graph.node} <= {"", "ai.onnx"}, "every server can run it"
    requests = write_requests(model, tmp_path)
    binary = requests["binary"]
    body = binary.file.read_bytes()
    array = np.frombuffer(body[binary.header_length :], np.float32)
    assert json.loads(requests["json"].file.read_bytes())["inputs"][0]["data"] == array.tolist()
    assert array.tobytes() in requests["grpc"].file.read_bytes()
    session = onnxruntime.InferenceSession(str(source_of(model)), providers=["CPUExecutionProvider"])
    size = float(np.abs(session.run(None, {"x": array.reshape(1, 3, 32, 32)})[0]).max())
    assert 0 < binary.bound < size * 1e-4


def test_servers_that_answer_otherwise_are_not_measured(tmp_path: Path) -> None:
    model = write_model(conv_model(32), tmp_path / "small.onnx")
    requests = write_requests(model, tmp_path)
    changed = conv_model(32)
    changed.graph.initializer[2].raw_data = (
        np.frombuffer(changed.graph.initializer[2].raw_data, np.float32) * np.float32(1.01)
    ).tobytes()
    other = write_model(changed, tmp_path / "other.onnx")
    with (
        running(jr_onnx(f"model={model}", "--threads", "1")) as one,
        running(jr_onnx(f"model={other}", "--threads", "1", "--no-grpc")) as two,
    ):
        for kind in ("binary", "json", "grpc"):
            check_alike(one, requests["binary"], one, requests[kind])
        for kind in ("binary", "json"):
            with pytest.raises(DisagreementError, match=r"the answers differ by .* nothing was measured"):
                check_alike(one, requests[kind], two, requests[kind])
        wrong = tmp_path / "wrong.json"
        wrong.write_bytes(requests["json"].file.read_bytes().replace(b"FP32", b"FP64"))
        with pytest.raises(DisagreementError, match="answers 400"):
            check_alike(one, dataclasses.replace(requests["json"], file=wrong), one, requests["json"])

"""attack, report and tune as a person types them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from jr_onnx import provenance
from jr_onnx.attack.judging import DECISION_DRAWS
from jr_onnx.attack.suite import plan
from jr_onnx.cli.progress import progress
from jr_onnx.cli.tune import _step
from jr_onnx.evaluation.store import Store
from jr_onnx.evaluation.summary import Evaluation
from jr_onnx.kappa import RandomKappa
from jr_onnx.rewriter import rewrite
from jr_onnx.tune import TunePoint
from tests.attack.suite import small
from tests.cli.conftest import Outcome

Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _handful() -> Iterator[None]:
    with small.patched(small.handful):
        yield


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The small model, and its images as .npz."""
    model, data = tmp_path / "small.onnx", tmp_path / "data.npz"
    onnx.save(small.network(), model)
    content = small.images(60)
    np.savez(data, images=content.images, labels=content.labels)
    return model, data


def attack(jr: Run, files: tuple[Path, Path], *more: object) -> Outcome:
    model, data = files
    return jr("attack", model, "--data", f"npz:{data}?layout=NCHW", "--eps", "0.1", "--device", "cpu", *more)


def test_a_random_kappa_is_written_and_judged_by_repetition(jr: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    found = attack(jr, files, "--random", 0.2, 0.4, "--limit", "10")
    assert found.exit_code == 0, found.err
    assert "masking verdict, retrofit:" in found.out
    assert not found.err.count("[W:onnxruntime")
    record = provenance.read(onnx.load(tmp_path / "small.attack" / "retrofit.jr.onnx"))
    assert record is not None
    assert record.plan.random == RandomKappa(0.2, 0.4)
    command = Store(tmp_path / "small.attack").record().command
    assert command.startswith(f"jr-onnx attack {files[0]} ")
    assert command.endswith(" --random 0.2 0.4 --limit 10")
    units = (tmp_path / "small.attack" / "units").glob("*-apgd-0.*.json")
    outcomes = [json.loads(path.read_text(encoding="utf-8")) for path in units]
    assert {found["model"]: found["decided_by"] for found in outcomes} == {"original": 1, "retrofit": DECISION_DRAWS}


def test_a_random_kappa_and_a_fixed_one_are_refused(jr: Run, files: tuple[Path, Path]) -> None:
    found = attack(jr, files, "--random", 0.2, 0.4, "--kappa", "0.3")
    assert found.exit_code == 2
    assert "a random kappa excludes a fixed one. Give either a range or a value" in found.err


def test_attack_prints_tables_and_report_a_page(jr: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    found = attack(jr, files, "--kappa", "0.3", "--limit", "20")
    assert found.exit_code == 0, found.err
    for words in (
        "original: clean accuracy",
        "retrofit: clean accuracy",
        "worst case per sample",
        "McNemar's p of the difference",
        "least relative perturbation",
        "masking verdict, retrofit:",
        "replay: torch and ONNX Runtime judge",
    ):
        assert words in found.out
    folder = tmp_path / "small.attack"
    assert f"results: {folder}" in found.err
    assert len(found.err.splitlines()) <= 12, "a few plain lines where stderr is no terminal"
    assert "\x1b" not in found.err
    report = jr("report", folder, "-o", tmp_path / "page.html")
    assert report.exit_code == 0, report.err
    assert report.out == found.out
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_json_is_the_evaluation_and_a_second_run_only_reads(jr: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "results"
    first = attack(jr, files, "--kappa", "0.3", "--limit", "8", "--json", "-o", out)
    evaluation = Evaluation.from_json(json.loads(first.out))
    assert evaluation.complete
    units = {path: path.stat().st_mtime_ns for path in (out / "units").iterdir()}
    again = attack(jr, files, "--kappa", "0.3", "--limit", "8", "--json", "-o", out)
    assert again.out == first.out
    assert {path: path.stat().st_mtime_ns for path in (out / "units").iterdir()} == units
    other = attack(jr, files, "--kappa", "0.4", "--limit", "8", "-o", out)
    assert other.exit_code != 0
    assert "holds another run" in other.err


def test_paper_units_scale_the_budget(jr: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    found = attack(
        jr, files, "--kappa", "0.3", "--limit", "4", "--units", "paper", "--preprocess", "mean=0.1;std=0.3", "--json"
    )
    assert json.loads(found.out)["run"]["eps"] == pytest.approx(0.03)
    several = attack(jr, files, "--kappa", "0.3", "--units", "paper", "--preprocess", "cifar10")
    assert several.exit_code != 0
    assert "--units pixel" in several.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "nonsense"), "expected digits, mnist:DIR"),
        (("--data", "npz:missing.npz"), "missing.npz"),
        (("--data", "mnist:nowhere"), "nowhere"),
        (("--data", "cifar10:nowhere"), "nowhere"),
        (("--data", "folder:nowhere"), "nowhere"),
        (("--data", "npz:x.npz?layout=CHWN"), "layout"),
        (("--data", "digits"), "has the shape (N, 1, 4, 4)"),
        (("--eps", "-1"), "'--eps': '-1', expected a positive number"),
        (("--eps", "1/0"), "'--eps': '1/0', expected a positive number"),
        (("--shard", "3/2"), "expected K/N"),
        (("--preprocess", "mean=a"), "mean"),
        (("--kappa", "nan"), "kappa"),
        (("--kappa-map", "nowhere.json"), "nowhere.json"),
    ],
)
def test_malformed_words_are_one_line(jr: Run, files: tuple[Path, Path], words: tuple[str, str], message: str) -> None:
    given = ["--kappa", "0.3", *words]
    found = attack(jr, files, *given)
    assert found.exit_code not in (0, 70), found.err
    assert len(found.err.strip().splitlines()) == 1, found.err
    assert message in found.err


def test_report_names_a_folder_without_results(jr: Run, tmp_path: Path) -> None:
    found = jr("report", tmp_path)
    assert found.exit_code != 0
    assert "holds no evaluation" in found.err


def test_tune_prints_the_trade_off(jr: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = files
    words = ("tune", model, "--data", f"npz:{data}?layout=NCHW", "--eps", "0.1", "--steps", "3", "--grid", "0.2,0.4")
    found = jr(*words, "--plot", tmp_path / "t.svg", "-o", tmp_path / "map.json")
    assert found.exit_code == 0, found.err
    assert "(validation)" in found.out
    assert "recommendation: kappa" in found.out
    assert "reason:" in found.out
    assert (tmp_path / "t.svg").read_text(encoding="utf-8").count("<svg") == 1
    assert len(json.loads((tmp_path / "map.json").read_text(encoding="utf-8"))) == 1
    as_json = jr(*words, "--json")
    assert json.loads(as_json.out)["schema"] == "jr_onnx.tune/1"


def test_tune_says_what_to_do_with_its_recommendation(files: tuple[Path, Path], tmp_path: Path) -> None:
    model = files[0]
    point = TunePoint(0.1 + 2**-24, {"act": 0.1}, 0.9, 0.0, 0.5, 0.1, 0.05, 0.2, 0.001, allowed=True)
    retrofit, _ = rewrite(model, 0.3)
    assert _step(model, point, None) == f"next: jr-onnx rewrite {model} --kappa 0.10000006"
    assert _step(retrofit, point, None) == f"next: jr-onnx rewrite {retrofit} --replace --kappa 0.10000006"
    assert _step(model, dataclasses.replace(point, kappa=0.0), None) == ""
    by_site = dataclasses.replace(point, kappa=None)
    assert _step(model, by_site, tmp_path / "m.json") == f"next: jr-onnx rewrite {model} --kappa-map {tmp_path}/m.json"
    assert "--output FILE" in _step(model, by_site, None)


def test_a_folder_given_twice_is_named(jr: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    assert attack(jr, files, "--kappa", "0.3", "--limit", "4").exit_code == 0
    folder = tmp_path / "small.attack"
    found = jr("report", folder, tmp_path / "." / "small.attack", "-o", tmp_path / "page.html")
    assert found.exit_code == 2
    assert found.err == f"jr-onnx: the folder {folder} is given twice, expected every shard once\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-accuracy-drop", "a lot"), "expected a share such as 1%"),
        (("--max-accuracy-drop", "200%"), "expected a share such as 1%"),
        (("--grid", "0.1;0.2"), "expected numbers such as 0.1,0.2"),
        (("--grid", "0.1,-2"), "kappa of the grid"),
    ],
)
def test_malformed_tuning_is_one_line(jr: Run, files: tuple[Path, Path], words: tuple[str, str], message: str) -> None:
    found = jr("tune", files[0], "--data", f"npz:{files[1]}?layout=NCHW", *words)
    assert found.exit_code not in (0, 70), found.err
    assert len(found.err.strip().splitlines()) == 1, found.err
    assert message in found.err


def test_plain_progress_is_about_ten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("working") as notify:
        for done in range(1, 1001):
            notify(done, 1000, f"piece {done}")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[4].startswith("working: 500 of 1000, ")
    assert lines[-1].endswith(" left")


def test_further_inputs_are_given_a_value(jr: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    model = small.network(before=(onnx.helper.make_node("Mul", ["x", "keep_prob"], ["image"]),))
    model.graph.input.append(onnx.helper.make_tensor_value_info("keep_prob", onnx.TensorProto.FLOAT, []))
    onnx.save(model, files[0])
    content = small.images(250)
    np.savez(files[1], images=content.images, labels=content.labels)
    data = ("--data", f"npz:{files[1]}?layout=NCHW", "--limit", 4)
    commands = {
        "attack": ("--kappa", 0.3, "-o", tmp_path / "out", *data),
        "tune": ("--grid", 0.1, "--steps", 1, *data),
        "detect": ("--kappa", 0.3, "--reference", 20, "--neighbours", 5, *data[:2], "--eps", 0.9, "--steps", 5),
        "verify": ("--kappa", 0.3, "--samples", 1, *data[:2]),
    }
    for command, words in commands.items():
        refused = jr(command, files[0], *words)
        assert refused.exit_code == 2, command
        assert "--value keep_prob=NUMBER" in refused.err
        told = jr(command, files[0], *words, "--value", "keep_prob=1")
        assert told.exit_code == 0, f"{command}: {told.err}"
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert json.loads(record["options"])["values"] == {"keep_prob": 1.0}


def test_progress_tells_what_was_done_before_and_the_time_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("working") as notify:
        notify(6, 10, "")
        for done in range(7, 11):
            notify(done, 10, f"piece {done}", 60.0 * (10 - done))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "working: 6 of 10 were already done"
    left = [line.split(", ")[-1] for line in lines[1:]]
    assert left == ["3 min 0 s left", "2 min 0 s left", "1 min 0 s left", "0 s left"]


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(
    jr: Run, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--kappa", 0.3, "-o", tmp_path / "out")
    put, calls = Store.put, []

    def interrupted(self: Store, unit: str, *given: Any) -> None:
        calls.append(unit)
        if len(calls) == 3:
            raise KeyboardInterrupt
        put(self, unit, *given)

    monkeypatch.setattr(Store, "put", interrupted)
    stopped = attack(jr, files, *words)
    assert stopped.exit_code == 130
    assert "interrupted: finished work is kept; run the same command again to resume" in stopped.err
    files_there = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert all(name.endswith((".json", ".onnx")) for name in files_there)
    monkeypatch.setattr(Store, "put", put)
    again = attack(jr, files, *words)
    assert again.exit_code == 0
    assert "attacking: 2 of 10 were already done" in again.err


def test_detect_prints_both_models(jr: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = files
    content = small.images(300)
    np.savez(data, images=content.images, labels=content.labels)
    words = ("detect", model, "--data", f"npz:{data}?layout=NCHW", "--eps", "0.3", "--steps", "3")
    found = jr(*words, "--kappa", "0.3", "--neighbours", "5", "--reference", "30")
    assert found.exit_code == 0, found.err
    assert [line.split()[0] for line in found.out.splitlines()[-2:]] == ["original", "retrofit"]
    assert "does not know of the detector" in " ".join(found.out.split())
    alone = jr(*words, "--neighbours", "5", "--reference", "30")
    assert alone.exit_code == 0, alone.err
    assert alone.out.splitlines()[-1].split()[:2] == ["model", found.out.splitlines()[-2].split()[1]]


def test_data_that_do_not_fit_the_model_are_noticed(jr: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = files
    wrong = tmp_path / "wrong.npz"
    with np.load(data) as content:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        images = content["images"].astype(np.float32)
        scores = session.run(None, {session.get_inputs()[0].name: images})[0]
        np.savez(wrong, images=images, labels=(scores.argmax(1) + 1) % scores.shape[1])
    stopped = attack(jr, (model, wrong), "--kappa", "0", "--limit", "40")
    assert stopped.exit_code == 2
    assert "small.onnx classifies 0% of 40 clean images correctly" in stopped.err
    assert "the model's answer is the label minus one for " in stopped.err
    found = attack(jr, (model, wrong), "--kappa", "0", "--limit", "12", "--allow-poor-accuracy")
    assert found.exit_code == 0, found.err
    assert "the original classifies only 0.0% of the clean images correctly" in found.err
    assert "masking verdict, original: not judged: no image was classified correctly" in found.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--suite", "paper", "--norm", "l2"), "--norm would change nothing: the suite paper does not use it"),
        (("--suite", "paper", "--units", "pixel"), "--units would change nothing"),
        (("--paper-steps", "3"), "--paper-steps would change nothing: the suite adaptive does not use it"),
        (
            ("--black-box", "--transfer-from", "0.2"),
            "--transfer-from would change nothing: --black-box does not use it",
        ),
        (("--suite", "paper", "--black-box"), "the suite paper has no black-box attack"),
    ],
)
def test_options_that_a_suite_ignores_are_refused(
    jr: Run, files: tuple[Path, Path], words: tuple[str, ...], message: str
) -> None:
    model, data = files
    found = jr("attack", model, "--data", f"npz:{data}?layout=NCHW", "--kappa", "0.3", *words)
    assert found.exit_code == 2
    assert message in found.err


def test_the_paper_suite_judges_nothing(jr: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = files
    words = ("--paper-steps", "3", "--trust-steps", "3", "--device", "cpu", "--limit", "12")
    with small.patched(plan.suite):
        found = jr("attack", model, "--data", f"npz:{data}?layout=NCHW", "--kappa", "0", "--suite", "paper", *words)
    assert found.exit_code == 0, found.err
    assert found.out.count("not judged: this suite is not adaptive") == 2
    assert "no sign of masking" not in found.out
    folder = tmp_path / "small.attack"
    saved = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert saved["models"][0]["verdict"]["not_judged"] == "this suite is not adaptive"
    assert jr("report", folder, "-o", tmp_path / "page.html").exit_code == 0
    assert "not judged: this suite is not adaptive" in (tmp_path / "page.html").read_text(encoding="utf-8")

"""An evaluation gives the same figures however it is cut, interrupted or batched."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jr_onnx.attack.suite.plan import PaperSettings
from jr_onnx.attack.suite.run import Progress, Shard, run
from jr_onnx.attack.suite.setup import prepare
from jr_onnx.errors import InputError, OutputError
from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.store import Store, merged
from jr_onnx.evaluation.summary import Evaluation, evaluate
from jr_onnx.kappa import KappaPlan
from tests.attack.suite import small
from tests.conftest import ROOT

Outcomes = dict[str, dict[str, Outcome]]


@pytest.fixture(autouse=True)
def _handful() -> Iterator[None]:
    with small.patched(small.handful):
        yield


def outcomes(folder: Path, **changes: object) -> Outcomes:
    wanted = small.request(folder, **changes)
    small.evaluated(wanted)
    return merged([wanted.out])[1]


def figures(evaluation: Evaluation) -> Evaluation:
    """Leave out what the machine and the clock decide."""
    run = dataclasses.replace(evaluation.run, versions={}, host="", device="", command="", date="")
    return dataclasses.replace(evaluation, run=run)


def test_everything_is_finished_and_judged(tmp_path: Path) -> None:
    prepared, evaluation = small.evaluated(small.request(tmp_path))
    assert prepared.notes == ()
    assert evaluation.complete
    assert evaluation.samples == 23
    assert [item.model for item in evaluation.models] == ["original", "retrofit"]
    assert {item.entry for item in evaluation.models[1].entries} == set(prepared.record.entries)
    original = evaluation.models[0]
    assert original.clean.count == 17  # every fourth label of 23 is wrong
    assert original.entries[0].robust.count < 17
    assert evaluation.comparisons[0].what == "clean accuracy"


@pytest.mark.parametrize("batch", [1, 3])
def test_figures_do_not_depend_on_the_batch_size(tmp_path: Path, batch: int) -> None:
    one, other = outcomes(tmp_path / "a"), outcomes(tmp_path / "b", batch=batch)
    for model, entries in one.items():
        for name, found in entries.items():
            twin = other[model][name]
            assert found.success == twin.success
            assert found.backward == twin.backward
            # Another batch size sums a matrix product in another order: a few roundings of float32 per step.
            np.testing.assert_allclose(found.distance, twin.distance, rtol=1e-4, atol=1e-6)


def test_shards_merge_to_the_whole(tmp_path: Path) -> None:
    whole = figures(small.evaluated(small.request(tmp_path))[1])
    folders = [tmp_path / f"shard{number}" for number in (1, 2, 3)]
    for number, folder in enumerate(folders, 1):
        small.evaluated(small.request(tmp_path, out=folder, shard=Shard(number, 3)))
    part = evaluate(*merged(folders[:2]))
    assert not part.complete
    assert part.samples == 18  # blocks 0 and 3 with 5 samples each, 1 with 5 and the last one with 3
    assert figures(evaluate(*merged(folders))) == whole
    with pytest.raises(InputError, match="given twice"):
        merged([folders[0], folders[0]])


def test_two_shards_may_share_a_folder(tmp_path: Path) -> None:
    whole = figures(small.evaluated(small.request(tmp_path))[1])
    for number in (1, 2):
        wanted = small.request(tmp_path, out=tmp_path / "both", shard=Shard(number, 2))
        _, evaluation = small.evaluated(wanted)
        assert evaluation.complete == (number == 2)
    assert figures(evaluation) == whole


def test_a_run_killed_in_the_middle_goes_on_to_the_same_figures(tmp_path: Path) -> None:
    whole = figures(small.evaluated(small.request(tmp_path / "whole"))[1])
    folder = tmp_path / "killed"
    units = folder / "out" / "units"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "tests.attack.suite.small", folder], cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + 120
        while len(list(units.glob("*.json"))) < 7:
            assert process.poll() is None, "the process ended before it could be killed"
            assert time.monotonic() < deadline, "the process does not get anywhere"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in units.glob("*.json")}
    assert len(before) < 50  # 5 entries, 2 models, 5 blocks
    wanted = small.request(folder)
    prepared = prepare(wanted)
    store = Store(wanted.out)
    store.open(prepared.record)
    seen: list[Progress] = []
    run(prepared.work, store, seen.append)
    assert (seen[-1].done, seen[-1].total, seen[-1].resumed) == (50, 50, len(before))
    after = {path.name: path.stat().st_mtime_ns for path in units.glob("*.json")}
    assert {name: after[name] for name in before} == before, "finished units are not done again"
    assert figures(evaluate(*merged([wanted.out]))) == whole


def test_an_unfinished_run_is_summed_up_over_what_is_finished(tmp_path: Path) -> None:
    wanted = small.request(tmp_path)
    whole = small.evaluated(wanted)[1]
    record, everything = merged([wanted.out])
    cut = {
        model: {
            name: small_outcome if name != "square" else _first(small_outcome, 10)
            for name, small_outcome in entries.items()
        }
        for model, entries in everything.items()
    }
    part = evaluate(record, cut)
    assert part.samples == 10
    assert not part.complete
    assert whole.complete
    del cut["retrofit"]["ddn"]
    with pytest.raises(InputError, match="no sample is finished"):
        evaluate(record, cut)


def _first(item: Outcome, count: int) -> Outcome:
    from jr_onnx.evaluation.outcome import select

    return select(item, set(range(count)))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"eps": 0.06}, "eps"),
        ({"seed": 1}, "seed"),
        ({"plan": KappaPlan(0.4)}, "retrofit"),
        ({"data": small.images(22)}, "data_sha256"),
        ({"block": 6}, "block"),
        ({"keep": True}, "option keep"),
        ({"paper": PaperSettings(steps=3)}, "option paper steps"),
    ],
)
def test_another_run_in_the_same_folder_is_refused_and_loses_nothing(
    tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    wanted = small.request(tmp_path)
    small.evaluated(wanted)
    before = {path: path.read_bytes() for path in wanted.out.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match=f"holds another run: its {field} is"):
        small.evaluated(small.request(tmp_path, **changes))
    assert {path: path.read_bytes() for path in wanted.out.rglob("*") if path.is_file()} == before


def test_adversarial_examples_are_saved_on_request(tmp_path: Path) -> None:
    wanted = small.request(tmp_path, keep=True)
    small.evaluated(wanted)
    files = sorted((wanted.out / "adversarial").glob("*.npz"))
    assert len(files) == 50
    with np.load(files[0]) as content:
        assert content["images"].shape == (5, 1, 4, 4)
        assert content["images"].min() >= 0
        assert content["images"].max() <= 1
        np.testing.assert_array_equal(content["labels"], small.images().labels[content["indices"]])


def test_replay_counts_what_torch_and_the_served_file_judge_differently(tmp_path: Path) -> None:
    wanted = small.request(tmp_path)
    prepared = prepare(wanted)
    store = Store(wanted.out)
    store.open(prepared.record)
    served = prepared.work.contenders[1].served
    honest = served.misclassifies

    def lying(pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
        answer = honest(pixels, labels)
        answer[0] = not answer[0]  # of every block, and so of 5
        return answer

    served.misclassifies = lying  # type: ignore[method-assign]
    run(prepared.work, store)
    original, retrofit = evaluate(*merged([wanted.out])).models
    assert {item.disagreements for item in original.entries} == {0}
    assert {item.disagreements for item in retrofit.entries} == {5}
    # The reported accuracy is the served file's: it sees every first sample of a block the other way round, before
    # and after the attack.
    apgd = retrofit.entries[0]
    assert apgd.robust != apgd.torch_robust


@pytest.mark.parametrize("text", ["0/1", "2/1", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_malformed_shard_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"expected K/N"):
        Shard.parse(text)


def test_a_shard_without_a_block_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shard 6/6 has nothing to do: 23 samples make 5 blocks of 5"):
        prepare(small.request(tmp_path, shard=Shard(6, 6)))

"""The folder of a run: resumed only by the same run, read back whole, merged from shards."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from pathlib import Path

import numpy as np
import pytest

from jr_onnx.errors import InputError, OutputError
from jr_onnx.evaluation.store import RunRecord, Store, by_run, digest, host, is_run, merged, unit_name, versions
from tests.evaluation.builders import outcome, run_record

OTHER = {
    "suite": "quick",
    "entries": ("pgd", "apgd"),
    "models": {"retrofit": "d" * 64},
    "kappas": {"conv1/Relu": 0.25},
    "data": "digits (train)",
    "data_sha256": "e" * 64,
    "samples": 99,
    "block": 10,
    "norm": "l2",
    "eps": 0.2,
    "seed": 1,
    "preprocessing": "{}",
    "options": '{"loss": "dlr"}',
    "logits": "another output",
}
FREE = {
    "versions": {"torch": "3"},
    "host": "another machine",
    "device": "cuda",
    "notes": ("a note",),
    "files": {"retrofit": "model.jr.onnx"},
    "command": "jr-onnx attack",
    "date": "2026-01-01",
}


def test_every_field_that_changes_results_makes_another_run() -> None:
    assert {field.name for field in dataclasses.fields(RunRecord)} == {*OTHER, *FREE}
    for name, value in OTHER.items():
        assert run_record().same_run(run_record(**{name: value})) == name
    assert run_record().same_run(run_record(**FREE)) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entries": ()}, "a run has 0 entries, expected at least 1"),
        ({"models": {}}, "a run has 0 models, expected at least 1"),
        ({"samples": 0}, "a run has 0 samples, expected at least 1"),
        ({"entries": ("a", "b", "a")}, "names an entry twice"),
    ],
)
def test_a_run_of_nothing_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_record(**changes)


def test_a_folder_is_resumed_by_its_own_run_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "run")
    store.open(run_record())
    store.open(run_record(**FREE))
    assert store.record() == run_record(), "the first record stays"
    with pytest.raises(OutputError, match=r"holds another run: its seed is 0, now 1") as caught:
        store.open(run_record(seed=1))
    assert "--output" in caught.value.hint
    with pytest.raises(OutputError, match="its retrofit is another file") as caught:
        store.open(run_record(models={"retrofit": "d" * 64}))
    assert "--output" in caught.value.hint
    with pytest.raises(OutputError, match="its original and retrofit is another file"):
        store.open(run_record(models={"original": "d" * 64, "retrofit": "c" * 64}))
    with pytest.raises(OutputError, match="its original is another file"):
        store.open(run_record(models={"original": "d" * 64, "retrofit": "b" * 64}))
    with pytest.raises(OutputError) as caught:
        store.open(run_record(data="x" * 61))
    assert f"its data is digits (test), now {'x' * 57}..." in caught.value.message
    with pytest.raises(OutputError, match=f"now {'x' * 60}"):
        store.open(run_record(data="x" * 60))


def test_a_run_that_was_cut_off_before_its_record_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    Store(tmp_path).open(run_record())
    assert Store(tmp_path).record() == run_record()


def test_the_option_that_differs_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open(run_record(options=json.dumps({"a": 1, "steps": {"pgd": 40, "apgd": 100}})))
    with pytest.raises(OutputError, match="its option steps pgd is 40, now 50"):
        store.open(run_record(options=json.dumps({"a": 1, "steps": {"pgd": 50, "apgd": 100}})))
    with pytest.raises(OutputError, match="its option b is None, now 2"):
        store.open(run_record(options=json.dumps({"a": 1, "b": 2, "steps": {"pgd": 40, "apgd": 100}})))
    with pytest.raises(OutputError, match=r"its option steps is .*, now 3"):
        store.open(run_record(options=json.dumps({"a": 1, "steps": 3})))
    with pytest.raises(OutputError, match=r"its options is .*, now not JSON"):
        store.open(run_record(options="not JSON"))


def test_models_are_compared_before_anything_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    store.refuse_other_models({"retrofit": "z"})  # there is no run yet
    assert not store.folder.exists()
    store.open(run_record())
    store.refuse_other_models({"retrofit": "b" * 64})
    with pytest.raises(OutputError, match="its retrofit is another file"):
        store.refuse_other_models({"retrofit": "z"})


def test_what_is_no_folder_and_what_is_no_run_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot make .*file") as caught:
        Store(tmp_path / "file" / "run").open(run_record())
    assert "--output" in caught.value.hint
    with pytest.raises(InputError, match="holds no evaluation") as found:
        Store(tmp_path).record()
    assert "jr-onnx attack --output" in found.value.hint


def test_a_unit_is_read_back_with_its_examples(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open(run_record())
    one, other = outcome("pgd", [True, False]), outcome("pgd", [True], indices=(2,), labels=(1,))
    first, second = unit_name("retrofit", "pgd", 0), unit_name("retrofit", "pgd", 2)
    assert (first, second) == ("retrofit/pgd/0", "retrofit/pgd/2")
    images = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    store.put(first, one, images)
    assert (store.has(first), store.has(second)) == (True, False)
    store.put(second, other, None)
    (named,) = (path.name for path in (tmp_path / "adversarial").iterdir())
    assert named.startswith("retrofit-pgd-0."), "a person finds the file"
    store.put(first, one, images)  # as a run does that was cut off before
    store.put("a/unit without examples/0", outcome("a", [True]), None)  # its file comes first
    assert sorted(store.outcomes(), key=lambda item: item.indices)[-1] == other
    assert one in store.outcomes()
    ((found, kept),) = store.adversarials()
    assert found == one
    np.testing.assert_array_equal(kept, images)
    assert kept.dtype == np.float32
    (path,) = (tmp_path / "adversarial").iterdir()
    with np.load(path) as content:
        assert (content["labels"].tolist(), content["indices"].tolist()) == ([0, 0], [0, 1])
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match=f"cannot read the adversarial examples .*{path.name}"):
        list(store.adversarials())


def test_units_whose_names_look_alike_have_files_of_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open(run_record())
    names = ["retrofit/a b/0", "retrofit/a-b/0", "retrofit/a/b/0", "x" * 200 + "1", "x" * 200 + "2"]
    for name in names:
        store.put(name, outcome("pgd", [True]), None)
    assert len(list((tmp_path / "units").iterdir())) == len(names)
    assert all(store.has(name) for name in names)
    assert max(len(path.name) for path in (tmp_path / "units").iterdir()) == 80 + len(".0123456789.json")


def test_shards_are_read_together(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    record = run_record(entries=("pgd", "apgd"), samples=4)
    for place, folder in enumerate(folders):
        store = Store(folder)
        store.open(dataclasses.replace(record, host=f"machine {place}"))
        rows = (2 * place, 2 * place + 1)
        store.put(f"retrofit/pgd/{place}", outcome("pgd", [True, False], indices=rows), None)
    store.put("retrofit/other/0", outcome("other", [True]), None)  # of no entry of the run
    found, outcomes = merged(folders[::-1])
    assert found == dataclasses.replace(record, host="machine 1")
    assert list(outcomes) == ["retrofit"]
    assert list(outcomes["retrofit"]) == ["pgd"]
    assert outcomes["retrofit"]["pgd"].indices == (0, 1, 2, 3)
    assert outcomes["retrofit"]["pgd"].success == (True, False, True, False)
    _, alone = merged(folders[:1])
    assert alone["retrofit"]["pgd"].indices == (0, 1)


def test_shards_of_different_runs_or_twice_the_same_are_refused(tmp_path: Path) -> None:
    for name, record in {"one": run_record(), "two": run_record(seed=1)}.items():
        Store(tmp_path / name).open(record)
    with pytest.raises(InputError, match=r"two holds another run than .*one: their seed differs"):
        merged([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(InputError, match="one is given twice"):
        merged([tmp_path / "one", tmp_path / "two" / ".." / "one"])


def test_a_digest_depends_on_shape_type_and_order_and_not_on_the_layout() -> None:
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = hashlib.sha256(b'[[2, 3], "float32"]' + image.tobytes()).hexdigest()
    assert digest([image]) == digest([np.asfortranarray(image)]) == expected
    others = [[image.reshape(3, 2)], [image.view(np.int32)], [image, image], [image + 1], []]
    assert len({expected, *map(digest, others)}) == 6


def test_the_versions_name_what_results_depend_on() -> None:
    found = versions()
    assert {"jr-onnx", "python", "onnx", "onnxruntime", "numpy"} <= set(found)
    assert found["numpy"] == np.__version__


def test_folders_are_sorted_into_runs_by_what_they_evaluate(tmp_path: Path) -> None:
    records = {"a": run_record(), "b": run_record(seed=1), "c": run_record(host="another"), "d": run_record(seed=1)}
    for name, record in records.items():
        assert not is_run(tmp_path / name)
        Store(tmp_path / name).open(record)
        assert is_run(tmp_path / name)
    found = by_run([tmp_path / name for name in "bacd"])
    assert [[folder.name for folder in shards] for shards in found] == [["b", "d"], ["a", "c"]]
    with pytest.raises(InputError, match="holds no evaluation"):
        by_run([tmp_path / "a", tmp_path])


def test_the_host_is_the_machine_and_its_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(text: str | None) -> None:
        def read_text(path: Path, encoding: str) -> str:
            assert path == Path("/proc/cpuinfo")
            if text is None:
                raise FileNotFoundError(path)
            return text

        monkeypatch.setattr(Path, "read_text", read_text)

    machine = f"{platform.system()} {platform.machine()}"
    read("processor : 0\nmodel name\t: A Fast One @ 3 GHz  \nmodel name\t: the second\n")
    assert host() == f"{machine}, A Fast One @ 3 GHz"
    read("CPU implementer : 0x41\n")
    assert host() == f"{machine}, {platform.processor() or platform.machine()}"

    read(None)
    assert host() == f"{machine}, {platform.processor() or platform.machine()}"

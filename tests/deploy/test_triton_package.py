"""Packaging into a Triton repository: what is written, what stays, what is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from jr_onnx.deploy import Batching, Placement, TritonOptions, package_triton, triton, verify
from jr_onnx.errors import InputError, JrError, ModelError, OutputError, RefusalError
from jr_onnx.kappa import RandomKappa
from tests.deploy.builders import classifier, retrofitted, save, tree


def test_a_package_holds_the_model_its_configuration_and_a_manifest(tmp_path: Path, model: Path) -> None:
    root = tmp_path / "repository"
    packaged = package_triton(model, root, TritonOptions(name="net"))
    assert packaged.folder == root / "net" / "1"
    assert packaged.notes == ("Triton joins requests: the rows of a batch are proved independent, and a trial agrees",)
    assert set(tree(root)) == {"net/config.pbtxt", "net/1/model.onnx", "net/1/jr_onnx.manifest"}
    assert (root / "net" / "1" / "model.onnx").read_bytes() == model.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "repository"]


def test_a_file_laid_out_for_one_processor_is_packaged_with_a_note(tmp_path: Path) -> None:
    model = classifier()
    node = model.graph.node.add(op_type="ReorderOutput", domain="com.microsoft.nchwc", input=["x"], output=["unused"])
    node.name = "reorder"
    model.opset_import.add(domain="com.microsoft.nchwc", version=1)
    packaged = package_triton(save(model, tmp_path / "blocked.onnx"), tmp_path / "r", TritonOptions(name="net"))
    note, _ = packaged.notes
    assert note.startswith("the model was optimised for the processor it was saved on")


def test_what_is_no_model_is_named_as_the_caller_named_it(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("hello", encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        package_triton(text, tmp_path / "r", TritonOptions(name="net"))
    assert str(caught.value).startswith(f"{text} is not an ONNX model")


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, model: Path) -> None:
    for name in ("one", "two"):
        package_triton(model, tmp_path / name, TritonOptions(name="net"))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_the_manifest_carries_the_provenance_of_the_rewrite(tmp_path: Path, model: Path) -> None:
    retrofit = retrofitted(model, 0.06)
    package_triton(retrofit, tmp_path / "repository", TritonOptions(name="net"))
    (package,) = verify(tmp_path / "repository")
    assert package.manifest.provenance is not None
    assert package.manifest.provenance.plan.kappa == 0.06
    assert [site.lowering for site in package.manifest.provenance.sites] != []
    assert package.manifest.triton is not None
    assert package.manifest.triton.release == "26.08"


def test_external_data_keeps_its_relative_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    model = save(classifier(), source / "big.onnx", external="weights/all.bin")
    root = tmp_path / "repository"
    package_triton(model, root, TritonOptions(name="net"))
    assert (root / "net/1/weights/all.bin").read_bytes() == (source / "weights/all.bin").read_bytes()
    packaged = onnx.load(root / "net/1/model.onnx")
    assert packaged == onnx.load(model)
    assert [entry.path for entry in verify(root)[0].manifest.files] == [
        "1/model.onnx",
        "1/weights/all.bin",
        "config.pbtxt",
    ]


@pytest.mark.parametrize("location", ["model.onnx", "jr_onnx.manifest", "./jr_onnx.manifest.sig"])
def test_external_data_under_a_name_of_the_package_is_refused(tmp_path: Path, location: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    model = save(classifier(), source / "big.onnx", external=location)
    with pytest.raises(ModelError, match="a name the package needs itself"):
        package_triton(model, tmp_path / "repository", TritonOptions(name="net"))
    assert not (tmp_path / "repository").exists()


def test_external_data_outside_the_folder_is_refused_and_nothing_written(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    model = save(classifier(), source / "big.onnx", external="all.bin")
    (source / "all.bin").rename(tmp_path / "all.bin")
    (source / "all.bin").symlink_to(tmp_path / "all.bin")
    with pytest.raises(ModelError, match="is a link out of the model's folder"):
        package_triton(model, tmp_path / "repository", TritonOptions(name="net"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.bin", "source"]


def test_a_second_model_stands_beside_the_first(repository: Path, model: Path) -> None:
    before = tree(repository)
    package_triton(model, repository, TritonOptions(name="other"))
    after = tree(repository)
    assert {name: after[name] for name in before} == before
    assert [package.label for package in verify(repository)] == ["net/1", "other/1"]


def test_a_second_version_goes_into_the_same_folder(repository: Path, model: Path) -> None:
    before = tree(repository)
    package_triton(retrofitted(model, 0.1), repository, TritonOptions(name="net", version=7))
    after = tree(repository)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"net/7/model.onnx", "net/7/jr_onnx.manifest"}
    assert [package.label for package in verify(repository)] == ["net/1", "net/7"]


def test_an_existing_version_is_not_overwritten(repository: Path, model: Path) -> None:
    before = tree(repository)
    with pytest.raises(OutputError, match="already exists") as caught:
        package_triton(retrofitted(model, 0.1), repository, TritonOptions(name="net"))
    assert caught.value.hint == "Use --force to replace it, or --version 2 to add it beside"
    assert tree(repository) == before


def test_force_replaces_the_only_version_with_its_configuration(repository: Path, model: Path) -> None:
    retrofit = retrofitted(model, 0.1)
    package_triton(retrofit, repository, TritonOptions(name="net", force=True, batching=Batching(4)))
    assert (repository / "net/1/model.onnx").read_bytes() == retrofit.read_bytes()
    assert "max_batch_size: 4" in (repository / "net/config.pbtxt").read_text(encoding="utf-8")
    verify(repository)


def test_force_replaces_one_version_and_leaves_the_others(repository: Path, model: Path) -> None:
    package_triton(model, repository, TritonOptions(name="net", version=2))
    package_triton(model, repository, TritonOptions(name="other"))
    before = tree(repository)
    package_triton(retrofitted(model, 0.1), repository, TritonOptions(name="net", version=2, force=True))
    after = tree(repository)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"net/2/model.onnx", "net/2/jr_onnx.manifest"}
    verify(repository)


def test_force_does_not_change_what_other_versions_share(repository: Path, model: Path) -> None:
    package_triton(model, repository, TritonOptions(name="net", version=2))
    before = tree(repository)
    with pytest.raises(RefusalError, match=r"config\.pbtxt of version 2 differs"):
        package_triton(
            model, repository, TritonOptions(name="net", version=2, force=True, batching=Batching(delay_us=1))
        )
    assert tree(repository) == before


def test_force_takes_nothing_away_that_it_did_not_write(repository: Path, model: Path) -> None:
    (repository / "net" / "notes.txt").write_text("keep", encoding="utf-8")
    package_triton(retrofitted(model, 0.1), repository, TritonOptions(name="net", force=True))
    assert (repository / "net" / "notes.txt").read_text(encoding="utf-8") == "keep"


def test_a_version_of_another_interface_is_refused(repository: Path, tmp_path: Path) -> None:
    other = save(classifier(size="16, 16"), tmp_path / "other.onnx")
    before = tree(repository)
    with pytest.raises(RefusalError, match="which all versions share") as caught:
        package_triton(other, repository, TritonOptions(name="net", version=2))
    assert "another --name" in caught.value.hint
    assert tree(repository) == before


def test_a_hand_made_model_beside_is_left_alone(repository: Path, model: Path) -> None:
    (repository / "mine" / "1").mkdir(parents=True)
    (repository / "mine" / "config.pbtxt").write_text("", encoding="utf-8")
    package_triton(model, repository, TritonOptions(name="other"))
    assert (repository / "mine" / "config.pbtxt").exists()


def test_labels_are_packaged_for_the_output_they_fit(tmp_path: Path, model: Path) -> None:
    labels = tmp_path / "names.txt"
    # As a Windows editor writes it: with a byte order mark and two characters at each line's end.
    labels.write_text("".join(f"Ziffer {number}\r\n" for number in range(10)), encoding="utf-8-sig", newline="")
    package_triton(model, tmp_path / "repository", TritonOptions(name="net", labels=labels))
    written = (tmp_path / "repository/net/labels.txt").read_text(encoding="utf-8")
    assert written.splitlines() == [f"Ziffer {number}" for number in range(10)]
    assert "\r" not in written
    assert 'label_filename: "labels.txt"' in (tmp_path / "repository/net/config.pbtxt").read_text(encoding="utf-8")
    with pytest.raises(RefusalError, match="all versions share"):
        package_triton(model, tmp_path / "repository", TritonOptions(name="net", version=2))


@pytest.mark.parametrize(
    ("content", "output", "message"),
    [
        (b"a\nb\n", None, "holds 2 labels, expected as many as the last dimension of the output: 'y' has 10"),
        (b"a\n\nb\n", None, "line 2 of the labels"),
        (b"", None, "line 1 of the labels"),
        (b"\xff", None, "cannot read the labels"),
        (b"a\n", "z", "labels were given for 'z', expected one of"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    tmp_path: Path, model: Path, content: bytes, output: str | None, message: str
) -> None:
    labels = tmp_path / "names.txt"
    labels.write_bytes(content)
    with pytest.raises(InputError, match=message):
        package_triton(model, tmp_path / "r", TritonOptions(name="net", labels=labels, labels_output=output))


def test_a_model_too_new_for_the_release_is_refused(tmp_path: Path) -> None:
    model = save(classifier(ir_version=10, opset=22), tmp_path / "new.onnx")
    with pytest.raises(RefusalError, match=r"opset 22, but Triton 24\.10"):
        package_triton(model, tmp_path / "r", TritonOptions(name="net", release="24.10"))
    package_triton(model, tmp_path / "r", TritonOptions(name="net", release="25.12"))


def test_a_random_kappa_is_refused_unless_it_may_stay_fixed(tmp_path: Path, model: Path) -> None:
    random = retrofitted(model, RandomKappa(0.0, 0.1))
    with pytest.raises(RefusalError, match="nothing would draw it there"):
        package_triton(random, tmp_path / "r", TritonOptions(name="net"))
    assert not (tmp_path / "r").exists()
    packaged = package_triton(random, tmp_path / "r", TritonOptions(name="net", allow_fixed_kappa=True))
    assert "stays at the default" in packaged.notes[0]
    assert "kappa" not in (tmp_path / "r/net/config.pbtxt").read_text(encoding="utf-8")


def test_sites_that_leave_the_gpu_are_named(tmp_path: Path) -> None:
    def notes(opset: int, placement: Placement, **options: Any) -> tuple[str, ...]:
        source = save(classifier(opset=opset), tmp_path / "model.onnx")
        retrofit = retrofitted(source, 0.06, force=True, **options)
        packaged = package_triton(retrofit, tmp_path / "r", TritonOptions(name="net", placement=placement, force=True))
        return tuple(note for note in packaged.notes if "CUDA kernel" in note)

    gpu = Placement("gpu")
    (note,) = notes(22, gpu, lowering="thresholded")
    assert note.startswith("ONNX Runtime has no CUDA kernel of ThresholdedRelu at opset 22: its sites run on the CPU")
    assert notes(21, gpu, lowering="thresholded") == ()
    assert notes(22, Placement(), lowering="thresholded") == ()
    assert notes(22, gpu, lowering="where") == ()
    assert notes(22, gpu, target="cuda") == ()


def test_the_device_is_written_down_for_the_deployment(tmp_path: Path, model: Path) -> None:
    options = TritonOptions(name="net", placement=Placement("gpu", gpus=(0, 1)))
    package_triton(model, tmp_path / "r", options)
    settings = verify(tmp_path / "r")[0].manifest.triton
    assert settings is not None
    assert (settings.device, settings.gpus, settings.server_path) == ("gpu", (0, 1), None)


def test_a_model_folder_in_place_of_a_repository_is_refused(repository: Path, model: Path) -> None:
    with pytest.raises(OutputError, match="a model's own folder") as caught:
        package_triton(model, repository / "net", TritonOptions(name="other"))
    assert caught.value.hint == f"Give the folder above it: -o {repository}"


def test_a_file_in_place_of_a_repository_is_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(OutputError, match="is a file, expected a folder"):
        package_triton(model, model, TritonOptions(name="net"))


@pytest.mark.parametrize("source", ["nowhere.onnx", "."])
def test_a_model_that_is_no_file_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(ModelError, match=r"does not exist|is not a regular file"):
        package_triton(tmp_path / source, tmp_path / "r", TritonOptions(name="net"))


@pytest.mark.parametrize("step", ["write_manifest", "sync_tree", "publish"])
def test_a_failure_at_any_step_leaves_the_repository_as_it_was(
    repository: Path, model: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise OutputError("the disk is full")

    before = tree(repository)
    names = sorted(path.name for path in repository.parent.iterdir())
    monkeypatch.setattr(triton, step, fail)
    for options in (TritonOptions(name="new"), TritonOptions(name="net", force=True)):
        with pytest.raises(OutputError, match="the disk is full"):
            package_triton(model, repository, options)
    assert tree(repository) == before
    assert sorted(path.name for path in repository.parent.iterdir()) == names


def _truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _emptied(content: bytes) -> bytes:
    return content[:0]


def _scrambled(content: bytes) -> bytes:
    return bytes(byte ^ 0x55 for byte in content)


@pytest.mark.parametrize("damage", [_truncated, _scrambled, _emptied])
def test_a_damaged_model_gives_a_clean_error(tmp_path: Path, model: Path, damage: Callable[[bytes], bytes]) -> None:
    model.write_bytes(damage(model.read_bytes()))
    with pytest.raises(JrError) as caught:
        package_triton(model, tmp_path / "r", TritonOptions(name="net"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists()


def _mutated(content: bytes, generator: random.Random) -> bytes:
    """Change, cut out or insert a few bytes."""
    damaged = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 5])):
        position = generator.randrange(len(damaged))
        kind = generator.random()
        some = generator.randbytes(generator.randrange(1, 9))
        if kind < 0.6:
            damaged[position] = some[0]
        elif kind < 0.8:
            del damaged[position : position + len(some)]
        else:
            damaged[position:position] = some
    return bytes(damaged)


def test_mutated_files_are_packaged_or_refused_never_a_crash(tmp_path: Path, model: Path) -> None:
    sources = [model.read_bytes(), retrofitted(model, 0.06, lowering="custom").read_bytes()]
    messages = []
    for seed in range(400):
        generator = random.Random(seed)
        model.write_bytes(_mutated(generator.choice(sources), generator))
        try:
            package_triton(model, tmp_path / "r", TritonOptions(name="net", force=True))
        except JrError as error:
            messages.append(str(error))
    verify(tmp_path / "r")
    assert 0 < len(messages) < 400
    assert not any("\n" in message for message in messages)

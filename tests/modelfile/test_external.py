"""External data: checked, never read, carried beside the output, and never outside the model's folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser

from jr_onnx import provenance
from jr_onnx.cli.app import run
from jr_onnx.errors import ModelError, OutputError
from jr_onnx.modelfile import check, external_file, external_tensors, place_external_data, resolve
from jr_onnx.rewriter import restore, rewrite

WEIGHTS = np.arange(64, dtype=np.float32)


def external(name: str, location: str, **entries: object) -> TensorProto:
    tensor = TensorProto(name=name, dims=[4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def model(*tensors: TensorProto) -> onnx.ModelProto:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\ng (float[N] x) => (float[N] y) { h = Mul(x, w) y = Relu(h) }'
    )
    proto.graph.initializer.extend(tensors)
    return proto


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a model file with two tensors in one external file and one in another folder below."""
    folder = tmp_path / "source"
    (folder / "deep").mkdir(parents=True)
    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "deep" / "v.bin").write_bytes(WEIGHTS.tobytes())
    proto = model(
        external("w", "w.bin", offset=16, length=16),
        external("w2", "w.bin", offset=0, length=16),
        external("v", "deep/v.bin"),
    )
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx"


def test_tensors_are_found_in_sub_graphs_and_functions() -> None:
    proto = onnx.ModelProto()
    node = proto.graph.node.add(op_type="If")
    node.attribute.add(name="then_branch").g.initializer.append(external("inner", "a.bin"))
    node.attribute.add(name="sparse").sparse_tensor.values.CopyFrom(external("values", "s.bin"))
    body = proto.functions.add(name="f").node.add(op_type="Constant")
    body.attribute.add(name="value").t.CopyFrom(external("constant", "b.bin", offset=3, length=5))
    proto.training_info.add().algorithm.initializer.append(external("t", "c.bin"))
    found = [(item.name, item.location, item.offset, item.length) for item in external_tensors(proto)]
    assert sorted(found) == [
        ("constant", "b.bin", 3, 5),
        ("inner", "a.bin", 0, None),
        ("t", "c.bin", 0, None),
        ("values", "s.bin", 0, None),
    ]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (external("w", ""), "'w' has external data without a location"),
        (external("w", "w.bin", offset="many"), "offset or length that is not a number"),
        (external("w", "w.bin", offset=-1), "negative external offset or length"),
        (external("w", "w.bin", length=-4), "negative external offset or length"),
        (external("w", "w.bin", offset=256, length=1), r"ends at byte 257 of 'w.bin', which has only 256 bytes"),
        (external("w", "w.bin", length=2**62), "which has only 256 bytes"),
        (external("w", "gone.bin"), r"external data 'gone.bin' of tensor 'w' is not in .*Put the file beside"),
        (external("w", "deep"), "external data 'deep' of tensor 'w' is not a regular file"),
        (external("w", "/etc/passwd"), "leaves the model's folder, which is refused"),
        (external("w", "../secret"), "leaves the model's folder, which is refused"),
        (external("w", "deep/../../secret"), "leaves the model's folder, which is refused"),
        (external("w", "deep\\..\\..\\secret"), "leaves the model's folder, which is refused"),
        (external("w", "w.bin\0"), "leaves the model's folder, which is refused"),
        (external("w", "link_out"), "is a link out of the model's folder, which is refused"),
        (external("w", "folder_out/secret"), "is a link out of the model's folder, which is refused"),
        (external("w", "loop"), "cannot be followed|is not in"),
    ],
)
def test_bad_external_data_is_refused_and_nothing_is_written(tensor: TensorProto, message: str, source: Path) -> None:
    outside = source.parent.parent / "secret"
    outside.write_bytes(bytes(64))
    (source.parent / "link_out").symlink_to(outside)
    (source.parent / "folder_out").symlink_to(outside.parent)
    (source.parent / "loop").symlink_to("loop")
    onnx.save(model(tensor), source)
    before = names(source.parent)
    with pytest.raises(ModelError, match=message) as caught:
        rewrite(source, 0.06)
    assert "\n" not in str(caught.value)
    assert names(source.parent) == before


def test_a_link_within_the_folder_is_followed(source: Path) -> None:
    (source.parent / "alias.bin").symlink_to("w.bin")
    assert resolve(source.parent, "alias.bin") == source.parent / "alias.bin"
    proto = model(external("w", "alias.bin", length=16))
    assert [item.length_bytes for item in check(proto, source.parent)] == [256]


def test_the_files_are_described_and_hashed_on_request(source: Path) -> None:
    proto = onnx.load(source, load_external_data=False)
    plain = check(proto, source.parent)
    assert [(item.location, item.length_bytes, item.tensors, item.sha256) for item in plain] == [
        ("deep/v.bin", 256, 1, None),
        ("w.bin", 256, 2, None),
    ]
    digests = {item.sha256 for item in check(proto, source.parent, hash_data=True)}
    assert digests == {hashlib.sha256(WEIGHTS.tobytes()).hexdigest()}


def test_beside_the_source_the_output_refers_to_the_same_data(source: Path) -> None:
    before = names(source.parent)
    path, result = rewrite(source, 0.06)
    assert result.external_data == "reference"
    assert names(source.parent) == sorted([*before, "model.jr.onnx"])
    assert numpy_helper.to_array(onnx.load(path).graph.initializer[0]).tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("mode", "how"), [("auto", {"copy", "reflink"}), ("copy", {"copy"}), ("hardlink", {"hardlink"})]
)
def test_in_another_folder_the_data_comes_along(mode: str, how: set[str], source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    path, result = rewrite(source, 0.06, output=other / "new.onnx", external_data=mode)  # type: ignore[arg-type]
    assert result.external_data in how
    assert (other / "w.bin").read_bytes() == WEIGHTS.tobytes()
    assert (other / "deep" / "v.bin").read_bytes() == WEIGHTS.tobytes()
    assert (other / "w.bin").samefile(source.parent / "w.bin") == (mode == "hardlink")
    if mode == "hardlink":
        assert "onnx.load refuses it" in result.warnings[0]
        (source.parent / "w.bin").unlink()  # the other name of the data
        (source.parent / "deep" / "v.bin").unlink()
    assert numpy_helper.to_array(onnx.load(path).graph.initializer[0]).tolist() == [4, 5, 6, 7]
    assert names(other) == ["deep", "new.onnx", "w.bin"]
    record = provenance.read(onnx.load(path, load_external_data=False))
    assert record is not None
    assert [item.location for item in record.external_data] == ["deep/v.bin", "w.bin"]
    third = tmp_path / "third"
    third.mkdir()
    restored = restore(path, third / "model.onnx")
    assert restored.read_bytes() == source.read_bytes()
    assert (third / "w.bin").read_bytes() == WEIGHTS.tobytes()


def test_a_reference_across_folders_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(OutputError, match=r"cannot refer to external data in .*Write beside the source"):
        rewrite(source, 0.06, output=tmp_path / "other" / "new.onnx", external_data="reference")
    assert names(tmp_path / "other") == []


def test_data_in_the_way_is_replaced_only_by_force(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "w.bin").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"w\.bin exists. Use --force"):
        rewrite(source, 0.06, output=other / "new.onnx")
    assert (other / "w.bin").read_bytes() == b"precious"
    assert not (other / "new.onnx").exists()
    rewrite(source, 0.06, output=other / "new.onnx", force=True)
    assert (other / "w.bin").read_bytes() == WEIGHTS.tobytes()


@pytest.mark.parametrize("name", ["w.bin", "deep/v.bin", "./deep/../w.bin"])
def test_the_output_never_replaces_the_data_of_its_source(name: str, source: Path) -> None:
    with pytest.raises(OutputError, match="is where the model's external data"):
        rewrite(source, 0.06, output=source.parent / name, force=True)
    assert (source.parent / "w.bin").read_bytes() == WEIGHTS.tobytes()
    assert (source.parent / "deep" / "v.bin").read_bytes() == WEIGHTS.tobytes()


def test_the_output_never_takes_the_place_of_the_data_it_needs(source: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(OutputError, match=r"is where the model's external data 'w\.bin' lies or will lie"):
        rewrite(source, 0.06, output=tmp_path / "other" / "w.bin")
    assert names(tmp_path / "other") == []


def test_a_link_to_the_data_is_the_data(source: Path) -> None:
    (source.parent / "alias").symlink_to("w.bin")
    with pytest.raises(OutputError, match="is where the model's external data"):
        rewrite(source, 0.06, output=source.parent / "alias", force=True)


def test_the_digests_are_recorded_on_request(source: Path) -> None:
    path, _ = rewrite(source, 0.06, hash_data=True)
    record = provenance.read(onnx.load(path, load_external_data=False))
    assert record is not None
    assert {item.sha256 for item in record.external_data} == {hashlib.sha256(WEIGHTS.tobytes()).hexdigest()}


def test_carrying_nothing_does_nothing(tmp_path: Path) -> None:
    assert place_external_data((), tmp_path, tmp_path / "elsewhere" / "out.onnx", "auto", force=False) == "none"


def test_something_unwritable_in_the_way_is_one_line(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "deep").write_bytes(b"a file where the folder of the data should be")
    code = run(["rewrite", str(source), "--kappa", "0.06", "-o", str(other / "new.onnx")])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert "cannot make the folder" in error


def test_missing_looping_and_irregular_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    for nowhere in ("nowhere", ""):
        with pytest.raises(ModelError, match=r"is not in|leaves the model's folder"):
            external_file(tmp_path, nowhere)
    with pytest.raises(ModelError, match=r"cannot be followed|is not in"):
        external_file(tmp_path, "loop")
    with pytest.raises(ModelError, match="is not a regular file"):
        external_file(tmp_path, "folder")

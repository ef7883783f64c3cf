"""The metadata entry of a retrofit: one entry, read back as written, anything odd refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import pytest

from jr_onnx import provenance
from jr_onnx.errors import ModelError
from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.provenance import METADATA_KEY, ExternalFile, Provenance, SiteRecord, Undo
from jr_onnx.records import dumps


def entry(**changes: object) -> Provenance:
    values = {
        "version": "1.0",
        "source_name": "höhe.onnx",
        "source_sha256": "ab" * 32,
        "plan": KappaPlan(kappa=0.06),
        "target": "portable",
        "sites": (
            SiteRecord("a/relu", "relu", "float32", "If.then_branch", "y", 0.06, None, "where", 5, "AAAA"),
            SiteRecord("b", "clip", "float64", "", "z\n", 1e-45, 6.0, "custom", 1, ""),
        ),
        "undo": Undo(7, ("AA==",), inputs_removed=((3, "AA=="),), calls=(("", 1, "AA=="),)),
    }
    return Provenance(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "record",
    [
        entry(),
        entry(created="2026-01-01T00:00:00+00:00", converted_from_opset=6),
        entry(plan=KappaPlan(random=RandomKappa(0.01, 0.1, per="site", source="op"))),
        entry(external_data=(ExternalFile("a/b.bin", 2**40, 3, None), ExternalFile("c", 0, 1, "00"))),
    ],
)
def test_it_is_read_as_it_was_written(record: Provenance) -> None:
    model = onnx.ModelProto()
    model.metadata_props.add(key="other", value="kept")
    provenance.write(model, record)
    again = onnx.ModelProto.FromString(model.SerializeToString())
    assert provenance.read(again) == record
    provenance.remove(again)
    assert [(item.key, item.value) for item in again.metadata_props] == [("other", "kept")]
    assert provenance.read(again) is None


def test_a_model_without_the_entry_is_no_retrofit() -> None:
    assert provenance.read(onnx.ModelProto()) is None


def test_two_entries_are_one_too_many() -> None:
    model = onnx.ModelProto()
    provenance.write(model, entry())
    provenance.write(model, entry())
    with pytest.raises(ModelError, match=f"holds {METADATA_KEY} 2 times, expected once"):
        provenance.read(model)
    provenance.remove(model)
    assert not model.metadata_props


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        "[" * 100_000,
        '{"schema": "jr_onnx.provenance/99"}',
        dumps(entry()).replace('"sites"', '"cites"'),
        dumps(entry()).replace('"nodes": 5', '"nodes": "5"'),
        dumps(entry()).replace('"kappa": 0.06', '"kappa": -1'),
        dumps(entry()).replace('"ir_version": 7', '"ir_version": 7.5'),
    ],
)
def test_a_damaged_entry_is_named_and_what_to_do(text: str) -> None:
    model = onnx.ModelProto()
    model.metadata_props.add(key=METADATA_KEY, value=text)
    with pytest.raises(ModelError, match=r"jr_onnx.provenance cannot be understood.*rewrite the original model again"):
        provenance.read(model)


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "data"
    for content in (b"", b"x", b"y" * ((1 << 20) + 1)):
        path.write_bytes(content)
        assert provenance.sha256_file(path) == hashlib.sha256(content).hexdigest()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read .*nowhere"):
        provenance.sha256_file(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="cannot read"):
        provenance.sha256_file(tmp_path)

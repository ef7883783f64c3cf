"""docs/reproduction.md is what the records beside it say."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from jr_onnx.records import dumps, load_file
from jr_onnx.reproduce.catalogue import ITEMS
from jr_onnx.reproduce.page import page
from jr_onnx.reproduce.result import Cell, ItemResult, as_csv

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECORDS = sorted((DOCS / "reproduction").glob("*.json"))


def test_the_published_page_is_made_of_the_published_records() -> None:
    """`jr-onnx reproduce --figure 3 -o docs/reproduction --page docs/reproduction.md` makes it again."""
    path = DOCS / "reproduction.md"
    assert path.read_text(encoding="utf-8") == page(DOCS / "reproduction", path)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: str(path.stem))
def test_a_published_record_has_its_cells_and_its_picture(path: Path) -> None:
    record = load_file(ItemResult, path)
    assert record.item == path.stem
    assert path.with_suffix(".csv").read_text(encoding="utf-8") == as_csv(record)
    assert path.with_suffix(".png").is_file() == (record.layout != "table")
    assert all(cell.samples for cell in record.cells if cell.here is not None and cell.kind != "value")


def test_the_page_says_how_many_images_each_column_has(tmp_path: Path) -> None:
    cells = [Cell("r", "PGD", "accuracy", 50.0, 40.0, 60.0, 1000), Cell("r", "TR", "accuracy", 50.0, 40.0, 60.0, 60)]
    result = ItemResult("table-1a", "Table 1(a)", "table", ("PGD", "TR"), tuple(cells))
    (tmp_path / "table-1a.json").write_text(dumps(result), encoding="utf-8")
    text = page(tmp_path, tmp_path / "page.md")
    assert "- images: PGD: 1000; TR: 60" in text
    assert "50.00 (40.0 to 60.0)" in text


def test_the_page_names_what_was_not_measured(tmp_path: Path) -> None:
    for item in ITEMS:
        if item.number not in ("3e", "4b"):
            result = ItemResult(item.name, item.what, "table", (), ())
            (tmp_path / f"{item.name}.json").write_text(dumps(result), encoding="utf-8")
    (tmp_path / "figure-2.json").unlink()
    text = page(tmp_path, tmp_path / "page.md")
    assert "Not measured yet: tables 3e, 4b; figures 4b. " in text, "figure 2 is a drawing"
    for name in ("table-3e", "table-4b", "figure-4b"):
        (tmp_path / f"{name}.json").write_text(dumps(ItemResult(name, name, "table", (), ())), encoding="utf-8")
    assert "Not measured" not in page(tmp_path, tmp_path / "page.md")

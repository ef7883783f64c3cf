from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from jr_onnx.attack.classifier.opener import ClassifierOpener
from jr_onnx.attack.suite.run import Shard
from jr_onnx.records import load_file
from jr_onnx.reproduce.catalogue import chosen, states
from jr_onnx.reproduce.measuring import Bench
from jr_onnx.reproduce.result import ItemResult
from jr_onnx.reproduce.run import reproduce
from tests.reproduce.builders import digits_as_mnist, write_network

IMAGES = 16
EOT_IMAGES = 4


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("reproduce")
    spec = digits_as_mnist(folder / "mnist")
    for seed, variant in enumerate(("base", "robust")):
        write_network(folder, spec, variant, seed)
    seen: list[str] = []
    bench = Bench(
        out=folder / "out",
        specs={"mnist": spec},
        limit=IMAGES,
        trust_limit=4,
        adaptive_limit=IMAGES,
        eot_limit=EOT_IMAGES,
        device="cpu",
        attacks=("pgd", "df"),
        notify=lambda title, state: seen.append(f"{title} {state.unit}"),
        command="jr-onnx reproduce",
    )
    return {"folder": folder, "bench": bench, "seen": seen}


def made(lab: dict[str, Any], bench: Bench | None = None, **names: tuple[str, ...]) -> dict[str, ItemResult | None]:
    bench = bench or lab["bench"]
    wanted = states(chosen(names.get("tables", ()), names.get("figures", ())), [lab["folder"]], bench.specs)
    return {state.item.name: result for state, result, _ in reproduce(bench, wanted)}


def test_tables_say_paper_beside_here_and_what_an_adaptive_attacker_achieves(lab: dict[str, Any]) -> None:
    found = made(lab, tables=("1a", "2a"))
    gray, white = found["table-1a"], found["table-2a"]
    assert gray is not None
    assert white is not None
    cell = white.at("JumpReLU (base)", "PGD")
    assert cell is not None
    assert (cell.paper, cell.samples) == (83.21, IMAGES)
    assert cell.low is not None
    assert cell.high is not None
    assert cell.here is not None
    assert cell.low <= cell.here <= cell.high
    quoted = white.at("One-hot (quoted)", "PGD")
    assert quoted is not None
    assert (quoted.here, quoted.paper, quoted.agrees) == (None, 93.77, None)
    adaptive = white.at("JumpReLU (base)", "adaptive")
    assert adaptive is not None
    assert adaptive.adaptive
    source = gray.at("ReLU (base)", "PGD")
    assert source is not None
    same = white.at("ReLU (base)", "PGD")
    assert same is not None
    assert source.here == same.here, "the source's row of table 1 is the white box on it"
    assert any("not the authors'" in note for note in white.notes)


def test_every_item_leaves_a_record_csv_and_pictures_that_agree(lab: dict[str, Any]) -> None:
    made(lab, tables=("2a",))
    out = lab["bench"].out
    record = load_file(ItemResult, out / "table-2a.json")
    with (out / "table-2a.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["row"], row["column"]) for row in rows] == [(cell.row, cell.column) for cell in record.cells]
    first = record.cells[0]
    assert first.here is not None
    assert math.isclose(float(rows[0]["here"]), first.here, rel_tol=1e-5)
    assert (out / "table-2a.png").read_bytes().startswith(b"\x89PNG")
    assert "JumpReLU (base)" in (out / "table-2a.svg").read_text(encoding="utf-8")


def test_a_second_run_does_nothing_again(lab: dict[str, Any]) -> None:
    made(lab, tables=("2a",))
    lab["seen"].clear()
    made(lab, replace(lab["bench"], found={}), tables=("2a",))
    assert lab["seen"], "the studies on the disk were looked at"
    assert [line for line in lab["seen"] if "/" in line.rpartition(" ")[2]] == []
    lab["seen"].clear()
    made(lab, tables=("1a", "2a"))
    assert lab["seen"] == [], "a study is opened once in a run"


def test_shards_write_an_item_when_the_last_is_done(lab: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jr_onnx.reproduce.measuring.BLOCK", 8)
    parts = [replace(lab["bench"], out=lab["folder"] / "shards", shard=Shard(number, 2)) for number in (1, 2)]
    assert made(lab, parts[0], figures=("8a",)) == {"figure-8a": None}
    whole = made(lab, parts[1], figures=("8a",))["figure-8a"]
    assert whole is not None
    assert whole.cells[0].samples == IMAGES


def test_accuracy_falls_with_iterations_from_the_clean_one(lab: dict[str, Any]) -> None:
    result = made(lab, figures=("8a",))["figure-8a"]
    assert result is not None
    for row in result.rows:
        curve = [cell.here or 0.0 for cell in result.cells if cell.row == row]
        assert curve == sorted(curve, reverse=True)
    clean = {row.partition(",")[0]: result.at(row, "0") for row in result.rows}
    white = made(lab, tables=("2a",))["table-2a"]
    assert white is not None
    for label, cell in clean.items():
        expected = white.at(f"{label} (base)", "clean")
        assert expected is not None
        assert cell is not None
        assert cell.here == expected.here


def test_the_matrix_has_its_sources_fooled_on_the_diagonal(lab: dict[str, Any]) -> None:
    result = made(lab, figures=("7a",))["figure-7a"]
    assert result is not None
    assert result.columns[0] == "0"
    for source in ("0", "0.5"):
        row = [result.at(f"gray box, PGD until fooled: from kappa {source}", goal) for goal in result.columns]
        values = {goal: cell.here for goal, cell in zip(result.columns, row, strict=True) if cell is not None}
        assert values[source] == 0.0
    assert all(cell.adaptive == cell.row.startswith("adaptive") for cell in result.cells)


def test_a_random_kappa_is_scored_by_one_draw_and_by_the_majority(lab: dict[str, Any]) -> None:
    result = made(lab, tables=("4a",))["table-4a"]
    assert result is not None
    row = "JumpReLU random (base)"
    for column in ("PGD", "DF survives", "DF majority", "EOT, adaptive"):
        cell = result.at(row, column)
        assert cell is not None
        assert cell.here is not None
        assert 0 <= cell.here <= 100
    assert all(any(cell.column == column for cell in result.cells) for column in result.columns), "no empty column"
    counts = {cell.column: cell.samples for cell in result.cells if cell.row == row}
    assert (counts["PGD"], counts["EOT, adaptive"]) == (IMAGES, EOT_IMAGES)
    printed = result.at(row, "DF survives")
    assert printed is not None
    assert printed.paper == 5.37


def test_the_trade_off_and_the_pictures(lab: dict[str, Any]) -> None:
    found = made(lab, figures=("4a", "5", "3"))
    trade, sheet, activations = found["figure-4a"], found["figure-5"], found["figure-3"]
    assert trade is not None
    assert sheet is not None
    assert activations is not None
    assert {cell.row for cell in trade.cells} == {"clean accuracy", "DF (linf)", "DF2 (l2)", "adaptive accuracy"}
    sizes = [cell for cell in sheet.cells if cell.survived == 0.0]
    assert sizes
    assert all(cell.here is not None and cell.here > 0 for cell in sizes)
    at_one = activations.at("JumpReLU", "1")
    above = activations.at("JumpReLU", "1.05")
    assert at_one is not None
    assert above is not None
    assert at_one.here == 0.0, "the comparison is strict"
    assert above.here == pytest.approx(1.05)
    # The smooth derivative is that of z sigmoid(beta (z - kappa)), beta kappa = 5, here by finite differences.
    z, step = 1.2, 1e-6

    def curve(at: float) -> float:
        return at / (1 + math.exp(-5 * (at - 1)))

    smooth = activations.at("derivative, smooth:5", "1.2")
    assert smooth is not None
    assert smooth.here == pytest.approx((curve(z + step) - curve(z - step)) / (2 * step), rel=1e-6)


def test_the_detector_is_judged_on_images_that_are_fooled_on_both(lab: dict[str, Any]) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from jr_onnx.reproduce.detection import ADAPTIVE, DIFFERENCE, detection

    wanted = states(chosen((), ("4a",)), [lab["folder"]], lab["bench"].specs)
    bench = replace(lab["bench"], out=lab["folder"] / "detector", limit=None, adaptive_limit=300, attacks=("pgd",))
    result = detection(bench, wanted[0].checkpoints[0])
    areas = {cell.row: cell for cell in result.cells if cell.column == ADAPTIVE}
    assert set(areas) == {"LID + ReLU", "LID + JumpReLU", DIFFERENCE}
    assert areas["LID + ReLU"].samples == areas["LID + JumpReLU"].samples
    difference = areas[DIFFERENCE]
    assert difference.here == pytest.approx((areas["LID + JumpReLU"].here or 0) - (areas["LID + ReLU"].here or 0))
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low <= difference.here <= difference.high
    assert np.isfinite(difference.here)


def test_a_network_trained_on_pgd_images_is_a_further_row(lab: dict[str, Any], tmp_path: Path) -> None:
    names = {"base": "base", "pgd": "robust"}
    for variant, source in names.items():
        (tmp_path / f"lenet_like_{variant}.onnx").write_bytes(
            (lab["folder"] / f"lenet_like_{source}.onnx").read_bytes()
        )
    bench = replace(lab["bench"], out=tmp_path / "out", attacks=("pgd",))
    result = next(iter(reproduce(bench, states(chosen(("2a",), ()), [tmp_path], bench.specs))))[1]
    assert result is not None
    cell = result.at("JumpReLU (PGD-trained)", "PGD")
    assert cell is not None
    assert (cell.paper, cell.agrees, cell.samples) == (None, None, IMAGES)
    assert any(note.startswith("PGD-trained: on PGD images alone") for note in result.notes)


def test_deepfool_may_have_fewer_images(lab: dict[str, Any], tmp_path: Path) -> None:
    bench = replace(lab["bench"], out=tmp_path / "out", attacks=("pgd", "df"), deepfool_limit=6, adaptive_limit=2)
    result = next(iter(reproduce(bench, states(chosen(("2a",), ()), [lab["folder"]], bench.specs))))[1]
    assert result is not None
    counts = {cell.column: cell.samples for cell in result.cells if cell.row == "ReLU (base)"}
    assert (counts["PGD"], counts["DF"]) == (IMAGES, 6)
    assert replace(bench, limit=None, trust_limit=9).images_for("tr") == 9
    assert replace(bench, limit=None, deepfool_limit=None).images_for("df2") is None


def test_adaptive_columns_may_be_left_out_and_say_so(lab: dict[str, Any], tmp_path: Path) -> None:
    from jr_onnx.reproduce.page import page

    bench = replace(lab["bench"], out=tmp_path / "out", attacks=("pgd",), limit=4, adaptive_limit=0)
    found = made(lab, bench, tables=("1a", "2a"))
    for table, columns in (("table-1a", ["adaptive"]), ("table-2a", ["adaptive", "least L2, adaptive"])):
        result = found[table]
        assert result is not None
        assert list(result.columns) == ["clean", "PGD", *columns]
        cells = [result.at("JumpReLU (base)", column) for column in columns]
        assert all(cell is not None and (cell.here, cell.samples, cell.agrees) == (None, 0, None) for cell in cells)
        assert any("says nothing of an attacker who knows the jump" in note for note in result.notes)
        assert not any(note.startswith(("adaptive: ", "least L2")) for note in result.notes)
    assert not list((tmp_path / "out").rglob("adaptive-*")), "nothing was attacked"
    text = page(tmp_path / "out", tmp_path / "page.md")
    assert "| not measured | not measured |" in text
    assert "## Against an attacker who knows the jump" not in text


def test_images_that_are_not_all_of_the_test_set_are_named(lab: dict[str, Any], tmp_path: Path) -> None:
    kept = tmp_path / "mnist"
    kept.mkdir()
    for path in (lab["folder"] / "mnist").glob("t10k-*"):
        (kept / path.name).write_bytes(path.read_bytes())
    note = "the images are those of mnist (test) that are not kept for validation, since there are no training images"
    for spec, expected in ((f"mnist:{kept}", True), (lab["bench"].specs["mnist"], False)):
        bench = Bench(out=tmp_path / str(expected), specs={"mnist": spec}, attacks=("pgd",), limit=8, adaptive_limit=0,
                      device="cpu")  # fmt: skip
        result = made(lab, bench, tables=("1a",))["table-1a"]
        assert result is not None
        assert (note in result.notes) is expected


def test_studies_of_the_same_images_open_the_models_once(lab: dict[str, Any], tmp_path: Path) -> None:
    bench = Bench(out=tmp_path / "out", specs=lab["bench"].specs, limit=4, adaptive_limit=4, device="cpu",
                  attacks=("pgd", "df"))  # fmt: skip
    with mock.patch.object(ClassifierOpener, "open", autospec=True, side_effect=ClassifierOpener.open) as opened:
        assert made(lab, bench, tables=("4a",))["table-4a"] is not None
    files = [call.args[1].name for call in opened.call_args_list]
    retrofits = ["JumpReLU.onnx", "JumpReLU-random.onnx"]
    assert files == ["lenet_like_base.onnx", *retrofits, "lenet_like_robust.onnx", *retrofits]


def test_a_variant_without_weights_is_noted(lab: dict[str, Any], tmp_path: Path) -> None:
    only = tmp_path / "only"
    only.mkdir()
    (only / "lenet_like_base.onnx").write_bytes((lab["folder"] / "lenet_like_base.onnx").read_bytes())
    bench = replace(lab["bench"], out=tmp_path / "out", attacks=("pgd",))
    wanted = states(chosen(("2a",), ()), [only], bench.specs)
    result = next(iter(reproduce(bench, wanted)))[1]
    assert result is not None
    assert "not measured: no weights of the robust network" in result.notes
    assert result.at("JumpReLU (robust)", "PGD") is None


def test_the_page_has_what_lies_in_the_folder(lab: dict[str, Any]) -> None:
    from jr_onnx.reproduce.page import page

    made(lab, tables=("2a",), figures=("3",))
    out: Path = lab["bench"].out
    text = page(out, out.parent / "page.md")
    assert "| JumpReLU (base) | 99.53 / " in text
    assert "![Figure 3: activations, and the derivatives that attacks use](out/figure-3.png)" in text
    assert "Beyond the sampling error (12 compared with the paper" in text
    cell = load_file(ItemResult, out / "table-2a.json").at("JumpReLU (base)", "adaptive")
    assert cell is not None
    comparison = text.partition("## Against an attacker who knows the jump")[2].partition("\n## ")[0]
    (row,) = [line for line in comparison.splitlines() if "| base |" in line]
    assert row.endswith(f"{cell.here:.2f} ({cell.low:.1f} to {cell.high:.1f}) |")
    assert "| `lenet_like_base.onnx` | fitted by a test |" in text.partition("## Networks")[2]
    assert "Table 2(d)" not in text

"""`jr-onnx rewrite` and `jr-onnx restore`, as a person uses them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from jr_onnx import provenance
from jr_onnx.rewriter import RewriteResult
from tests.cli.conftest import small_model


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_the_plain_case_needs_no_option_but_kappa(jr, model: Path) -> None:
    outcome = jr("rewrite", model, "--kappa", "0.06")
    written = model.with_name("net.jr.onnx")
    assert outcome.exit_code == 0
    assert operators(written) == ["Gemm", "ThresholdedRelu", "Gemm"]
    assert outcome.out.splitlines()[-1] == f"1 site rewritten -> {written}"
    assert outcome.err == f"next: jr-onnx verify {written} {model}\n"


def test_json_is_the_record(jr, model: Path) -> None:
    result = RewriteResult.from_json(json.loads(jr("rewrite", model, "--kappa", "0.06", "--json").out))
    assert [site.id for site in result.sites] == ["act1"]
    assert result.output == str(model.with_name("net.jr.onnx"))


def test_dry_run_and_diff_write_nothing(jr, model: Path) -> None:
    outcome = jr("rewrite", model, "--kappa", "0.06", "--dry-run", "--diff", "--lowering", "where")
    assert outcome.exit_code == 0
    assert "-a = Relu(h)" in outcome.out.splitlines()
    assert "+a = Where(a/jr_above, h, a/jr_zero)" in outcome.out.splitlines()
    assert sorted(path.name for path in model.parent.iterdir()) == ["net.onnx"]


def test_an_existing_output_is_kept_without_force(jr, model: Path) -> None:
    written = model.with_name("net.jr.onnx")
    written.write_bytes(b"precious")
    outcome = jr("rewrite", model, "--kappa", "1")
    assert outcome.exit_code == 2
    assert outcome.err == f"jr-onnx: {written} exists. Use --force to replace it, or choose another output (-o)\n"
    assert written.read_bytes() == b"precious"
    assert jr("rewrite", model, "--kappa", "1", "--force").exit_code == 0


def test_output_equal_to_input_is_refused(jr, model: Path) -> None:
    before = model.read_bytes()
    outcome = jr("rewrite", model, "--kappa", "1", "-o", model, "--force")
    assert outcome.exit_code == 2
    assert "is the source itself" in outcome.err
    assert model.read_bytes() == before


def test_a_retrofit_is_refused_unless_replaced(jr, model: Path) -> None:
    jr("rewrite", model, "--kappa", "0.06")
    written = model.with_name("net.jr.onnx")
    refused = jr("rewrite", written, "--kappa", "0.5")
    assert refused.exit_code == 4
    assert "is a retrofit already. Use --replace" in refused.err
    again = model.with_name("again.onnx")
    assert jr("rewrite", written, "--kappa", "0.5", "--replace", "-o", again).exit_code == 0
    record = provenance.read(onnx.load(again))
    assert record is not None
    assert [site.kappa for site in record.sites] == [0.5]


def test_restore_gives_the_original_back(jr, model: Path) -> None:
    jr("rewrite", model, "--kappa", "0.06", "--lowering", "custom")
    outcome = jr("restore", model.with_name("net.jr.onnx"))
    assert outcome.exit_code == 0
    assert onnx.load(model.with_name("net.restored.onnx")) == onnx.load(model)


def test_restore_says_that_the_source_had_another_opset(jr, model: Path) -> None:
    before = onnx.load(model).opset_import[0].version
    assert jr("rewrite", model, "--kappa", "0.06", "--opset", "18").exit_code == 0
    outcome = jr("restore", model.with_name("net.jr.onnx"))
    assert outcome.exit_code == 0
    assert f"net.onnx was converted from opset {before} before the rewrite" in outcome.err


def test_restore_of_an_original_says_so(jr, model: Path) -> None:
    outcome = jr("restore", model)
    assert outcome.exit_code == 2
    assert "carries no jr-onnx provenance" in outcome.err


def test_kappa_map(jr, model: Path) -> None:
    table = model.with_name("kappas.yaml")
    table.write_text("act.*: 0.25\n")
    assert jr("rewrite", model, "--kappa-map", table).exit_code == 0
    record = provenance.read(onnx.load(model.with_name("net.jr.onnx")))
    assert record is not None
    assert [site.kappa for site in record.sites] == [0.25]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("conv7: 0.25\n", "the kappa map's entry 'conv7' matches none of the 1 sites. Site ids look like 'act1'"),
        ("[1, 2]\n", "holds list, expected a mapping"),
        ("act1: lots\n", "kappa of 'act1' in"),
        ("act1: -1\n", "is -1.0, expected a finite number >= 0"),
        ("act1: 1\nact1: 2\n", "names 'act1' twice"),
        ("{act1: [\n", "is neither JSON nor YAML"),
    ],
)
def test_bad_kappa_maps(jr, model: Path, content: str, said: str) -> None:
    table = model.with_name("kappas.yaml")
    table.write_text(content)
    outcome = jr("rewrite", model, "--kappa-map", table)
    assert outcome.exit_code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert not model.with_name("net.jr.onnx").exists()


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        ([], 2, "no kappa was given. Give --kappa, --kappa-map or --random"),
        (["--kappa", "-1"], 2, "kappa is -1.0, expected a finite number >= 0"),
        (["--kappa", "nan"], 2, "kappa is nan, expected a finite number >= 0"),
        (["--kappa", "inf"], 2, "kappa is inf, expected a finite number >= 0"),
        (["--kappa", "1e39"], 2, "site act1: kappa 1e+39 overflows float32"),
        (["--random", "1", "0.5"], 2, "the random range is 1.0 to 0.5, expected low < high"),
        (["--random", "0.5", "1", "--kappa", "1"], 2, "a random kappa excludes a fixed one"),
        (["--random-per", "site", "--kappa", "1"], 2, "go with --random LOW HIGH, which is missing"),
        (["--kappa-input", "k"], 2, "a kappa input needs a default"),
        (["--kappa", "1", "--kappa-input", "h"], 2, "the model already has a value or node named 'h'"),
        (["--kappa", "1", "--include", "conv"], 2, "--include 'conv' matches none of the 1 sites"),
        (["--kappa", "1", "--exclude", "("], 2, "--exclude '(' is not a valid regular expression"),
        (["--kappa", "1", "--exclude", "act"], 3, "leave none of the 1 sites"),
        (["--kappa", "1", "--lowering", "thresholded", "--kappa-input", "k"], 4, "cannot change at run time"),
        (["--kappa", "1", "--opset", "99"], 2, "--opset is 99, expected 7 to"),
        (["--kappa", "1", "-o", "missing/x.onnx"], 2, "the folder missing does not exist"),
    ],
)
def test_bad_options_write_nothing(jr, model: Path, words: list[str], exit_code: int, said: str) -> None:
    outcome = jr("rewrite", model, *words)
    assert outcome.exit_code == exit_code, outcome.err
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert sorted(path.name for path in model.parent.iterdir()) == ["net.onnx"]


@pytest.mark.parametrize("command", [["inspect"], ["rewrite", "--kappa", "1"], ["restore"]])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
        (lambda path: path.write_bytes(b"hello, this is no model"), "is not an ONNX model"),
        (lambda path: path.write_bytes(b"\x08\x07"), "holds no graph"),
    ],
)
def test_bad_files(jr, tmp_path: Path, command: list[str], make, said: str) -> None:
    path = tmp_path / "bad.onnx"
    make(path)
    outcome = jr(command[0], path, *command[1:])
    assert outcome.exit_code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_truncated_file(jr, model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-7])
    outcome = jr("rewrite", model, "--kappa", "1")
    assert outcome.exit_code == 2
    assert "is cut off" in outcome.err


def test_random_kappa_becomes_an_input_with_a_default(jr, model: Path) -> None:
    outcome = jr("rewrite", model, "--random", "0.5", "1")
    assert outcome.exit_code == 0
    written = onnx.load(model.with_name("net.jr.onnx"))
    assert [value.name for value in written.graph.input] == ["x", "jr_kappa"]
    assert "it stays at its default 0.75" in " ".join(outcome.err.split()) or "default 0.75" in outcome.err


def two_sites(folder: Path) -> Path:
    """Relu nodes named act and act_1, as exporters number them."""
    proto = small_model()
    proto.graph.node[1].name = "act"
    proto.graph.node[2].input[0] = "b"
    proto.graph.node.insert(2, onnx.helper.make_node("Relu", ["a"], ["b"], name="act_1"))
    path = folder / "two nets.onnx"
    onnx.save(proto, path)
    return path


def test_an_id_in_a_map_or_a_filter_means_that_site_alone(jr, tmp_path: Path) -> None:
    model = two_sites(tmp_path)
    wish = tmp_path / "map.yaml"
    wish.write_text("act: 0.5\n")
    for words in (["--kappa-map", wish], ["--kappa", 1, "--include", "act"], ["--kappa", 1, "--exclude", "act_1"]):
        content = json.loads(jr("rewrite", model, *words, "--dry-run", "--json").out)
        assert [site["id"] for site in content["sites"]] == ["act"], words
        assert content["skipped"] == ["act_1"]
    wish.write_text("act: 0.5\nact.*: 0.25\n")
    out = tmp_path / "out.onnx"
    content = json.loads(jr("rewrite", model, "--kappa-map", wish, "-o", out, "--json").out)
    assert [site["kappa"] for site in content["sites"]] == [0.5, 0.25]
    assert jr("verify", out, model, "--samples", 1).exit_code == 0


def test_the_next_step_can_be_copied_into_a_shell(jr, tmp_path: Path) -> None:
    model = two_sites(tmp_path)
    first = jr("rewrite", model, "--kappa", 1).err.strip()
    words = shlex.split(first.removeprefix("next: jr-onnx "))
    assert jr(*words, "--samples", 1).exit_code == 0
    again = jr("rewrite", words[1], "--kappa", 2, "--replace", "-o", tmp_path / "again.onnx").err.strip()
    assert jr(*shlex.split(again.removeprefix("next: jr-onnx ")), "--samples", 1).exit_code == 0


def test_a_device_as_output_is_refused(jr, model: Path) -> None:
    outcome = jr("rewrite", model, "--kappa", 1, "--force", "-o", "/dev/null")
    assert outcome.exit_code == 2
    assert outcome.err == "jr-onnx: /dev/null is a device or a pipe, expected a file name. Choose another output (-o)\n"
    assert Path("/dev/null").is_char_device()


def test_a_file_name_that_is_no_text_is_no_obstacle(model: Path) -> None:
    """Names in another encoding reach Python as surrogates, which UTF-8, and so protobuf and a pipe, do not take."""
    source = model.rename(os.fsdecode(os.fsencode(model.parent) + b"/mod\xe9l.onnx"))
    target = os.fsencode(model.parent) + b"/mod\xe9l.jr.onnx"
    for words in (["rewrite", source, "--kappa", "1", "--json"], ["verify", target, source], ["restore", target]):
        done = subprocess.run([sys.executable, "-m", "jr_onnx", *words], capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert b"mod\\udce9l" in done.stdout
    record = provenance.read(onnx.load_from_string(Path(os.fsdecode(target)).read_bytes()))
    assert record is not None
    assert record.source_name == "mod\\udce9l.onnx"


def test_a_kappa_above_a_cap_is_warned_of(jr, tmp_path: Path) -> None:
    proto = small_model()
    proto.graph.node[1].CopyFrom(onnx.helper.make_node("Clip", ["h", "zero", "six"], ["a"], name="act1"))
    for name, value in (("zero", 0.0), ("six", 6.0)):
        proto.graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [value]))
    path = tmp_path / "capped.onnx"
    onnx.save(proto, path)
    assert "warning" not in jr("rewrite", path, "--kappa", 5.9, "--dry-run").err
    for kappa in (6, 7):
        found = jr("rewrite", path, "--kappa", kappa, "--dry-run").err
        assert f"kappa is not below the cap at 1 of 1 sites (act1 is one: kappa {kappa}, cap 6)" in found

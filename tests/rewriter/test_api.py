"""`rewrite` and `restore` as Python callers see them: what goes in comes out, and what is promised is written."""

from __future__ import annotations

import inspect
from pathlib import Path

import onnx
import pytest

from jr_onnx.errors import ModelError, OutputError
from jr_onnx.rewriter import restore, rewrite
from jr_onnx.rewriter.options import OptionKeywords, Options
from tests.verifier.nets import network, save


def test_a_path_gives_a_path_and_a_model_a_model(tmp_path: Path) -> None:
    source = save(network(), tmp_path)
    path, result = rewrite(source, 0.5)
    assert isinstance(path, Path)
    assert result.output == str(path)
    model, in_memory = rewrite(onnx.load(source), 0.5)
    assert isinstance(model, onnx.ModelProto)
    assert in_memory.output is None
    assert isinstance(restore(path), Path)
    assert restore(model).graph == onnx.load(source).graph


def test_a_dry_run_writes_nothing_and_names_the_place(tmp_path: Path) -> None:
    source = save(network(), tmp_path)
    path, result = rewrite(source, 0.5, dry_run=True)
    assert list(tmp_path.iterdir()) == [source]
    assert (path.name, result.output, len(result.sites)) == (f"{source.stem}.jr.onnx", None, 2)
    path.write_bytes(b"in the way")
    assert rewrite(source, 0.5, dry_run=True)[1] == result
    with pytest.raises(OutputError, match="exists"):
        rewrite(source, 0.5)


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_diff_is_part_of_the_result_where_it_is_asked_for(tmp_path: Path, in_memory: bool) -> None:
    source = save(network(), tmp_path)
    result = rewrite(network(), 0.5, diff=True)[1] if in_memory else rewrite(source, 0.5, dry_run=True, diff=True)[1]
    assert result.diff is not None
    assert any(line.startswith("-") and "Relu" in line for line in result.diff.splitlines())
    assert any(line.startswith("+") and "ThresholdedRelu" in line for line in result.diff.splitlines())
    assert rewrite(network(), 0.5)[1].diff is None


def test_keywords_and_options_are_the_same() -> None:
    """The overloads take their keywords from `OptionKeywords`, the function spells them out: neither may lack one."""
    keywords = set(OptionKeywords.__annotations__)
    of_files = {"output", "force", "external_data", "dry_run", "diff"}
    assert set(inspect.signature(rewrite).parameters) == keywords | of_files | {"model", "kappa"}
    assert set(inspect.signature(Options).parameters) == keywords | {"plan"}


def test_a_graph_of_graphsurgeon_gives_a_graph_and_keeps_no_way_back() -> None:
    gs = pytest.importorskip("onnx_graphsurgeon")
    graph = gs.import_onnx(network())
    found, result = rewrite(graph, 0.5)
    assert isinstance(found, gs.Graph)
    assert [node.op for node in graph.nodes].count("Relu") == len(result.sites) == 2  # the input itself is not changed
    assert [node.op for node in found.nodes].count("ThresholdedRelu") == 2
    with pytest.raises(ModelError, match="nothing can be restored from a Graph"):
        restore(found)
    with pytest.raises(TypeError, match="expected a path, a ModelProto or a graphsurgeon Graph, found int"):
        rewrite(3, 0.5)  # type: ignore[call-overload]

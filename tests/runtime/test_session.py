"""The session in place of ONNX Runtime's: options, arguments, metadata, files, threads and errors."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from jr_onnx.errors import InputError, ModelError
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime.session import InferenceSession
from tests.runtime.exact_nets import KAPPA, convnet, images
from tests.runtime.support import CPU, assert_same_bits, open_both, options


def test_the_callers_options_stay_as_they_are(tmp_path: Path) -> None:
    """Options serve several sessions, and custom operators must not be registered twice."""
    data = rewrite(convnet(), KAPPA, lowering="custom")[0].SerializeToString()
    wanted = options(optimized_model_filepath=str(tmp_path / "mine.onnx"), log_severity_level=3, enable_profiling=True)
    wanted.profile_file_prefix = str(tmp_path / "profile")
    wanted.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for _ in range(2):
        session = InferenceSession(data, wanted, CPU)
        assert session.retrofit.mode == "optimised"
        assert session.get_session_options().get_session_config_entry("session.intra_op.allow_spinning") == "0"
        session.end_profiling()
    assert wanted.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert wanted.optimized_model_filepath == str(tmp_path / "mine.onnx")
    assert wanted.enable_profiling
    written = onnx.load(str(tmp_path / "mine.onnx"))
    assert any(node.op_type == "JumpRelu" for node in written.graph.node)
    assert {path.name.split("_")[0] for path in tmp_path.iterdir()} == {"mine.onnx", "profile"}


def test_options_with_the_library_registered_work_too() -> None:
    from jr_onnx.runtime import register

    wanted = options()
    register(wanted, "cpu")
    data = rewrite(convnet(), KAPPA, lowering="custom")[0].SerializeToString()
    assert InferenceSession(data, wanted, CPU).retrofit.mode == "optimised"


def test_metadata_and_signature_are_the_retrofits() -> None:
    data = rewrite(convnet(), KAPPA)[0].SerializeToString()
    meta = InferenceSession(data, options(), CPU).get_modelmeta()
    plain = onnxruntime.InferenceSession(data, options(), providers=CPU)
    wanted = plain.get_modelmeta()
    for name in ("custom_metadata_map", "producer_name", "graph_name", "graph_description", "domain", "version"):
        assert getattr(meta, name) == getattr(wanted, name), name
    fast = InferenceSession(data, options(), CPU)
    assert [(item.name, item.shape, item.type) for item in fast.get_inputs()] == [
        (item.name, item.shape, item.type) for item in plain.get_inputs()
    ]
    assert [item.name for item in fast.get_outputs()] == [item.name for item in plain.get_outputs()]


def test_files_and_external_data(tmp_path: Path) -> None:
    model = convnet()
    inline, outside = tmp_path / "inline.onnx", tmp_path / "outside" / "model.onnx"
    outside.parent.mkdir()
    onnx.save(model, str(inline))
    onnx.save(model, str(outside), save_as_external_data=True, location="weights.bin", size_threshold=64)
    results = []
    for path in (inline, outside):
        written, _ = rewrite(str(path), KAPPA)
        session = InferenceSession(written, options(), CPU, retrofit="optimised")
        results.append(session.run(None, images())[0])
    np.testing.assert_array_equal(*results)


def open_files() -> Counter[str]:
    """Count what the descriptors of this process lead to; one that closes while they are listed is not counted."""
    found: Counter[str] = Counter()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found[str(descriptor.readlink())] += 1
    return found


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    data = rewrite(convnet(), KAPPA)[0].SerializeToString()
    InferenceSession(data, options(), CPU)
    gc.collect()  # what earlier tests left to the collector must not be closed in between
    before = open_files()
    shared = sorted(Path("/dev/shm").iterdir())
    session = InferenceSession(data, options(), CPU)
    assert session.retrofit.mode == "optimised"
    assert not open_files() - before
    assert sorted(Path("/dev/shm").iterdir()) == shared
    assert list(tmp_path.iterdir()) == []


def test_sixteen_threads_on_one_session() -> None:
    fast, plain = open_both(convnet(), KAPPA)
    feeds = [images(2, seed=seed) for seed in range(16)]
    wanted = [plain.run(None, feed)[0] for feed in feeds]
    wrong: list[int] = []

    def work(number: int) -> None:
        results = [fast.run(None, feeds[number])[0] for _ in range(20)]
        wrong.extend(number for result in results if not np.array_equal(result, wanted[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_model_that_is_no_retrofit_is_left_to_onnx_runtime() -> None:
    data = convnet().SerializeToString()
    session = InferenceSession(data, options(), CPU)
    assert session.retrofit.mode == "none"
    wanted = onnxruntime.InferenceSession(data, options(), providers=CPU)
    assert_same_bits(session, wanted, images())


def test_what_is_no_model_gets_onnx_runtimes_own_error(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    for source, error in ((str(tmp_path / "missing.onnx"), "NoSuchFile"), (str(tmp_path / "text.onnx"), "Invalid")):
        with pytest.raises(Exception, match=r".+") as caught:
            InferenceSession(source, options(), CPU, enable_fallback=0)
        assert error in type(caught.value).__name__


def test_a_damaged_provenance_is_an_error() -> None:
    """The plain way would run a random kappa at its middle, in silence."""
    model = rewrite(convnet(), KAPPA)[0]
    for entry in model.metadata_props:
        if entry.key == "jr_onnx.provenance":
            entry.value = entry.value[:-5]
    with pytest.raises(ModelError, match="cannot be understood"):
        InferenceSession(model.SerializeToString(), options(), CPU)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(InputError, match="retrofit is 'fast', expected one of auto, plain, optimised"):
        InferenceSession(convnet().SerializeToString(), options(), CPU, retrofit="fast")


def test_providers_can_be_set_again() -> None:
    session = InferenceSession(rewrite(convnet(), KAPPA)[0].SerializeToString(), options(), CPU)
    before = session.run(None, images())[0]
    session.set_providers(CPU)
    assert session.retrofit.mode == "optimised"
    np.testing.assert_array_equal(session.run(None, images())[0], before)


@pytest.mark.parametrize(
    ("name", "meant"), [("library", "op_library"), ("retrofitt", "retrofit"), ("external", "external_data")]
)
def test_a_misspelt_argument_is_refused(name: str, meant: str) -> None:
    given: dict[str, Any] = {name: False}
    with pytest.raises(InputError, match=f"no argument '{name}'.*{meant}"):
        InferenceSession(convnet().SerializeToString(), providers=CPU, **given)


def test_arguments_of_onnx_runtime_go_through() -> None:
    given: dict[str, Any] = {
        "enable_fallback": 0,
        "disabled_optimizers": ["ConstantFolding"],
        "read_config_from_model": 0,
    }
    InferenceSession(convnet().SerializeToString(), providers=CPU, **given)


@pytest.mark.slow
def test_more_than_two_gigabytes(tmp_path: Path) -> None:
    rows, columns, count = 16_384, 17_000, 2  # 1.1 GB of float32 each
    row = np.zeros(columns, dtype=np.float32)
    row[:4] = (1, 3, 4, 5)
    weights, nodes = [], []
    for index in range(count):
        location = f"weights{index}.bin"
        with (tmp_path / location).open("wb") as stream:
            stream.write(row.tobytes())
            stream.truncate(rows * columns * 4)  # a sparse file: the rest reads as zeros
        weight = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[rows, columns])
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
        weights.append(weight)
        nodes.append(helper.make_node("MatMul", ["x", weight.name], [f"z{index}"]))
        nodes.append(helper.make_node("Relu", [f"z{index}"], [f"y{index}"], name=f"site{index}"))
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y0", "y1")]
    graph = helper.make_graph(nodes, "large", info[:1], info[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "large.onnx"))
    written, _ = rewrite(str(tmp_path / "large.onnx"), KAPPA)
    wanted = options(enable_cpu_mem_arena=False)
    wanted.add_session_config_entry("session.disable_prepacking", "1")
    session = InferenceSession(written, wanted, CPU, retrofit="optimised")
    x = np.zeros((1, rows), dtype=np.float32)
    x[0, 0] = 1
    for result in session.run(None, {"x": x}):
        assert result[0, :5].tolist() == [0, 0, 4, 5, 0]

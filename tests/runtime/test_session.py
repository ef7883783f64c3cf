from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from jr_onnx.errors import InputError, ModelError, RefusalError
from jr_onnx.kappa import KappaPlan
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime import opening
from jr_onnx.runtime.session import InferenceSession
from jr_onnx.semantics import jump_relu
from tests.runtime.exact_nets import KAPPA, ExactNet, convnet, images

CPU = ["CPUExecutionProvider"]


@pytest.fixture(params=["library", "standard nodes"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Every test with this fixture runs with the op library and without."""
    if request.param == "library":
        return True
    monkeypatch.setattr("jr_onnx.runtime.ops_library._FOLDER", Path("/nowhere"))
    return False


def options(**attributes: Any) -> Any:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = 1
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def open_both(model: onnx.ModelProto, kappa: Any, **rewriting: Any) -> tuple[InferenceSession, InferenceSession]:
    """Return the optimised and the plain session of a retrofit."""
    data = rewrite(model, kappa, **rewriting)[0].SerializeToString()
    fast = InferenceSession(data, options(), CPU, retrofit="optimised")
    plain = InferenceSession(data, options(), CPU, retrofit="plain")
    assert fast.retrofit.mode == "optimised"
    assert plain.retrofit.mode == "plain"
    assert plain.retrofit.reason == "asked for"
    return fast, plain


def assert_same_bits(fast: InferenceSession, plain: InferenceSession, feed: dict[str, Any]) -> list[Any]:
    one, other = fast.run(None, feed), plain.run(None, feed)
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)
        assert np.any(left), "a network of zeros proves nothing"
    return list(one)


@pytest.mark.parametrize("lowering", ["where", "thresholded", "custom"])
def test_both_ways_give_the_same_bits(lowering: str, library: bool) -> None:
    fast, plain = open_both(convnet(), KAPPA, lowering=lowering, target="cpu")
    assert fast.retrofit.jumps == fast.retrofit.sites == 6
    assert (fast.retrofit.library is not None) == library
    assert bool(fast.retrofit.library_problem) != library
    for count in (1, 5):  # the batch is dynamic
        assert_same_bits(fast, plain, images(count))


@pytest.mark.parametrize("opset", [7, 9, 10, 13, 21, 22])
def test_every_opset(opset: int, library: bool) -> None:
    fast, plain = open_both(convnet(opset, opset=opset), KAPPA)
    assert_same_bits(fast, plain, images())


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"])
def test_the_callers_level_of_optimisation_is_kept(level: str) -> None:
    wanted = getattr(onnxruntime.GraphOptimizationLevel, level)
    data = rewrite(convnet(), KAPPA)[0].SerializeToString()
    session = InferenceSession(data, options(graph_optimization_level=wanted), CPU)
    assert session.retrofit.mode == "optimised"
    plain = InferenceSession(data, options(), CPU, retrofit="plain")
    assert_same_bits(session, plain, images())


def test_the_jump_is_strict_and_where_it_should_be() -> None:
    """At an integer kappa exact arithmetic meets z = kappa; the original's own pre-activations say what is right."""
    net = ExactNet(3)
    z = net.conv("x", 3, 32)
    model = net.model([z, net.relu(z)], ["N", 3, 8, 8])
    session = InferenceSession(rewrite(model, KAPPA)[0].SerializeToString(), options(), CPU)
    before, after = session.run(None, images())
    assert np.any(before == KAPPA)
    np.testing.assert_array_equal(after, jump_relu(before, KAPPA))


@pytest.mark.parametrize("cap", [6.0, 3.0, 2.0])
def test_caps_above_at_and_below_kappa(cap: float, library: bool) -> None:
    net = ExactNet(5)
    x = net.relu6(net.conv("x", 3, 32), cap)
    x = net.relu6(net.add("Add", [net.conv(x, 32, 32), x]), cap)
    fast, plain = open_both(net.model([net.relu6(net.conv(x, 32, 8), cap)], ["N", 3, 8, 8]), KAPPA)
    results = assert_same_bits(fast, plain, images())
    assert results[0].max() == cap


def test_every_site_gets_its_own_kappa(library: bool) -> None:
    ids = ["Relu_1", "Relu_3", "Relu_6", "Relu_8", "Relu_11", "Relu_14"]
    fast, plain = open_both(convnet(), {name: float(index) for index, name in enumerate(ids)})
    assert_same_bits(fast, plain, images())
    other, _ = open_both(convnet(), dict.fromkeys(ids, 0.0))
    assert np.any(other.run(None, images())[0] != fast.run(None, images())[0])


def test_two_sites_on_one_tensor_are_not_merged(library: bool) -> None:
    net = ExactNet(6)
    z = net.conv("x", 3, 32)
    names = [net.relu(z), net.relu(z)]
    fast, plain = open_both(net.model(names, ["N", 3, 8, 8]), {names[0]: 1.0, names[1]: 4.0})
    one, two = assert_same_bits(fast, plain, images())
    assert set(np.unique(one)) - set(np.unique(two)) == {2.0, 3.0, 4.0}


def test_a_quantiser_does_not_swallow_the_site(library: bool) -> None:
    """ONNX Runtime drops a Relu in front of a quantiser whose range starts at 0; the jump must stay."""
    net = ExactNet(7)
    x = net.relu(net.conv("x", 3, 16))
    scale, zero = net.constant(np.float32(1)), net.constant(np.uint8(0))
    x = net.add("DequantizeLinear", [net.add("QuantizeLinear", [x, scale, zero]), scale, zero])
    fast, plain = open_both(net.model([net.conv(x, 16, 8)], ["N", 3, 8, 8]), KAPPA)
    assert_same_bits(fast, plain, images())


def test_a_relu_before_a_clip_is_not_merged_with_it(library: bool) -> None:
    net = ExactNet(8)
    z = net.relu(net.conv("x", 3, 16))
    x = net.add("Clip", [z, net.constant(np.float32(1)), net.constant(np.float32(9))])
    fast, plain = open_both(net.model([x], ["N", 3, 8, 8]), KAPPA)
    (result,) = assert_same_bits(fast, plain, images())
    assert result.min() == 1


def test_the_models_own_hard_sigmoid_is_left_alone() -> None:
    net = ExactNet(9)
    x = net.add("HardSigmoid", [net.conv("x", 3, 16)], alpha=2.0, beta=-7.5)
    fast, plain = open_both(net.model([net.relu(net.conv(x, 16, 8)), x], ["N", 3, 8, 8]), 0.5)
    for left, right in zip(fast.run(None, images()), plain.run(None, images()), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)


@pytest.mark.parametrize("op_type", ["Max", "FusedConv", "FusedGemm"])
def test_other_forms_of_relu(op_type: str, library: bool) -> None:
    net = ExactNet(10)
    weight = net.weight((16, 3, 3, 3))
    if op_type == "FusedConv":
        x = net.add(op_type, ["x", weight], domain="com.microsoft", activation="Relu", pads=[1] * 4)
    elif op_type == "FusedGemm":
        flat = net.add("Flatten", [net.conv("x", 3, 4)])
        bias = net.weight((16,))
        x = net.add(op_type, [flat, net.weight((256, 16)), bias], domain="com.microsoft", activation="Relu")
    else:
        z = net.conv("x", 3, 16)
        x = net.add("Max", [net.constant(np.float32(0)), z])
    fast, plain = open_both(net.model([x], ["N", 3, 8, 8], (("com.microsoft", 1),)), KAPPA)
    assert_same_bits(fast, plain, images())


def function_net() -> onnx.ModelProto:
    """A function with a Conv and a Relu, called twice, once from another function."""
    net = ExactNet(11)
    body = [helper.make_node("Conv", ["a", "w"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["b"], name="r")]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("pkg", 1)]
    net.functions.append(helper.make_function("pkg", "block", ["a", "w"], ["b"], body, imports))
    inner = [helper.make_node("block", ["a", "w"], ["b"], domain="pkg")]
    net.functions.append(helper.make_function("pkg", "outer", ["a", "w"], ["b"], inner, imports))
    x = net.relu(net.conv("x", 3, 16))
    x = net.add("block", [x, net.weight((16, 16, 3, 3))], domain="pkg")
    x = net.add("outer", [x, net.weight((16, 16, 3, 3))], domain="pkg")
    return net.model([x], ["N", 3, 8, 8], (("pkg", 1),))


@pytest.mark.parametrize("plan", [KAPPA, KappaPlan(kappa=KAPPA, input_name="k")])
def test_a_site_in_a_function_stands_at_every_call(plan: Any, library: bool) -> None:
    fast, plain = open_both(function_net(), plan)
    assert fast.retrofit.sites == 2
    assert fast.retrofit.jumps == 3
    assert_same_bits(fast, plain, images())


def branching_net() -> onnx.ModelProto:
    net = ExactNet(12)
    x = net.relu(net.conv("x", 3, 16))
    branches = {}
    for name, shift in (("then_branch", 1.0), ("else_branch", -1.0)):
        shift_name = net.constant(np.float32(shift))
        nodes = [
            helper.make_node("Add", [x, shift_name], [f"{name}_a"]),
            helper.make_node("Relu", [f"{name}_a"], [f"{name}_b"], name=f"{name}_relu"),
        ]
        value = helper.make_tensor_value_info(f"{name}_b", TensorProto.FLOAT, None)
        branches[name] = helper.make_graph(nodes, name, [], [value])
    total = net.add("ReduceSum", ["x"], keepdims=0)
    positive = net.add("Greater", [total, net.constant(np.float32(0))])
    return net.model([net.add("If", [positive], **branches)], ["N", 3, 8, 8])


@pytest.mark.parametrize("plan", [KAPPA, KappaPlan(kappa=KAPPA, input_name="k")])
def test_sites_in_both_branches(plan: Any, library: bool) -> None:
    fast, plain = open_both(branching_net(), plan)
    sums = set()
    for seed in range(4):
        feed = images(seed=seed)
        sums.add(bool(feed["x"].sum() > 0))
        assert_same_bits(fast, plain, feed)
    assert sums == {True, False}


def test_a_site_that_the_optimiser_computes_away_leads_to_the_plain_way(caplog: pytest.LogCaptureFixture) -> None:
    net = ExactNet(13)
    folded = net.relu(net.weight((16, 1, 1), 1.0))
    model = net.model([net.add("Add", [net.relu(net.conv("x", 3, 16)), folded])], ["N", 3, 8, 8])
    data = rewrite(model, 0.5)[0].SerializeToString()
    with caplog.at_level(logging.WARNING, logger="jr_onnx.runtime"):
        session = InferenceSession(data, options(), CPU)
    assert session.retrofit.mode == "plain"
    assert session.retrofit.reason.endswith("site Relu_0 stands in the graph 0 times, expected 1")
    assert session.retrofit.reason in caplog.text
    assert_same_bits(session, InferenceSession(data, options(), CPU, retrofit="plain"), images())
    with pytest.raises(RefusalError, match="stands in the graph 0 times"):
        InferenceSession(data, options(), CPU, retrofit="optimised")


def test_other_types_than_float32_run_the_plain_way() -> None:
    net = ExactNet(14)
    x = net.relu(net.add("Cast", ["x"], to=TensorProto.DOUBLE))
    model = net.model([net.add("Cast", [x], to=TensorProto.FLOAT)], ["N", 3, 8, 8])
    session = InferenceSession(rewrite(model, 1.0)[0].SerializeToString(), options(), CPU)
    assert session.retrofit.reason == "site Relu_1 is float64, and ONNX Runtime's CPU kernels fuse float32 only"
    np.testing.assert_array_equal(session.run(None, images())[0], jump_relu(images()["x"], 1.0))


def test_disabled_optimisation_is_respected() -> None:
    wanted = options(graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    session = InferenceSession(rewrite(convnet(), KAPPA)[0].SerializeToString(), wanted, CPU)
    assert session.retrofit.mode == "plain"
    assert session.retrofit.reason == "the session options disable optimisation"


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


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    data = rewrite(convnet(), KAPPA)[0].SerializeToString()
    InferenceSession(data, options(), CPU)
    before = sorted(Path("/proc/self/fd").iterdir())
    shared = sorted(Path("/dev/shm").iterdir())
    session = InferenceSession(data, options(), CPU)
    assert session.retrofit.mode == "optimised"
    assert sorted(Path("/proc/self/fd").iterdir()) == before
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


def test_what_is_no_model_gets_onnx_runtimes_own_word(tmp_path: Path) -> None:
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


def test_an_edited_retrofit_runs_the_plain_way() -> None:
    model = rewrite(convnet(), KAPPA, lowering="where")[0]
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = name.replace("Relu_1", "renamed")
        for index, name in enumerate(node.input):
            node.input[index] = name.replace("Relu_1", "renamed")
    session = InferenceSession(model.SerializeToString(), options(), CPU)
    assert session.retrofit.mode == "plain"
    assert "is not where the rewrite left it" in session.retrofit.reason


def test_a_wrong_wish_is_refused() -> None:
    with pytest.raises(InputError, match="retrofit is 'fast', expected one of auto, plain, optimised"):
        InferenceSession(convnet().SerializeToString(), options(), CPU, retrofit="fast")


def test_a_failing_optimiser_leads_to_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.memfd_create", lambda *_: (_ for _ in ()).throw(OSError("no memory files")))
    session = InferenceSession(rewrite(convnet(), KAPPA)[0].SerializeToString(), options(), CPU)
    assert session.retrofit.mode == "plain"
    assert "no memory files" in session.retrofit.reason


def test_an_optimised_model_that_does_not_open_leads_to_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    real = opening.optimise

    def broken(*arguments: Any, **keywords: Any) -> Any:
        result = real(*arguments, **keywords)
        result.proto.graph.node[-1].op_type = "Nonsense"
        return result

    monkeypatch.setattr(opening, "optimise", broken)
    session = InferenceSession(rewrite(convnet(), KAPPA)[0].SerializeToString(), options(), CPU)
    assert session.retrofit.mode == "plain"
    assert "ONNX Runtime cannot open the optimised model" in session.retrofit.reason
    assert np.any(session.run(None, images())[0])


def test_an_older_onnx_runtime_takes_everything_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 1.24 external data cannot come from memory."""
    for module in ("skeleton", "optimizer"):
        monkeypatch.setattr(f"jr_onnx.runtime.{module}.can_take_files", lambda: False)
    fast, plain = open_both(convnet(), KAPPA)
    assert_same_bits(fast, plain, images())


def test_providers_can_be_set_again() -> None:
    session = InferenceSession(rewrite(convnet(), KAPPA)[0].SerializeToString(), options(), CPU)
    before = session.run(None, images())[0]
    session.set_providers(CPU)
    assert session.retrofit.mode == "optimised"
    np.testing.assert_array_equal(session.run(None, images())[0], before)


@pytest.mark.parametrize(
    ("name", "meant"), [("library", "op_library"), ("retrofitt", "retrofit"), ("external", "external_data")]
)
def test_an_argument_almost_called_like_ours_is_refused(name: str, meant: str) -> None:
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

"""Captured graphs without a GPU: which sizes they serve, which models are refused, and the lock around a capture."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from jr_onnx.deploy.model import read_model
from jr_onnx.errors import InputError
from jr_onnx.runtime.providers import CUDA_OPTIONS, captures_graphs
from jr_onnx.serve.guard import Guard
from jr_onnx.serve.opening import interface_of, without_capture
from jr_onnx.serve.options import Limits, Running
from jr_onnx.serve.replays import GraphSizes, why_not_captured
from jr_onnx.serve.start import on_usable_providers

WIDTH = 8


def test_rows_are_padded_to_at_most_twice_their_number() -> None:
    sizes = GraphSizes((1, 4, 32), may_pad=True)
    assert [sizes.graph_for(rows) for rows in (1, 2, 3, 4, 5, 15, 16, 32, 33)] == [
        1, 4, 4, 4, None, None, 32, 32, None
    ]  # fmt: skip
    exact = GraphSizes((1, 4), may_pad=False)
    assert [exact.graph_for(rows) for rows in (1, 2, 3, 4, 5)] == [1, None, None, 4, None]


@pytest.mark.parametrize(
    ("nodes", "shape", "element", "why"),
    [
        ([helper.make_node("Relu", ["x"], ["y"])], ("N", WIDTH), TensorProto.FLOAT, ""),
        ([helper.make_node("Relu", ["x"], ["y"])], (2, WIDTH), TensorProto.FLOAT, ""),
        ([helper.make_node("Relu", ["x"], ["y"])], ("N", "M"), TensorProto.FLOAT, "the sizes of input 'x' are open"),
        ([helper.make_node("Identity", ["x"], ["y"])], ("N", 2), TensorProto.STRING, "input 'x' does not hold numbers"),
        (
            [helper.make_node("RandomNormalLike", ["x"], ["y"])], ("N", WIDTH), TensorProto.FLOAT,
            "its operator RandomNormalLike would repeat the captured numbers in every replay",
        ),
        (
            [helper.make_node("Dropout", ["x", "ratio", "training"], ["y"])], ("N", WIDTH), TensorProto.FLOAT,
            "its operator Dropout would repeat the captured numbers in every replay",
        ),
    ],
    ids=["batch", "fixed", "open", "strings", "random", "dropout"],
)  # fmt: skip
def test_why_a_model_is_not_captured(
    tmp_path: Path, nodes: list[onnx.NodeProto], shape: tuple[int | str, ...], element: int, why: str
) -> None:
    x, y = (helper.make_tensor_value_info(name, element, shape) for name in "xy")
    constants = [
        helper.make_tensor("ratio", TensorProto.FLOAT, (), [0.5]),
        helper.make_tensor("training", TensorProto.BOOL, (), [True]),
    ]
    graph = helper.make_graph(nodes, "net", [x], [y], constants)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    facts = read_model(path)
    assert why_not_captured(facts, interface_of("net", "1", facts, Running(), Limits())) == why


def test_options_of_cuda_need_cuda_and_graphs_need_options_that_capture() -> None:
    with pytest.raises(InputError, match=r"options of the CUDA provider were given \(graph\), but not the provider"):
        Running(cuda_options="graph")
    with pytest.raises(InputError, match=r"graphs of 4 rows were asked for, but .* \(both\) capture none"):
        Running(providers=("cuda",), cuda_options="both", graph_batch=(4,))
    with pytest.raises(InputError, match="'fastest', expected one of default, fuse_conv_bias"):
        Running(providers=("cuda",), cuda_options="fastest")
    with pytest.raises(InputError, match="the number of rows of a captured graph is 0"):
        Running(providers=("cuda",), cuda_options="graph", graph_batch=(0,))
    full = Running(providers=("CUDAExecutionProvider", "CPUExecutionProvider"), cuda_options="graph_both")
    assert full.provider_choices == (
        ("CUDAExecutionProvider", {"enable_cuda_graph": "1", "fuse_conv_bias": "1", "prefer_nhwc": "1"}),
        "CPUExecutionProvider",
    )


def test_without_capture_all_other_options_stay() -> None:
    found = {}
    for name, options in CUDA_OPTIONS.items():
        if captures_graphs(options):
            rest = without_capture(Running(providers=("cuda",), cuda_options=name, graph_batch=(4,)))
            assert rest.graph_batch == ()
            found[name] = rest.cuda_options
    assert found == {"graph": "default", "graph_fused": "fuse_conv_bias", "graph_both": "both"}


def test_without_cuda_its_options_fall_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jr_onnx.serve.start.usable_providers", lambda *_: ("CPUExecutionProvider",))
    wanted = Running(providers=("cuda",), cuda_options="graph", graph_batch=(1, 8), allow_fallback=True)
    found = on_usable_providers(wanted, lambda _: None)
    assert (found.providers, found.cuda_options, found.graph_batch) == (("CPUExecutionProvider",), "default", ())


def test_a_guard_that_is_held_alone_excludes_all_others() -> None:
    guard, together, alone = Guard(), [0], [0]
    faults: list[str] = []
    lock = threading.Lock()

    def use(number: int) -> None:
        generator = np.random.default_rng(number)
        for _ in range(200):
            if generator.random() < 0.1:
                with guard.alone():
                    alone[0] += 1
                    if together[0] or alone[0] != 1:
                        faults.append("not alone")
                    alone[0] -= 1
            else:
                with guard.together():
                    with lock:
                        together[0] += 1
                    if alone[0]:
                        faults.append("someone is alone")
                    with lock:
                        together[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert (faults, together, alone) == ([], [0], [0])


def test_a_thread_that_waits_to_hold_a_guard_alone_goes_before_later_ones() -> None:
    guard, entered, order = Guard(), threading.Event(), []

    def capture() -> None:
        with guard.alone():
            order.append("alone")

    def run() -> None:
        with guard.together():
            order.append("together")

    with ThreadPoolExecutor(2) as pool:
        with guard.together():
            first = pool.submit(capture)
            while not guard._waiting:
                entered.wait(0.001)
            second = pool.submit(run)
            entered.wait(0.05)
            assert order == []
        first.result()
        second.result()
    assert order == ["alone", "together"]

"""A small network, small images and a short suite, so that whole evaluations take a second."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.attack.apgd import APGD
from jr_onnx.attack.ddn import DDN
from jr_onnx.attack.square import Square
from jr_onnx.attack.suite import plan, setup
from jr_onnx.attack.suite.plan import Entry, SuiteOptions
from jr_onnx.attack.suite.run import run
from jr_onnx.attack.suite.setup import AttackRequest, PreparedRun, prepare
from jr_onnx.data import ImageData
from jr_onnx.evaluation.store import Store, merged
from jr_onnx.evaluation.summary import Evaluation, evaluate
from jr_onnx.kappa import KappaPlan

CLASSES, SIDE, HIDDEN = 3, 4, 24


def weights(seed: int = 4) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(seed)
    first = generator.standard_normal((SIDE * SIDE, HIDDEN)) / SIDE
    second = generator.standard_normal((HIDDEN, CLASSES)) / np.sqrt(HIDDEN)
    return tuple(item.astype(np.float32) for item in (first, generator.standard_normal(HIDDEN) / 4, second))


def network(
    *,
    before: tuple[onnx.NodeProto, ...] = (),
    after: tuple[onnx.NodeProto, ...] = (),
    shape: tuple[int | str, ...] | None = ("N", 1, SIDE, SIDE),
    outputs: tuple[int | str, int] = ("N", CLASSES),
) -> onnx.ModelProto:
    """Flatten, Gemm, Relu, Gemm; `before` leads from "x" to "image", `after` from "z" to "y"."""
    first, bias, second = weights()
    nodes = [
        *before,
        helper.make_node("Flatten", ["image" if before else "x"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w1", "b1"], ["h"], name="fc1"),
        helper.make_node("Relu", ["h"], ["a"], name="act"),
        helper.make_node("Gemm", ["a", "w2"], ["z" if after else "y"], name="fc2"),
        *after,
    ]
    tensors = zip(("w1", "b1", "w2"), (first, bias, second), strict=True)
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)],
        [numpy_helper.from_array(value, name) for name, value in tensors],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def images(count: int = 23, seed: int = 1) -> ImageData:
    """Images, three quarters of them with the class that the network gives them."""
    pixels = np.random.default_rng(seed).random((count, 1, SIDE, SIDE)).astype(np.float32)
    first, bias, second = weights()
    labels = (np.maximum(pixels.reshape(count, -1) @ first + bias, 0) @ second).argmax(1)
    labels[::4] = (labels[::4] + 1) % CLASSES
    return ImageData.from_arrays(pixels, labels, class_names=("a", "b", "c"))


def short(name: str, options: SuiteOptions, *, gradients: bool = True) -> list[Entry]:
    """The suite's own entries with few steps, for the tests that need all of them."""
    found = plan.suite(name, options, gradients=gradients)
    few = {"steps": 4, "queries": 6, "multiples": 3, "bisections": 2}
    return [_with(entry, {key: few[key] for key in few if hasattr(entry.attack, key)}) for entry in found]


def _with(entry: Entry, changes: dict[str, Any]) -> Entry:
    import dataclasses

    return dataclasses.replace(entry, attack=dataclasses.replace(entry.attack, **changes))


def handful(name: str, options: SuiteOptions, *, gradients: bool = True) -> list[Entry]:
    """One entry of each view."""
    del name
    ce = APGD(eps=options.eps, steps=5, seed=options.seed)
    soft = APGD(eps=options.eps, steps=5, seed=options.seed, backward="smooth:5")
    found = [
        Entry("apgd", ce, "exact", "white_box"),
        Entry("apgd/smooth", soft, "surrogate", "white_box"),
        Entry("apgd/transfer", ce, "transfer", "transfer", source_kappa=0.5),
        Entry("ddn", DDN(steps=5, seed=options.seed), "exact", "white_box"),
        Entry("square", Square(eps=options.eps, queries=8, seed=options.seed), "black_box", "black_box"),
    ]
    return found if gradients else found[-1:]


def request(folder: Path, **changes: Any) -> AttackRequest:
    """A request on the small network, written into `folder` unless a model is given."""
    model = changes.pop("model", None)
    if model is None:
        model = folder / "small.onnx"
        if not model.exists():
            folder.mkdir(parents=True, exist_ok=True)
            onnx.save(network(), model)
    fields: dict[str, Any] = {
        "model": model,
        "plan": KappaPlan(0.3),
        "data": images(),
        "suite": "adaptive",
        "norm": "linf",
        "eps": 0.1,
        "out": folder / "out",
        "device": "cpu",
        "block": 5,
        **changes,
    }
    return AttackRequest(**fields)


def evaluated(wanted: AttackRequest) -> tuple[PreparedRun, Evaluation]:
    """Run a request as the command does."""
    prepared = prepare(wanted)
    store = Store(wanted.out)
    store.open(prepared.record)
    run(prepared.work, store)
    return prepared, evaluate(*merged([wanted.out]))


def patched(entries: Any) -> Any:
    """A context in which `prepare` uses another suite."""
    from unittest import mock

    return mock.patch.object(setup, "suite", functools.partial(entries))


def main() -> None:
    """Run the handful, slowly, in a process of its own: what a test kills."""
    import sys
    import time

    wanted = request(Path(sys.argv[1]))
    with patched(handful):
        prepared = prepare(wanted)
    store = Store(wanted.out)
    store.open(prepared.record)
    run(prepared.work, store, lambda _: time.sleep(0.05))


if __name__ == "__main__":
    main()

"""Weights that round: both ways agree as far as the ReLU model with itself; flips are counted as verify counts them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from jr_onnx import provenance
from jr_onnx.bench.models import wide_resnet
from jr_onnx.rewriter import find_sites, rewrite
from jr_onnx.rewriter.agreement import examine
from jr_onnx.runtime.ops_library import register
from jr_onnx.runtime.optimizer import optimise
from jr_onnx.runtime.session import InferenceSession
from jr_onnx.runtime.skeleton import read_skeleton
from jr_onnx.verifier import FlipTally, RunVerdict, SiteTrace, control_noise, judge, rounding_bound

CPU = ["CPUExecutionProvider"]
RUNS = 60


def options(level: str) -> Any:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = 1
    made.log_severity_level = 3
    made.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return made


class Observed:
    """The optimised graph itself, its jumps' operands in the layout of the original as further outputs."""

    def __init__(self, retrofit: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
        record = provenance.read(retrofit)
        skeleton = read_skeleton(retrofit.SerializeToString())
        assert record is not None
        assert skeleton is not None
        result = optimise(
            skeleton,
            examine(skeleton.proto, skeleton.payloads),
            options("ORT_ENABLE_ALL"),
            has_library=True,
            arguments={},
        )
        by_kappa = {np.float32(site.kappa): site.output for site in record.sites}
        self.names: dict[str, str] = {}
        for node in [node for node in result.proto.graph.node if node.op_type == "JumpRelu"]:
            site = by_kappa[np.float32(node.attribute[0].f)]
            name = f"seen_{site}"
            result.proto.graph.node.append(
                helper.make_node(
                    "ReorderOutput", [node.input[0]], [name], domain="com.microsoft.nchwc", channels=shapes[site][1]
                )
            )
            result.proto.graph.output.append(helper.make_empty_tensor_value_info(name))
            self.names[site] = name
        wanted = options("ORT_DISABLE_ALL")
        register(wanted, "cpu")
        feed = result.feed()
        feed.prepare(wanted)
        self.session = onnxruntime.InferenceSession(feed.data, wanted, providers=CPU)


class Comparison:
    """The plain and the optimised form of one retrofit, what both have in front of the sites, and a bound."""

    def __init__(self, model: onnx.ModelProto, kappas: list[float], images: list[Any]) -> None:
        sites = [site.id for site in find_sites(model).sites]
        # A kappa of its own tells every site's jump from the others'.
        retrofit = rewrite(
            model, {f"^{name}$": kappa for name, kappa in zip(sites, kappas, strict=True)}, lowering="thresholded"
        )[0]
        self.kappas = kappas
        data = retrofit.SerializeToString()
        self._fast = InferenceSession(data, options("ORT_ENABLE_ALL"), CPU, retrofit="optimised")
        self._plain = InferenceSession(data, options("ORT_DISABLE_ALL"), CPU)
        relu = [
            onnxruntime.InferenceSession(model.SerializeToString(), options(level), providers=CPU)
            for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL")
        ]
        controls = [tuple(session.run(None, {"image": image})[0] for session in relu) for image in images]
        self._bound = rounding_bound(controls).value
        self._before = {
            node.output[0]: node.input[0] for node in retrofit.graph.node if node.op_type == "ThresholdedRelu"
        }  # fmt: skip
        retrofit.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in self._before.values())
        wanted = options("ORT_DISABLE_ALL")
        self._shown = onnxruntime.InferenceSession(retrofit.SerializeToString(), wanted, providers=CPU)
        del retrofit.graph.output[1:]
        shapes = {name: value.shape for name, value in self.plain_operands(images[0]).items()}
        self._observed = Observed(retrofit, shapes)
        assert set(self._observed.names) == set(self._before)

    def plain_operands(self, image: Any) -> dict[str, Any]:
        values = self._shown.run(list(self._before.values()), {"image": image})
        return dict(zip(self._before, values, strict=True))

    def fast_operands(self, image: Any) -> dict[str, Any]:
        values = self._observed.session.run(list(self._observed.names.values()), {"image": image})
        return dict(zip(self._observed.names, values, strict=True))

    def verdict(self, image: Any) -> RunVerdict:
        one, other = (session.run(None, {"image": image})[0] for session in (self._plain, self._fast))
        left, right = self.plain_operands(image), self.fast_operands(image)
        traces = []
        for name, kappa in zip(self._before, self.kappas, strict=True):
            z, w = left[name], right[name]
            traces.append(SiteTrace(name, float(np.float32(kappa)), z, w, control_noise(z, z)))
        return judge(float(np.abs(one - other).max()), self._bound, traces)


def drawn(count: int) -> list[Any]:
    random = np.random.default_rng(0)
    return [random.standard_normal((1, 3, 32, 32)).astype(np.float32) for _ in range(count)]


def test_both_ways_agree_within_the_bound_of_the_relu_model() -> None:
    images = drawn(RUNS)
    comparison = Comparison(wide_resnet(blocks=1, width=1), [0.05 + index / 1000 for index in range(7)], images)
    tally = FlipTally()
    for image in images:
        tally.add(comparison.verdict(image))
    assert tally.defects == []
    assert len(tally.flips) <= tally.allowed


def test_a_value_on_the_jump_is_a_flip_and_no_defect() -> None:
    """A kappa that the plain way meets exactly and the optimised way passes by a rounding: they must disagree there."""
    model, images = wide_resnet(blocks=1, width=1), drawn(4)
    kappas = [0.05 + index / 1000 for index in range(7)]
    before = Comparison(model, kappas, images)
    site = list(before.plain_operands(images[0]))[3]
    plain, fast = before.plain_operands(images[0])[site], before.fast_operands(images[0])[site]
    beside = (plain > 1) & (fast > plain)
    assert beside.any(), "no value rounds up in the optimised graph, so nothing can be tried"
    largest = np.unravel_index(int(np.where(beside, plain, 0).argmax()), plain.shape)
    kappas[3] = float(plain[largest])
    after = Comparison(model, kappas, images)
    verdict = after.verdict(images[0])
    assert verdict.outcome == "flip", verdict.reason
    assert verdict.flip is not None
    assert verdict.flip.site == site
    assert verdict.flip.index == tuple(int(place) for place in largest)
    assert verdict.flip.crosses

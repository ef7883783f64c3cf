"""Rewrite random legal models with random wishes, and hold every result against a reference.

A legal model is rewritten or refused with a reason; a ContractError, or any error that is none of this package's, is a
defect. What was rewritten is restored to the byte, passes onnx.checker, and computes what NumPy's J at the sites of
the original computes in ONNX's reference evaluator. `tests/rewriter/test_legal.py` tries thousands of models,
`python -m tools.checks.fuzz models` as many as are asked for.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from jr_onnx.errors import JrError, KappaError, ModelError, NoSiteError, RefusalError
from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.modelfile import from_proto
from jr_onnx.rewriter import find_sites, restore, rewrite
from jr_onnx.rewriter.convert import convert
from jr_onnx.semantics import SiteKappa
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError
from jr_onnx.verifier.evaluators.form import evaluator_form
from jr_onnx.verifier.evaluators.reference import SiteEvaluator
from jr_onnx.verifier.whole_model.marked import marked
from tests.rewriter.strategies import dtype_of, every_node, inputs_for, models

KAPPA = 0.25
CHANNELS = 3
# A range so narrow that no operand of `feeds_for` lies in it: a draw is then as good as its lower end.
LOW, HIGH = KAPPA, float(np.nextafter(np.float32(KAPPA), np.float32(1)))
_LARGE = 1e4
_OFTEN_DOUBLED = 1e3  # six times, and finite in float16 still
DTYPES = ("float32", "float32", "float16", "bfloat16", "float64")


@dataclass
class Tally:
    """What became of the models that were tried."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, what: str) -> None:
        """Count one."""
        self.counts[what] += 1


@dataclass(frozen=True)
class Wish:
    """How a model is rewritten: the plan, and the options of `rewrite`."""

    plan: KappaPlan
    options: dict[str, Any]


@st.composite
def wishes(draw: st.DrawFn, model: onnx.ModelProto) -> Wish:
    """Return a wish: every kind of plan, lowering and option."""
    ids = [site.id for site in find_sites(model).sites]
    plans = [
        KappaPlan(kappa=KAPPA),
        KappaPlan(kappa=0.0),
        KappaPlan(kappa=KAPPA, input_name="k"),
        KappaPlan(random=RandomKappa(LOW, HIGH), input_name="k"),
        *(
            KappaPlan(random=RandomKappa(LOW, HIGH, per, source))  # type: ignore[arg-type]
            for per in ("network", "site")
            for source in ("op", "graph")
        ),
    ]
    if ids:
        some = draw(st.lists(st.sampled_from(ids), min_size=1, unique=True))
        plans.append(KappaPlan(by_site=tuple((site, draw(st.sampled_from([KAPPA, 0.5, 0.0]))) for site in some)))
        if not any(node.op_type == "Scan" for node in _nodes(model)):  # it splits the first axis and takes scalars
            values = st.sampled_from([KAPPA, 0.5, 0.0, 2.0])
            channels = draw(st.lists(values, min_size=CHANNELS, max_size=CHANNELS))
            plans.extend(2 * [KappaPlan(0.5, tuple((site, tuple(channels)) for site in some))])
    options: dict[str, Any] = {
        "lowering": draw(st.sampled_from(["auto", "auto", "where", "thresholded", "custom"])),
        "target": draw(st.sampled_from(["portable", "portable", "cpu", "cuda"])),
        "demote_initializer_inputs": draw(st.booleans()),
    }
    if ids and draw(st.integers(0, 5)) == 3:
        options[draw(st.sampled_from(["include", "exclude"]))] = (draw(st.sampled_from(ids)),)
    if draw(st.integers(0, 15)) == 7:  # 0 is what Hypothesis likes best
        options["opset"] = draw(st.integers(7, 25))
    return Wish(draw(st.sampled_from(plans)), options)


def check(model: onnx.ModelProto, wish: Wish, *, condition: bool, compute: bool, tally: Tally) -> None:
    """Rewrite one model and hold the result against the source; an AssertionError or any other says what is wrong."""
    per_channel = any(isinstance(kappa, tuple) for _, kappa in wish.plan.by_site)
    model = with_channels(model) if per_channel else model
    before = model.SerializeToString(deterministic=True)
    try:
        output, result = rewrite(model, wish.plan, **wish.options)
    except (NoSiteError, RefusalError) as refusal:
        tally.add(type(refusal).__name__)
        return
    except KappaError as error:
        if not per_channel or "unknown shape" not in error.message:  # in a function, or behind a Loop
            raise
        tally.add("unknown channels")
        return
    except ModelError:
        if "opset" not in wish.options:
            raise
        tally.add("not converted")
        return
    assert model.SerializeToString(deterministic=True) == before, "the source was changed"
    assert result.checker_problem is None, result.checker_problem
    onnx.checker.check_model(output)
    source = model
    if "opset" in wish.options:
        source = convert(from_proto(model), wish.options["opset"])[0].proto
    assert restore(output).SerializeToString(deterministic=True) == source.SerializeToString(deterministic=True)
    again, _ = rewrite(output, wish.plan, replace=True, **{**wish.options, "opset": None})
    assert again.graph == output.graph
    assert again.functions == output.functions
    tally.add("rewritten")
    if compute:
        _compare(source, output, {row.id: (row.kappa, row.cap) for row in result.sites}, condition, tally)


def _compare(
    source: onnx.ModelProto,
    output: onnx.ModelProto,
    sites: dict[str, tuple[SiteKappa, float | None]],
    condition: bool,
    tally: Tally,
) -> None:
    """Compare ONNX Runtime on the retrofit with the reference evaluator on the source, NumPy's J at its sites."""
    plain = _demoted(source)
    given = feeds_for(dtype_of(source), condition)
    if any(node.op_type == "Clip" for node in _nodes(source)):
        # ONNX Runtime's Clip without an upper bound makes +inf the largest finite number; the evaluator's does not.
        given["x"] = given["x"][np.abs(given["x"].astype(np.float64)) < _LARGE]
    if given["x"].dtype == np.float16 and any(node.op_type in ("Mul", "Add") for node in _nodes(source)):
        # ONNX Runtime computes neighbouring nodes in float32 without rounding in between, so that what overflows in
        # float16 may come back.
        size = np.abs(given["x"].astype(np.float64))
        given["x"] = given["x"][~np.isfinite(size) | (size < _OFTEN_DOUBLED)]
    if len(next(value for value in plain.graph.input if value.name == "x").type.tensor_type.shape.dim) > 1:
        given["x"] = given["x"][: given["x"].size // CHANNELS * CHANNELS].reshape(-1, CHANNELS)
        tally.add("per channel")
    kappas = {
        site: kappa if isinstance(kappa, tuple) or not LOW <= kappa <= HIGH else KAPPA
        for site, (kappa, _) in sites.items()
    }
    caps = {site: cap for site, (_, cap) in sites.items()}
    try:
        reference = SiteEvaluator(evaluator_form(marked(plain, set(sites))), kappas, caps)
        expected, _ = reference.run(given)
        found = _run(output, given)
    except (CannotLoadError, CannotRunError):
        tally.add("beyond the evaluator")
        return
    if found is None:
        tally.add("beyond ONNX Runtime")
        return
    for one, other in zip(expected, found, strict=True):
        same = (one == other) | ((one != one) & (other != other))
        assert one.shape == other.shape, "shapes"
        assert bool(np.all(same)), (one[~same][:3], other[~same][:3])
    tally.add("compared")


def with_channels(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model on tensors (N, CHANNELS) in the place of (N)."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graphs = [wide.graph]
    graphs += [attribute.g for node in _nodes(wide) for attribute in node.attribute if attribute.HasField("g")]
    for graph in graphs:
        for value in (*graph.input, *graph.output, *graph.value_info):
            dims = value.type.tensor_type.shape.dim
            if len(dims) == 1 and dims[0].dim_param == "N":
                dims.add(dim_value=CHANNELS)
    return wide


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from every_node(model.graph.node)
    for function in model.functions:
        yield from every_node(function.node)


def _demoted(source: onnx.ModelProto) -> onnx.ModelProto:
    """Return the source without initializers among its inputs: nobody overrides them here."""
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    names = {tensor.name for tensor in copy.graph.initializer}
    kept = [value for value in copy.graph.input if value.name not in names]
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    copy.ir_version = max(copy.ir_version, 4)
    del copy.graph.sparse_initializer[:]  # nothing reads it, and the reference cannot
    return copy


def feeds_for(dtype: str, condition: bool) -> dict[str, Any]:
    """Return operands at every edge of the type and beside kappa, none in the range of the random kappas."""
    x = inputs_for(dtype, KAPPA)
    size = np.abs(x.astype(np.float64))
    exponents = np.log2(np.where((size > 0) & (size < _LARGE), size, 1.0) / KAPPA)
    off = np.abs(exponents - np.round(exponents))
    x = x[(off == 0) | (off > 2.0**-20)]  # what doubling, halving and negating bring into the range
    return {"x": x, "condition": np.asarray(condition), "trips": np.asarray(2, dtype=np.int64)}


def _run(model: onnx.ModelProto, given: dict[str, Any]) -> list[Any] | None:
    if given["x"].dtype.name == "bfloat16":  # ONNX Runtime has no kernels on the CPU, and NumPy's inputs no way to it
        return _evaluate(model, given)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error) or "NotImplemented" in type(error).__name__:
            return None  # no kernel for the type, bfloat16 above all
        raise
    names = [item.name for item in session.get_inputs()]
    return list(session.run(None, {name: given[name] for name in names if name in given}))


def _evaluate(model: onnx.ModelProto, given: dict[str, Any]) -> list[Any] | None:
    if any(function.overload for function in model.functions):
        return None  # the evaluator tells functions apart by their names alone, and takes the last of a name
    try:
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(_demoted(model)).run(None, given))
    except Exception:  # noqa: BLE001 - the evaluator raises anything where it lacks something
        return None


def run(count: int, start: int) -> Tally:
    """Try so many models, the first of them chosen by the seed; an exception names the smallest model that fails."""
    tally = Tally()
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=quiet,
    )
    @given(st.data(), models(DTYPES, runnable=True), st.booleans())
    def attempt(data: st.DataObject, model: onnx.ModelProto, condition: bool) -> None:
        tally.add("models")
        wish = data.draw(wishes(model))
        note(onnx.printer.to_text(model))
        try:
            check(model, wish, condition=condition, compute=True, tally=tally)
        except JrError as error:
            raise AssertionError(f"{type(error).__name__} (exit {error.exit_code}): {error}; {wish}") from error

    attempt()
    return tally


def main() -> None:
    """Try models in a process of its own: COUNT and SEED are the arguments; prints the tally as JSON."""
    sys.stdout.write(json.dumps(run(int(sys.argv[1]), int(sys.argv[2])).counts) + "\n")


if __name__ == "__main__":
    main()

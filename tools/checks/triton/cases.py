"""The repository that `tools/checks/triton/run.py` has served, and the requests it sends.

Every feature of a package is there once: two versions, labels, batching, external data, a model without a batch
dimension, a hidden and an exposed kappa input, and the operator library where it is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from jr_onnx.deploy import Batching, OpLibrary, TritonOptions, package_triton
from jr_onnx.errors import JrError
from jr_onnx.kappa import Kappa, KappaPlan, RandomKappa
from jr_onnx.rewriter import rewrite
from jr_onnx.rewriter.lowering import RequestedLowering
from jr_onnx.runtime.ops_library import library_path
from jr_onnx.verifier.compare import finite_difference, magnitude

MODELS = Path(__file__).resolve().parents[3] / "models" / "exported"
DRAWN = "drawn"
"""The model for which the operator draws a new kappa for every request."""
_KAPPA = 0.06
_BATCHES = (1, 1, 1, 2, 3, 5, 8, 1, 32, 1, 1, 4)
"""More than one batch of 32 takes, so that Triton must join some requests and split others."""

_ROUNDING = "rounding"
"""Collects, while the cases are made, the differences that `Cases.bound` is derived from."""

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Cases:
    """Requests with their expected answers.

    Attributes:
        path: The file that `tools/checks/protocol/oip_client.py` reads.
        bound: How far an answer may be off. The server's ONNX Runtime is another version and sums in other batches,
            so products are added in another order. How much that matters is measured: by the largest difference
            between the optimised and the unoptimised session of the same model here, which add in different orders
            too. Four times that is allowed, and never less than four roundings of the largest answer.
    """

    path: Path
    bound: float


def build_repository(repository: Path, work: Path) -> Cases:
    """Package the models and return requests, each with the answer of ONNX Runtime in this process."""
    arrays: Arrays = {}
    _two_versions(repository, work, arrays)
    _external_data(repository, work, arrays)
    _no_batch_dimension(repository, work, arrays)
    _kappa_inputs(repository, work, arrays)
    _operator_library(repository, work, arrays)
    path = work / "cases.npz"
    roundings = arrays.pop(_ROUNDING)
    np.savez(path, allow_pickle=False, **arrays)
    return Cases(path, 4 * float(np.max(roundings)))


def _two_versions(repository: Path, work: Path, arrays: Arrays) -> None:
    labels = work / "labels.txt"
    labels.write_text("".join(f"digit {number}\n" for number in range(10)), encoding="utf-8")
    for version in (1, 2):
        model = _retrofit(MODELS / "digits_cnn.onnx", work / f"digits{version}.onnx", version * _KAPPA)
        options = TritonOptions(
            name="digits", version=version, labels=labels, all_versions=True, batching=Batching(delay_us=2000)
        )
        package_triton(model, repository, options)
        _add_cases(arrays, f"digits@{version}", model, _BATCHES)


def _external_data(repository: Path, work: Path, arrays: Arrays) -> None:
    source = work / "mlp.onnx"
    proto = onnx.load(MODELS / "digits_mlp.onnx")
    onnx.save(proto, source, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = _retrofit(source, work / "external.onnx", _KAPPA)
    package_triton(model, repository, TritonOptions(name="external"))
    _add_cases(arrays, "external@1", model, _BATCHES)


def _no_batch_dimension(repository: Path, work: Path, arrays: Arrays) -> None:
    proto = onnx.load(MODELS / "digits_cnn.onnx")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    source = work / "fixed_source.onnx"
    onnx.save(proto, source)
    model = _retrofit(source, work / "fixed.onnx", _KAPPA)
    package_triton(model, repository, TritonOptions(name="fixed"))
    _add_cases(arrays, "fixed@1", model, (3, 3))


def _kappa_inputs(repository: Path, work: Path, arrays: Arrays) -> None:
    source = MODELS / "digits_mlp.onnx"
    hidden = _retrofit(source, work / "hidden.onnx", RandomKappa(0.0, 0.1))
    package_triton(hidden, repository, TritonOptions(name="hidden", allow_fixed_kappa=True))
    _add_cases(arrays, "hidden@1", hidden, (1, 2, 1))
    exposed = _retrofit(source, work / "exposed.onnx", KappaPlan(kappa=_KAPPA, input_name="kappa"))
    package_triton(exposed, repository, TritonOptions(name="exposed", expose_kappa=True))
    for index, kappa in enumerate((None, 0.0, 0.5)):
        _add_cases(arrays, f"exposed@1#kappa{index}", exposed, (1, 2), kappa)


def _operator_library(repository: Path, work: Path, arrays: Arrays) -> None:
    try:
        library = library_path("cpu")
    except JrError as error:
        print(f"left out: the operator library, because {error}")
        return
    model = _retrofit(MODELS / "digits_cnn.onnx", work / "custom.onnx", _KAPPA, lowering="custom")
    options = TritonOptions(name="custom", op_library=OpLibrary(str(repository), library))
    package_triton(model, repository, options)
    _add_cases(arrays, "custom@1", model, _BATCHES)
    drawn = _retrofit(MODELS / "digits_mlp.onnx", work / "drawn.onnx", RandomKappa(0.0, 2.0, source="op"), "custom")
    options = TritonOptions(name=DRAWN, op_library=OpLibrary(str(repository), library))
    package_triton(drawn, repository, options)
    # The same images again and again, compared with the answer of the original: the distances must differ. The answer
    # is a step function of kappa; over this range and batch it has over a hundred steps, none of which takes more than
    # 5 % of the draws, so that fewer than three different distances in eight draws happen less than once in a million.
    images = np.random.default_rng(7).random((32, 1, 8, 8), dtype=np.float32)
    for number in range(8):
        _add_case(arrays, f"{DRAWN}@1#{number}", MODELS / "digits_mlp.onnx", images)


def _retrofit(source: Path, target: Path, kappa: Kappa, lowering: RequestedLowering = "where") -> Path:
    rewrite(source, kappa, output=target, lowering=lowering)
    return target


def _add_cases(arrays: Arrays, label: str, model: Path, batches: tuple[int, ...], kappa: float | None = None) -> None:
    entry = _session(model, optimised=True).get_inputs()[0]
    sizes = [size if isinstance(size, int) else 1 for size in entry.shape[1:]]
    generator = np.random.default_rng(7)
    for number, batch in enumerate(batches):
        case = f"{label}#{number}" if "#" not in label else f"{label}.{number}"
        _add_case(arrays, case, model, generator.random((batch, *sizes), dtype=np.float32), kappa)


def _add_case(arrays: Arrays, case: str, model: Path, image: np.ndarray[Any, Any], kappa: float | None = None) -> None:
    """Add one request, its answer, and what rounding may do to the answer."""
    session, plain = _session(model, optimised=True), _session(model, optimised=False)
    feed: Arrays = {session.get_inputs()[0].name: image}
    sent = dict(feed)
    if kappa is not None:
        feed["kappa"] = np.asarray(kappa, dtype=np.float32)
        sent["kappa"] = feed["kappa"].reshape(1)  # Triton has no scalars
    for name, value in sent.items():
        arrays[f"{case}/in/{name}"] = value
    answers = zip(session.get_outputs(), session.run(None, feed), plain.run(None, feed), strict=True)
    for output, answer, other in answers:
        arrays[f"{case}/out/{output.name}"] = answer
        rounding = max(finite_difference(answer, other), float(np.spacing(np.float32(magnitude(answer)))))
        arrays[_ROUNDING] = np.append(arrays.get(_ROUNDING, np.zeros(0)), rounding)


def _session(model: Path, *, optimised: bool) -> onnxruntime.InferenceSession:
    level = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    options.log_severity_level = 3  # an initializer that is an input too is meant here, not a mistake
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

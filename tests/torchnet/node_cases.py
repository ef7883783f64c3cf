"""ONNX's own backend node cases, and which of them lie outside what the evaluator is for."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from torch import Tensor

from jr_onnx.errors import UnsupportedOpsError
from jr_onnx.torchnet.mean_draws import RANDOM_OPS
from jr_onnx.torchnet.registry import MIN_OPSET, TABLE
from tests.torchnet.harness import evaluate, to_tensor

_SEQUENCE = "sequences and optionals are no tensors"
_RECURRENT = "recurrent networks and loops are not what image classifiers are made of"
_TEXT = "text"
_SIGNAL = "signal processing"
_LOSS = "a training loss or optimiser"
_TREES = "classical machine learning without gradients"
_RARE = "not found in image classifiers; refused by name"
OUT_OF_SCOPE = {
    **dict.fromkeys(
        [
            "OptionalGetElement",
            "OptionalHasElement",
            "SequenceEmpty",
            "SequenceInsert",
            "SequenceLength",
            "SequenceMap",
            "SplitToSequence",
            "SequenceConstruct",
            "Optional",
        ],
        _SEQUENCE,
    ),
    **dict.fromkeys(
        ["GRU", "LSTM", "RNN", "Loop", "Scan", "ReverseSequence", "LinearAttention", "CausalConvWithState"], _RECURRENT
    ),
    **dict.fromkeys(["RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"], _TEXT),
    **dict.fromkeys(["DFT", "MelWeightMatrix", "STFT"], _SIGNAL),
    **dict.fromkeys(["Adagrad", "Adam", "Momentum", "SoftmaxCrossEntropyLoss"], _LOSS),
    **dict.fromkeys(["ArrayFeatureExtractor", "Binarizer", "LabelEncoder", "TreeEnsemble"], _TREES),
    **dict.fromkeys(
        [
            "BitCast",
            "Col2Im",
            "CumProd",
            "DeformConv",
            "Det",
            "FlexAttention",
            "GridSample",
            "ImageDecoder",
            "MaxUnpool",
            "NonMaxSuppression",
            "RoiAlign",
            "RotaryEmbedding",
            "TensorScatter",
            "Unique",
        ],
        _RARE,
    ),
}
"""Operator -> why it is not registered. A case that uses one must be refused by name."""

EXPANDED = (
    "AffineGrid",
    "Attention",
    "BlackmanWindow",
    "CenterCropPad",
    "HammingWindow",
    "HannWindow",
    "NegativeLogLikelihoodLoss",
    "SwiGLU",
)
"""Operators that are not registered but inlined from the definition in their schema."""

REFUSED = {
    "training_mode": "training mode",
    "training mode": "training mode",
    "element type float32": "torch has no arithmetic of this type",
    "element type uint2": "torch has no arithmetic of this type",
    "element type int2": "torch has no arithmetic of this type",
    "element type uint16, which is computed in int64": "the complement depends on the width",
    "reduction '": "torch has no differentiable index_put of this reduction",
    "quantised type": "torch has no arithmetic of this type",
}
"""Fragment of a reason a registered operator gives -> why the refusal is right."""

WRONG = {
    "test_resize_downsample_scales_linear_align_corners": "the case's data use scale * length, unrounded, as the "
    "resized length; ONNX Runtime, which serves the model, uses the real output length, and so does the evaluator",
    "test_resize_downsample_scales_cubic_align_corners": "the same",
}
"""Cases whose expected data contradict ONNX Runtime."""

_HALF = {onnx.TensorProto.FLOAT16: 2.0**-10, onnx.TensorProto.BFLOAT16: 2.0**-7}


@dataclass(frozen=True)
class Outcome:
    """What became of a case: passed, refused (with the unsupported operators), no_type (of some tensor), or drawn.

    What is drawn has no fixed answer; `test_random` looks at means and spreads.
    """

    kind: str
    reasons: tuple[str, ...] = ()


@functools.cache
def node_cases() -> tuple[TestCase, ...]:
    with warnings.catch_warnings():
        # The cases are computed when they are loaded, and provoke overflow and division by zero on purpose.
        warnings.simplefilter("ignore", RuntimeWarning)
        return tuple(load_model_tests(kind="node"))


@functools.cache
def by_operator() -> dict[str, tuple[int, ...]]:
    """Operator -> its cases, by index; "" holds the cases that are composed of several operators."""
    groups: dict[str, list[int]] = {}
    for index, case in enumerate(node_cases()):
        types = {node.op_type for node in case.model.graph.node}
        groups.setdefault(types.pop() if len(types) == 1 else "", []).append(index)
    return {name: tuple(indices) for name, indices in groups.items()}


def registered(node: onnx.NodeProto) -> bool:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return node.op_type in ("If", *EXPANDED) or (domain, node.op_type) in TABLE


def _draws(case: TestCase) -> bool:
    """Return whether a case's answer depends on random numbers; a dropout of ratio 0 drops nothing."""
    if any(node.op_type in RANDOM_OPS for node in case.model.graph.node):
        return True
    return case.name.startswith("test_training_dropout") and "zero_ratio" not in case.name


@functools.cache
def outcome(index: int) -> Outcome:
    """Run one case; a wrong value raises AssertionError."""
    case = node_cases()[index]
    if _draws(case):
        return Outcome("drawn")
    model = _at_least(case.model, MIN_OPSET)
    for inputs, outputs in case.data_sets:
        feeds = _tensors(model.graph.input, inputs)
        expected = _tensors(model.graph.output, outputs)
        if feeds is None or expected is None:
            return Outcome("no_type")
        try:
            results = evaluate(model, feeds)
        except UnsupportedOpsError:
            try:  # some inputs have to be constant, for instance an element type told by a zero point
                results = evaluate(model, feeds, fixed=[value.name for value in model.graph.input][1:])
            except UnsupportedOpsError as error:
                return Outcome("refused", error.ops)
        for value, found in zip(model.graph.output, results, strict=True):
            _compare(case, value, found, expected[value.name])
    return Outcome("passed")


def _at_least(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Declare a newer operator set where the case's operators did not change up to it (Not, from opset 1)."""
    if model.opset_import[0].version >= opset or model.opset_import[0].domain:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.opset_import[0].version = opset
    onnx.checker.check_model(copy)
    return copy


def _tensors(values: Sequence[onnx.ValueInfoProto], data: Sequence[object]) -> dict[str, Tensor] | None:
    result = {}
    for value, item in zip(values, data, strict=False):
        tensor = to_tensor(item, value.type.tensor_type.elem_type)
        if tensor is None:
            return None
        result[value.name] = tensor
    return result


def _compare(case: TestCase, value: onnx.ValueInfoProto, found: Tensor, expected: Tensor) -> None:
    element_type = value.type.tensor_type.elem_type
    assert tuple(found.shape) == tuple(expected.shape), f"{case.name}: the shape of {value.name}"
    # Quantised values are carried as floats; all other types must be the model's.
    carried = found.is_floating_point() and not expected.is_floating_point()
    assert found.dtype == expected.dtype or carried, f"{case.name}: {found.dtype} instead of {expected.dtype}"
    # A chain of operators in half precision may round each differently than the case's author did: two units in
    # the last place of results of order one.
    slack = 2 * _HALF.get(element_type, 0.0)
    np.testing.assert_allclose(
        found.detach().double().numpy(),
        expected.double().numpy(),
        rtol=max(case.rtol, slack),
        atol=max(case.atol, slack),
        err_msg=f"{case.name}: {value.name}",
    )


def explained(reason: str) -> bool:
    """Return whether a refusal is of the kind that the lists above foresee."""
    operator = re.split(r"[ (]", reason.rsplit("::", maxsplit=1)[-1])[0]
    return operator in OUT_OF_SCOPE or any(fragment in reason for fragment in REFUSED)

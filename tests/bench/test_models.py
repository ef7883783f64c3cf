from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from jr_onnx.bench.models import BENCH_MODELS, build, mobilenet_v2
from jr_onnx.errors import InputError
from jr_onnx.rewriter import find_sites

# Parameters as the papers count them: 25.6, 3.5, and 5.9 million; 784*2048 + 2048*2048 + 2048*10 and biases.
EXPECTED = {
    "resnet50": (25.55e6, 49, ("N", 3, 224, 224)),
    "mobilenet_v2": (3.49e6, 35, ("N", 3, 224, 224)),
    "wide_resnet": (5.85e6, 25, ("N", 3, 32, 32)),
    "mlp": (5.82e6, 2, ("N", 784)),
}


@pytest.mark.parametrize("name", list(BENCH_MODELS))
def test_the_networks_are_what_they_are_called(name: str) -> None:
    model = build(name)
    onnx.checker.check_model(model, full_check=True)
    parameters, sites, shape = EXPECTED[name]
    count = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert count == pytest.approx(parameters, rel=0.01)
    assert len(find_sites(model).sites) == sites
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert tuple(dim.dim_param or dim.dim_value for dim in dims) == shape


@pytest.mark.parametrize("name", ["mobilenet_v2", "wide_resnet", "mlp"])
def test_activations_neither_explode_nor_vanish(name: str) -> None:
    """Denormal numbers and infinities would spoil a measurement."""
    model = build(name)
    sites = [site.output for site in find_sites(model).sites]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(site) for site in sites)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    size = [dim.dim_value or 1 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    for output in session.run(None, {"image": x}):
        assert 0.05 < output.std() < 50
        denormal = (np.abs(output) > 0) & (np.abs(output) < np.finfo(np.float32).tiny)
        assert not denormal.any()


def test_the_same_seed_gives_the_same_weights() -> None:
    assert build("mlp", 1) == build("mlp", 1)
    assert build("mlp", 1) != build("mlp", 2)


def test_relu6_is_a_clip() -> None:
    operators = Counter(node.op_type for node in mobilenet_v2(relu6=True).graph.node)
    assert operators["Clip"] == 35
    assert operators["Relu"] == 0


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(InputError, match="no benchmark model 'vgg', expected one of resnet50"):
        build("vgg")

"""Quantised arithmetic: whole values forward, straight-through gradients backward."""

from __future__ import annotations

import numpy as np
import torch

from jr_onnx.torchnet import check_parity, load
from jr_onnx.torchnet.ops.quantize import straight_round
from tests.torchnet.models import dense_weights, parse

_SCALE = 0.05


def _quantised_net() -> object:
    return parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 6] x) => (float[N, 3] logits) {
            q = QuantizeLinear (x, scale, zero)
            r = DequantizeLinear (q, scale, zero)
            w = DequantizeLinear <axis = 1> (wq, wscale, wzero)
            h = Gemm (r, w, b1)
            a = Relu (h)
            aq = QuantizeLinear (a, scale, zero)
            ar = DequantizeLinear (aq, scale, zero)
            logits = Gemm (ar, w2, b2)
        }""",
        {
            **{name: value for name, value in dense_weights(6, 10, 3).items() if name != "w1"},
            "scale": np.float32(_SCALE),
            "zero": np.uint8(100),
            "wq": np.random.default_rng(0).integers(-127, 128, (6, 10)).astype(np.int8),
            "wscale": np.full(10, 0.004, dtype=np.float32),
            "wzero": np.zeros(10, dtype=np.int8),
        },
    )


def test_rounding_is_half_to_even_and_its_derivative_one() -> None:
    x = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.4], requires_grad=True)
    y = straight_round(x)
    assert y.tolist() == [-2.0, -0.0, 0.0, 2.0, 2.0]
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.tolist() == [1.0] * 5


def test_quantised_network_equals_onnx_runtime() -> None:
    model = _quantised_net()
    net = load(model)  # type: ignore[arg-type]
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    assert check_parity(net, model, x).passed  # type: ignore[arg-type]


def test_gradient_passes_rounding_and_stops_at_saturation() -> None:
    net = load(_quantised_net())  # type: ignore[arg-type]
    x = torch.zeros(2, 6)
    x[1, 0] = 1000.0  # beyond (255 - 100) * 0.05
    x.requires_grad_()
    (grad,) = torch.autograd.grad(net(x).square().sum(), x)
    assert (grad[0] != 0).all()
    assert grad[1, 0] == 0
    assert (grad[1, 1:] != 0).any()

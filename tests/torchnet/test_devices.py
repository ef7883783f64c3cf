"""Nothing of a module stays behind when it moves to another device, and shapes are computed on the host."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test as onnx_tests
import pytest
import torch

from jr_onnx.torchnet import OnnxModule, SiteBackward, check_parity, load
from tests.torchnet.models import bound_to_one, convolutional, dense_weights, mlp, parse, with_functions, with_if


def shape_arithmetic() -> onnx.ModelProto:
    """What exporters write for dynamic shapes: integers and floats made of shapes, met by data in the end."""
    return parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 1, 8, 8] x) => (float[N, 3] logits) {
            s = Shape (x)
            batch = Gather (s, first)
            height = Gather (s, third)
            wide = Cast <to = 1> (height)
            larger = Mul (wide, factor)
            whole = Floor (larger)
            target = Cast <to = 7> (whole)
            column = Unsqueeze (target, axis0)
            sizes = Concat <axis = 0> (column, column)
            leading = Slice (s, zero1, two1)
            shape4 = Concat <axis = 0> (leading, sizes)
            big = Resize <mode = "nearest"> (x, , , shape4)
            count = Mul (target, target)
            places = Range (zero, count, one)
            ramp = Cast <to = 1> (places)
            rows = Unsqueeze (batch, axis0)
            columns = Unsqueeze (count, axis0)
            flatshape = Concat <axis = 0> (rows, columns)
            flat = Reshape (big, flatshape)
            filled = ConstantOfShape <value = float[1] {0.5}> (flatshape)
            even = Mod (places, two)
            odd = Cast <to = 9> (even)
            mixed = Where (odd, flat, filled)
            scaled = Mul (mixed, ramp)
            tamed = Tanh (scaled)
            h = Gemm (tamed, w1, b1)
            a = Relu (h)
            logits = Gemm (a, w2, b2)
        }""",
        {
            "first": np.array(0),
            "third": np.array(2),
            "factor": np.float32(1.5),
            "axis0": np.array([0]),
            "zero1": np.array([0]),
            "two1": np.array([2]),
            "zero": np.array(0),
            "one": np.array(1),
            "two": np.array(2),
            **dense_weights(144, 10, 3),
        },
    )


_MODELS = {
    "mlp": mlp,
    "convolutional": lambda: convolutional([1, -1]),
    "functions": with_functions,
    "branches": lambda: with_if("shape"),
    "shapes": shape_arithmetic,
    "bound": bound_to_one,
}
_LIGHT = Path(onnx_tests.__file__).parent / "data" / "light"


def _input(net: OnnxModule, device: str) -> torch.Tensor:
    x = torch.rand(3, *(size or 8 for size in net.input_shape[1:]), generator=torch.Generator().manual_seed(0))
    return x.to(device).requires_grad_()


def test_shape_arithmetic_equals_onnx_runtime_for_any_batch() -> None:
    net = load(shape_arithmetic())
    assert net.static_batch is None
    for count in (1, 4):
        x = np.random.default_rng(0).random((count, 1, 8, 8), dtype=np.float32)
        assert check_parity(net, shape_arithmetic(), x).passed


@pytest.mark.parametrize("name", [*_MODELS, "squeezenet", "shufflenet"])
def test_everything_moves_along(name: str) -> None:
    """The meta device has no data, so that a tensor left on the CPU, or a look at a value, is an error."""
    net = load(_MODELS[name]()) if name in _MODELS else load(_LIGHT / f"light_{name}.onnx")
    net.set_kappa(0.1)
    net.to("meta")
    assert net.device == torch.device("meta")
    assert net.clone().device == torch.device("meta")
    for choice in (SiteBackward.exact(), SiteBackward.smooth(5.0)):
        net.set_backward(choice)
        x = _input(net, "meta")
        logits = net(x)
        (grad,) = torch.autograd.grad(logits.sum(), x)
        assert logits.device == grad.device == torch.device("meta")
        assert logits.shape == (3, net.num_classes)


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(_MODELS))
def test_cuda_equals_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no NVIDIA GPU")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = _MODELS[name]()
    here, there = load(model), load(model, device="cuda")
    x = _input(here, "cpu")
    logits = there(x.detach().cuda())
    # The same few hundred float32 products summed in another order.
    torch.testing.assert_close(logits.cpu(), here(x), rtol=1e-5, atol=1e-5)
    assert check_parity(there, model, x.detach()).passed

"""Models that other people exported: the shared ones, and those in the onnx package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test as onnx_tests
import pytest
import torch

from jr_onnx.errors import ModelError, UnsupportedOpsError
from jr_onnx.rewriter import rewrite
from jr_onnx.torchnet import SiteBackward, check_parity, load
from tests.development import DataFolder

_CLASSIFIERS = {
    "NeuralNetworkVerification_Marabou__cnn_max_mninst2.onnx": None,
    "NeuralNetworkVerification_Marabou__self-attention-mnist-pgd-medium-sim.onnx": 1,  # heads are folded into the batch
    "enpasos_DJL2OnnxExample__mnist.onnx": None,
    "external/kbarbarin_IA-number-detector__model/model.onnx": None,
    "external/tracel-ai_burn-onnx__external_data_offset/external_data_offset.onnx": 2,
    "gramalingam_onnxruntime__cnn_mnist_pytorch.onnx": None,
    "gramalingam_onnxruntime__mnist.onnx": None,
    "gramalingam_onnxruntime__test_voice_commands_model.onnx": None,
    "jameslavrenz_netkit__mnist_cnn_dw.onnx": None,
    "microsoft_onnxconverter-common__image_classifier32.onnx": None,
    "sonos_tract__qrelu_1_model.onnx": None,
    "superlopuh_serpents__my_image_classifier.onnx": None,
    "tracel-ai_burn-onnx__mnist.onnx": None,
    "tracel-ai_burn-onnx__non_topological_order.onnx": None,
    "tracel-ai_burn-onnx__thresholded_relu.onnx": None,
    "tracel-ai_burn-onnx__very_long_names.onnx": None,
}
"""File -> the batch size its graph is bound to, None where any works."""

_OTHERS = {
    "Linzaer_Ultra-Light-Fast-Generic-Face-Detector-1MB__version-RFB-320.onnx": (ModelError, r"\[1, 4420, 2\]"),
    "gramalingam_onnxruntime__conv_add_relu.onnx": (ModelError, r"expected \(samples, classes\)"),
    "gramalingam_onnxruntime__cpu_if.onnx": (ModelError, r"expected \(samples, classes\)"),
    "gramalingam_onnxruntime__nhwc_conv_clip_relu.onnx": (ModelError, r"expected \(samples, classes\)"),
    "gramalingam_onnxruntime__squeeze_mul_relu.onnx": (ModelError, "2 inputs"),
    "gramalingam_onnxruntime__test_RNN.bidirectional.one_layer.relu_model.onnx": (UnsupportedOpsError, "RNN"),
    "sdpython_experimental-experiment__example_4700-CPUep-opt.onnx": (ModelError, "9 inputs"),
    "snakers4_silero-vad__silero_vad.onnx": (ModelError, "3 inputs"),
    "tracel-ai_burn-onnx__outer_scope_loop.onnx": (ModelError, "4 inputs"),
    "tracel-ai_burn-onnx__zero_sized_dims.onnx": (ModelError, r"expected \(samples, classes\)"),
}
"""Files that are no classifiers of one image, and how the refusal reads."""

_LIGHT = Path(onnx_tests.__file__).parent / "data" / "light"


def _check(path: Path, static_batch: int | None, counts: tuple[int, ...] = (1, 5)) -> None:
    net = load(path)
    assert net.static_batch == static_batch
    random = np.random.default_rng(0)
    for count in counts:
        x = random.random((count, *(size or 32 for size in net.input_shape[1:])), dtype=np.float32)
        assert check_parity(net, path, x).passed
    leaf = torch.from_numpy(x).requires_grad_()
    for choice in (SiteBackward.exact(), SiteBackward.smooth(5.0)):
        net.set_backward(choice)
        net.set_kappa(0.1)
        logits = net(leaf)
        # Weights of the light models are made up, and some logits are near the largest float.
        (grad,) = torch.autograd.grad((logits / logits.detach().abs().max().clamp(min=1)).sum(), leaf)
        assert bool(torch.isfinite(grad).all())


@pytest.mark.parametrize("name", sorted(_CLASSIFIERS))
def test_shared_classifier_equals_onnx_runtime(data_dir: DataFolder, name: str) -> None:
    _check(data_dir / f"onnx/{name}", _CLASSIFIERS[name])


@pytest.mark.parametrize(
    "name",
    [
        "gramalingam_onnxruntime__mnist.onnx",
        "jameslavrenz_netkit__mnist_cnn_dw.onnx",
        "tracel-ai_burn-onnx__mnist.onnx",
    ],
)
def test_retrofit_of_a_shared_classifier_equals_onnx_runtime(data_dir: DataFolder, name: str) -> None:
    path = data_dir / f"onnx/{name}"
    model = onnx.load(str(path))
    net = load(path)
    x = np.random.default_rng(0).random((5, *(size or 1 for size in net.input_shape[1:])), dtype=np.float32)
    for lowering in ("auto", "where"):
        retrofit, _ = rewrite(model, kappa=0.1, lowering=lowering)
        assert check_parity(net, retrofit, x).passed


@pytest.mark.parametrize("name", sorted(_OTHERS))
def test_shared_model_that_is_no_classifier_is_refused(data_dir: DataFolder, name: str) -> None:
    kind, said = _OTHERS[name]
    with pytest.raises(kind, match=said):
        load(data_dir / f"onnx/{name}")


@pytest.mark.parametrize("name", ["shufflenet", "squeezenet"])
def test_light_model_equals_onnx_runtime(name: str) -> None:
    _check(_LIGHT / f"light_{name}.onnx", None, (2,))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "vgg19", "zfnet512"]
)
def test_large_light_model_equals_onnx_runtime(name: str) -> None:
    _check(_LIGHT / f"light_{name}.onnx", None, (1,))

"""The proof is strong enough for ordinary networks, from both of torch's exporters, and third-party files."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from jr_onnx.rows import prove_rows
from tests.development import DataFolder

ROOT = Path(__file__).resolve().parent.parent.parent

# Third-party files with a free first axis, and where a proof ends; "" where there is none.
THIRD_PARTY = {
    "NeuralNetworkVerification_Marabou__cnn_max_mninst2": "",
    "ShiqiYu_libfacedetection.train__yunet_n_dynamic": "",
    "gramalingam_onnxruntime__conv_add_relu": "",
    "gramalingam_onnxruntime__nhwc_conv_clip_relu": "",
    "gramalingam_onnxruntime__test_data_model": "",
    "microsoft_onnxconverter-common__image_classifier32": "",
    "sonos_tract__qrelu_1_model": "",
    # A branch that depends on sizes, and a network whose batch is the second axis of its input.
    "gramalingam_onnxruntime__cpu_if": "'argmax' (ArgMax): its input 'cast_0' depends on the number of rows",
    "gramalingam_onnxruntime__test_RNN.bidirectional.one_layer.relu_model": "the rows do not lie along the axis of its",
}


@pytest.mark.parametrize("path", sorted((ROOT / "models" / "exported").glob("*.onnx")), ids=lambda path: path.stem)
def test_the_models_of_this_repository_are_proved(path: Path) -> None:
    assert prove_rows(onnx.load(path)).why == ""


@pytest.mark.parametrize("name", THIRD_PARTY)
def test_third_party_models_are_proved_or_have_a_good_reason(data_dir: DataFolder, name: str) -> None:
    why = prove_rows(onnx.load(data_dir / f"onnx/{name}.onnx")).why
    assert THIRD_PARTY[name] in why
    assert bool(why) == bool(THIRD_PARTY[name])


class Tokens(nn.Module):
    """Patches, a class token, attention whose exporters put the tokens in front of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1)
        y = y + self.attention(self.norm(y), self.norm(y), self.norm(y))[0]
        scores: Tensor = self.head(y[:, 0])
        return scores


class Windows(nn.Module):
    """Attention within windows that are laid out behind each other along the axis of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
        y = torch.softmax(y @ y.transpose(1, 2), -1) @ y
        return y.view(n, h // 4, w // 4, 4, 4, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w).mean((2, 3))


class Sequence(nn.Module):
    """A recurrent layer over the lines of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(24, 8, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.recurrent(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1])
        return scores


class Mixed(nn.Module):
    """Subtract the mean of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0, keepdim=True)).flatten(1)


def export(network: nn.Module, path: Path, *, dynamo: bool) -> onnx.ModelProto:
    images = torch.randn(2, 3, 8, 8)
    if dynamo:
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(network.eval(), (images,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
        else:
            options = {"input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}, "opset_version": 17}
            torch.onnx.export(network.eval(), (images,), path, dynamo=False, **options)
    return onnx.load(path)


@pytest.mark.parametrize("dynamo", [False, True], ids=["script", "dynamo"])
@pytest.mark.parametrize("network", [Tokens, Windows, Sequence])
def test_exported_networks_are_proved(network: type[nn.Module], dynamo: bool, tmp_path: Path) -> None:
    assert prove_rows(export(network(), tmp_path / "net.onnx", dynamo=dynamo)).why == ""


@pytest.mark.parametrize("dynamo", [False, True], ids=["script", "dynamo"])
def test_an_exported_mean_over_the_batch_is_not(dynamo: bool, tmp_path: Path) -> None:
    assert "(ReduceMean): it works over the axis" in prove_rows(export(Mixed(), tmp_path / "m.onnx", dynamo=dynamo)).why

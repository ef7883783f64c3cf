"""Weights as parameters: called as in the file, read where the file reads them, written back by `save_weights`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from jr_onnx import find_weights, save_weights, torchnet
from jr_onnx.errors import InputError, ModelError
from tests.weights import models


def images(net: torchnet.OnnxModule, count: int = 5) -> torch.Tensor:
    shape = [size or 1 for size in net.input_shape[1:]]
    return torch.from_numpy(np.random.default_rng(3).random((count, *shape), dtype=np.float32)).to(net.dtype)


def written(kind: str, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(models.KINDS[kind]().SerializeToString(deterministic=True))
    return path


@pytest.mark.parametrize("kind", models.KINDS)
def test_every_weight_is_a_parameter_with_a_gradient(kind: str, tmp_path: Path) -> None:
    path = written(kind, tmp_path)
    net = torchnet.load(path, trainable=True, dtype=torch.float32)
    x = images(net)
    if kind == "branch":
        x = torch.cat([x, -x])  # one batch for each branch
    outputs = [net(piece) for piece in x.split(5)]
    torch.stack([out.square().sum() for out in outputs]).sum().backward()
    parameters = dict(net.named_parameters())
    wanted = [item.name for item in find_weights(path) if not item.is_statistic]
    assert sorted(parameters) == sorted(wanted)
    assert all(item.grad is not None and bool(item.grad.any()) for item in parameters.values())


@pytest.mark.parametrize("kind", models.KINDS)
def test_training_can_be_written_back_and_computes_the_same(kind: str, tmp_path: Path) -> None:
    path = written(kind, tmp_path)
    net = torchnet.load(path, trainable=True)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    output = save_weights(path, net, tmp_path / "trained.onnx")
    x = images(net)
    torch.testing.assert_close(net(x).detach(), torchnet.load(output)(x), rtol=0, atol=0)
    assert torchnet.check_parity(torchnet.load(output), output, x.numpy()).notes == ()


def test_what_is_trained_twice_in_a_function_or_shared_is_one_parameter(tmp_path: Path) -> None:
    for kind, count in (("function", 3), ("shared", 1)):
        net = torchnet.load(written(kind, tmp_path), trainable=True)
        assert len(list(net.parameters())) == count


def test_chosen_weights_alone_are_parameters(tmp_path: Path) -> None:
    net = torchnet.load(written("plain", tmp_path), trainable=["w2", "running_mean"])
    assert {name for name, _ in net.named_parameters()} == {"w2", "running_mean"}
    with pytest.raises(InputError, match="no weight 'nothing'"):
        torchnet.load(written("plain", tmp_path), trainable=["nothing"])


def test_a_clone_shares_its_parameters_and_a_state_dict_brings_them_back(tmp_path: Path) -> None:
    net = torchnet.load(written("branch", tmp_path), trainable=True)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    twin = net.clone()
    x = images(net)
    before = net(x).detach()
    with torch.no_grad():
        next(net.parameters()).add_(1)
    assert torch.equal(twin(x), net(x))
    net.load_state_dict(state)
    assert torch.equal(net(x), before)


def test_a_model_without_weights_cannot_be_trained() -> None:
    model = models.with_initializers(
        '<ir_version: 8, opset_import: ["" : 17]> net (float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }'
    )
    with pytest.raises(ModelError, match="no weights that could be trained"):
        torchnet.load(model, trainable=True)

"""ResNet-20 for CIFAR-10 (He et al. 2016, section 4.2), with projections where the shape changes.

The parameter names are those of the checkpoints that the authors of JumpReLU published for it.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.activation import Activation


class BasicBlock(nn.Module):
    """conv-BN-act-conv-BN, plus the input, act."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = activation()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = activation()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H / stride, W / stride)."""
        inner = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        result: Tensor = self.act2(inner + self.downsample(x))
        return result


class ResNet20(nn.Module):
    """Three stages of three blocks with 16, 32 and 64 channels, 19 activations.

    Input normalised CIFAR-10 (N, 3, 32, 32).
    """

    def __init__(self, activation: Activation = nn.ReLU) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.act = activation()
        self.layer1 = _stage(16, 16, 1, activation)
        self.layer2 = _stage(16, 32, 2, activation)
        self.layer3 = _stage(32, 64, 2, activation)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 10)."""
        x = self.act(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, stride: int, activation: Activation) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, activation)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, activation) for _ in range(2)))

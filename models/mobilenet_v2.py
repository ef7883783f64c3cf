"""MobileNetV2 (Sandler et al. 2018) in the form that is common for CIFAR-10 and that the paper uses (section 4.1).

Against the ImageNet form: the stem and the second stage keep the resolution, a block with stride 1 always has a
shortcut (a projection where the channels change), and the activation is ReLU without the cap at 6.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from models.activation import Activation

# Expansion, output channels, blocks, stride of the first block.
STAGES: Final = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; a shortcut where the stride is 1."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, activation: Activation) -> None:
        super().__init__()
        inner = inputs * expansion
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.act1 = activation()
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.act2 = activation()
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.has_shortcut = stride == 1
        self.shortcut: nn.Module = nn.Identity()
        if self.has_shortcut and inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H / stride, W / stride)."""
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        result: Tensor = y + self.shortcut(x) if self.has_shortcut else y
        return result


class MobileNetV2(nn.Module):
    """MobileNetV2 for normalised CIFAR-10 (N, 3, 32, 32), 36 activations."""

    def __init__(self, activation: Activation = nn.ReLU) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.act1 = activation()
        blocks: list[nn.Module] = []
        inputs = 32
        for expansion, outputs, count, first_stride in STAGES:
            for index in range(count):
                stride = first_stride if index == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, expansion, stride, activation))
                inputs = outputs
        self.layers = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(320, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.act2 = activation()
        self.pool = nn.AvgPool2d(4)
        self.linear = nn.Linear(1280, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 10)."""
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.layers(x)
        x = self.pool(self.act2(self.bn2(self.conv2(x))))
        logits: Tensor = self.linear(x.flatten(1))
        return logits

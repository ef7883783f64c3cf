"""The wide residual network of the paper (section 4.1; Zagoruyko and Komodakis 2016): depth 34, width factor 4.

The paper says depth 30, which no such network can have: (depth - 4) must be a multiple of 6. The authors' training
protocol says 34. As in their code, convolutions have biases, the second one of a block carries the stride, the
last batch normalisation has a momentum of 0.9, and an activation follows it.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.activation import Activation


class WideBlock(nn.Module):
    """BN-act-conv-BN-act-conv, plus the input."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act1 = activation()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = activation()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H / stride, W / stride)."""
        inner = self.conv1(self.act1(self.bn1(x)))
        result: Tensor = self.conv2(self.act2(self.bn2(inner))) + self.shortcut(x)
        return result


class WideResNet(nn.Module):
    """A wide residual network; input normalised CIFAR-10 (N, 3, 32, 32).

    Args:
        activation: Factory of the activations.
        depth: Number of layers, 6 n + 4.
        width: Widening factor.

    Raises:
        ValueError: `depth` is not 6 n + 4 with n >= 1.
    """

    def __init__(self, activation: Activation = nn.ReLU, *, depth: int = 34, width: int = 4) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"found the depth {depth}, expected 6 n + 4, such as 28 or 34")
        blocks = (depth - 4) // 6
        channels = (16, 16 * width, 32 * width, 64 * width)
        self.conv1 = nn.Conv2d(3, channels[0], 3, padding=1)
        self.layer1 = _stage(channels[0], channels[1], 1, blocks, activation)
        self.layer2 = _stage(channels[1], channels[2], 2, blocks, activation)
        self.layer3 = _stage(channels[2], channels[3], 2, blocks, activation)
        self.bn1 = nn.BatchNorm2d(channels[3], momentum=0.9)
        self.act = activation()
        self.pool = nn.AvgPool2d(8)
        self.linear = nn.Linear(channels[3], 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 10)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = self.pool(self.act(self.bn1(x)))
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def _stage(inputs: int, outputs: int, stride: int, blocks: int, activation: Activation) -> nn.Sequential:
    first = WideBlock(inputs, outputs, stride, activation)
    return nn.Sequential(first, *(WideBlock(outputs, outputs, 1, activation) for _ in range(blocks - 1)))

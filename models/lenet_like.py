"""LeNetLike, the paper's MNIST network (section 4.1): LeNet-5 with an additional dropout layer."""

from __future__ import annotations

from torch import Tensor, nn

from models.activation import Activation


class LeNetLike(nn.Module):
    """Two 5x5 convolutions and three linear layers, four activations; input normalised MNIST (N, 1, 28, 28).

    The activation stands after the max-pooling. For a non-decreasing activation, which ReLU and JumpReLU are, that
    equals the other order.
    """

    def __init__(self, activation: Activation = nn.ReLU) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.fc1 = nn.Linear(320, 120)
        self.fc2 = nn.Linear(120, 90)
        self.fc3 = nn.Linear(90, 10)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout()
        self.act1, self.act2, self.act3, self.act4 = (activation() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 10)."""
        x = self.act1(self.pool(self.conv1(x)))
        x = self.act2(self.pool(self.conv2(x)))
        x = self.dropout(x.flatten(1))
        x = self.act3(self.fc1(x))
        x = self.act4(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits

"""AlexLike, the paper's plain CIFAR-10 network (section 4.1), which it takes from Carlini and Wagner (2017)."""

from __future__ import annotations

from torch import Tensor, nn

from models.activation import Activation


class AlexLike(nn.Module):
    """Four 3x3 convolutions without padding and three linear layers, six activations.

    Input normalised CIFAR-10 (N, 3, 32, 32): 64-64-pool-128-128-pool, dropout, 3200-256-256-10.
    """

    def __init__(self, activation: Activation = nn.ReLU) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3),
            activation(),
            nn.Conv2d(64, 64, 3),
            activation(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3),
            activation(),
            nn.Conv2d(128, 128, 3),
            activation(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(3200, 256),
            activation(),
            nn.Linear(256, 256),
            activation(),
            nn.Linear(256, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 10)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits

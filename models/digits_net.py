"""Two small classifiers for the embedded 8x8 digits; their input is the pixel scale [0, 1], not normalised."""

from __future__ import annotations

from torch import Tensor, nn

from models.activation import Activation


class DigitsCNN(nn.Module):
    """Three convolutions and two linear layers, 23,050 parameters, four activations.

    (N, 1, 8, 8) -> conv 16, BN -> conv 32, BN -> pool -> conv 32 -> pool -> 64 -> (N, 10) logits.
    """

    def __init__(self, activation: Activation = nn.ReLU) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            activation(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            activation(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1),
            activation(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(128, 64), activation(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 10) for pixels (N, 1, 8, 8)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


class DigitsMLP(nn.Module):
    """Three linear layers 64-96-48-10, 11,386 parameters, two activations, on the flattened image."""

    def __init__(self, activation: Activation = nn.ReLU) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 96),
            activation(),
            nn.Linear(96, 48),
            activation(),
            nn.Linear(48, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 10) for pixels (N, 1, 8, 8)."""
        logits: Tensor = self.layers(x)
        return logits

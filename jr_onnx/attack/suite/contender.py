"""One of the two models that a suite attacks: as a torch target for gradients, and as the file that will be served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jr_onnx.attack.classifier.served import ServedClassifier
from jr_onnx.attack.torch_target import TorchTarget, scaled
from jr_onnx.semantics import SiteKappa, is_jump


@dataclass
class Contender:
    """A model in an evaluation.

    Attributes:
        label: "original" or "retrofit".
        served: The file in ONNX Runtime.
        target: For gradients; None where the file cannot be evaluated in torch.
        sources: Kappas of the retrofit, by site: what multiples of kappa refer to.
        sha256: Digest of the file.
        weights: Contenders with the same word here differ in their jumps alone, and share what these do not change.
    """

    label: str
    served: ServedClassifier
    target: TorchTarget | None
    sources: Mapping[str, SiteKappa]
    sha256: str
    weights: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether every jump is 0, so that all backward passes are those of ReLU."""
        return self.target is not None and _without_jumps(self.target)

    def plain_source(self, multiple: float | None, jump: float | None) -> bool:
        """Return whether `source` returns a network whose every jump is 0."""
        found = self.source(multiple, jump)
        return found is not None and _without_jumps(found)

    def source(self, multiple: float | None, jump: float | None) -> TorchTarget | None:
        """Return the network that gives gradients: this one, or the same weights with other jumps."""
        if self.target is None or (multiple is None and jump is None):
            return self.target
        if jump is not None:
            return self.target.with_kappa(jump)
        return self.target.with_kappa(scaled(self.sources, multiple or 0.0))


def _without_jumps(target: TorchTarget) -> bool:
    return not target.is_random and not any(map(is_jump, target.kappas().values()))

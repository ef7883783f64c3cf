"""One of the two models that a suite attacks: as a torch target for gradients, and as the file that will be served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jr_onnx.attack.classifier.served import ServedClassifier
from jr_onnx.attack.target import TorchTarget
from jr_onnx.data import Preprocessing
from jr_onnx.torchnet.module import OnnxModule


class Shaped(nn.Module):
    """An ONNX module that takes images (N, C, H, W) or (N, H, W, C) whatever shape its input has."""

    def __init__(self, net: OnnxModule) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate images to logits (N, K)."""
        shape = [size for size in self.net.input_shape[1:] if size is not None]
        # `trusted_module` loads it with the sizes of the data, so that no axis but the batch is free.
        if len(shape) == len(self.net.input_shape) - 1 and x[:1].numel() == len(x[:1]) * int(np.prod(shape)):
            x = x.reshape(len(x), *shape)
        result: Tensor = self.net(x)
        return result

    def clone(self) -> Shaped:
        """Return a module that shares the weights, with kappas and derivatives of its own."""
        return Shaped(self.net.clone())

    def __getattr__(self, name: str) -> Any:
        """Pass on what a target asks of an ONNX module: sites, kappas, set_kappa, set_backward, ..."""
        if name == "net":
            return super().__getattr__(name)
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.net, name)


@dataclass
class Contender:
    """A model in an evaluation.

    Attributes:
        label: "original" or "retrofit".
        served: The file in ONNX Runtime.
        target: For gradients; None where the file cannot be evaluated in torch.
        sources: Kappas of the retrofit, by site: what multiples of kappa refer to.
        sha256: Digest of the file.
    """

    label: str
    served: ServedClassifier
    target: TorchTarget | None
    sources: Mapping[str, float]
    sha256: str

    @property
    def is_plain(self) -> bool:
        """Whether every jump is 0, so that all backward passes are those of ReLU."""
        return self.target is not None and _without_jumps(self.target)

    def plain_source(self, multiple: float | None, jump: float | None) -> bool:
        """Tell whether `source` returns a network whose every jump is 0."""
        found = self.source(multiple, jump)
        return found is not None and _without_jumps(found)

    def source(self, multiple: float | None, jump: float | None) -> TorchTarget | None:
        """Return the network that gives gradients: this one, or the same weights with other jumps."""
        if self.target is None or (multiple is None and jump is None):
            return self.target
        if jump is not None:
            return self.target.with_kappa(jump)
        return self.target.with_kappa({site: kappa * (multiple or 0.0) for site, kappa in self.sources.items()})


def _without_jumps(target: TorchTarget) -> bool:
    if target.is_random:
        return False
    model: Any = target.model
    chosen = target.settings.kappa
    jumps = [site.kappa for site in getattr(model, "jumps", {}).values()]  # only a map of kappas reaches these
    if isinstance(chosen, tuple):
        named = dict(chosen)
        sites = {**getattr(model, "jumps", {}), **getattr(model, "sites", {})}
        return all(named.get(name, site.kappa) == 0 for name, site in sites.items())
    own = [site.kappa for site in getattr(model, "sites", {}).values()] if chosen is None else [chosen]
    return all(kappa == 0 for kappa in (*own, *jumps))


def torch_target(net: OnnxModule, preprocessing: Preprocessing, kappas: Mapping[str, float] | None) -> TorchTarget:
    """Return a target over an ONNX module; `kappas` None keeps the file's own."""
    target = TorchTarget(Shaped(net), preprocessing, dtype=torch.float32)
    return target if kappas is None else target.with_kappa(dict(kappas))

"""JumpReLU as a torch module, and the factory type that every network takes.

    J(z) = z if z > kappa else 0        (paper, eq. 11)

A network calls its factory once for every site, so that each site is a module of its own and can be found, hooked
or replaced. The default factory is `nn.ReLU`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from jr_onnx.semantics import validate_kappa

Activation = Callable[[], nn.Module]


class JumpReLU(nn.Module):
    """JumpReLU with one constant kappa; its gradient is the mask, zero at the jump, as in the paper.

    Args:
        kappa: The jump, finite and not negative.

    Raises:
        KappaError: It is something else.
    """

    def __init__(self, kappa: float) -> None:
        super().__init__()
        self.kappa = validate_kappa(kappa)

    def forward(self, z: Tensor) -> Tensor:
        """Apply J to every element; NaN maps to 0, as everywhere in this project."""
        return torch.where(z > self.kappa, z, torch.zeros_like(z))

    def extra_repr(self) -> str:
        """Show kappa in the printed network."""
        return f"kappa={self.kappa}"


def jump_relu(kappa: float) -> Activation:
    """Return a factory of JumpReLU modules with this kappa.

    Raises:
        KappaError: kappa is not finite or negative.
    """
    JumpReLU(kappa)  # refuse a bad kappa here, not deep inside a network's constructor
    return lambda: JumpReLU(kappa)

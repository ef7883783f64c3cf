"""JumpReLU with a replaceable backward pass.

Forward, always:  J(z) = z if z > kappa else 0, capped for ReLU6; NaN becomes 0 (as in `jr_onnx.semantics`).
Backward, by mode:

    exact            1 where z > kappa                     what automatic differentiation of J gives
    straight_through 1 where z > 0                         as if the site were a ReLU
    smooth           s + beta z s (1 - s)                  s = sigmoid(beta (z - kappa)), the derivative of z s;
                                                           0 where s < 1e-20

each times 1 where z < cap. The smooth derivative sees the jump's own gain, which the other two are blind to. Where
kappa is 0 all three are that of ReLU. A kappa may also be one value for each channel, axis 1 of z.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor

from jr_onnx.errors import InputError, KappaError
from jr_onnx.records import Record
from jr_onnx.semantics import CHANNEL_AXIS, SiteKappa, channel_dims

Mode = Literal["exact", "straight_through", "smooth"]
_LEAST = 1e-20
"""A smaller sigmoid counts as 0 in the smooth derivative."""
_LOWEST = -60.0
"""An argument for which the sigmoid is below `_LEAST`, and still a normal number."""


@dataclass(frozen=True, slots=True)
class SiteBackward(Record):
    """How the derivative of a site is taken.

    Attributes:
        mode: exact, straight_through or smooth.
        beta_kappa: beta times kappa of the smooth surrogate, so that one value suits sites of any kappa.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.site_backward/1"
    mode: Mode = "exact"
    beta_kappa: float | None = None

    def __post_init__(self) -> None:
        """Refuse an invalid beta, or one that the mode does not have."""
        if self.mode not in ("exact", "straight_through", "smooth"):
            raise InputError(f"the backward mode is {self.mode!r}, expected exact, straight_through or smooth")
        if self.mode != "smooth":
            if self.beta_kappa is not None:
                raise InputError(f"beta_kappa is {self.beta_kappa}, but the mode {self.mode} has none")
        elif self.beta_kappa is None or not math.isfinite(self.beta_kappa) or self.beta_kappa <= 0:
            raise InputError(f"beta_kappa of the smooth backward is {self.beta_kappa}, expected a number > 0")

    @classmethod
    def exact(cls) -> SiteBackward:
        """Return the derivative of J itself: 1 where z > kappa."""
        return cls("exact")

    @classmethod
    def straight_through(cls) -> SiteBackward:
        """Return the derivative of ReLU: 1 where z > 0."""
        return cls("straight_through")

    @classmethod
    def smooth(cls, beta_kappa: float) -> SiteBackward:
        """Return the derivative of z sigmoid(beta (z - kappa)) with beta = beta_kappa / kappa."""
        return cls("smooth", float(beta_kappa))

    def __str__(self) -> str:
        return f"smooth({self.beta_kappa:g})" if self.beta_kappa is not None else self.mode


@dataclass(frozen=True, slots=True)
class LearnedKappa:
    """A jump that is trained.

    Attributes:
        value: Its kappa, >= 0: a tensor without axes, or (C,) with one for each channel.
        bandwidth: Width of the kernel with which the derivative sees the jump.
    """

    value: Tensor
    bandwidth: float


def jump(
    z: Tensor, kappa: SiteKappa | LearnedKappa, cap: float | None, backward: SiteBackward, *, overwrite: bool = False
) -> Tensor:
    """Apply JumpReLU.

    Args:
        z: Pre-activations of any shape and floating type; (N, C, ...) for a kappa per channel.
        kappa: The jump, >= 0; 0 is ReLU. One that is learned gets a derivative too (see `_TensorJump`).
        cap: Upper bound, or None.
        backward: The derivative to use; where kappa is 0 all three are that of ReLU.
        overwrite: Nobody else needs z, which may become the result. That spares memory, and so cache misses.

    Raises:
        KappaError: There is a kappa per channel, and z has another number of channels.
    """
    if isinstance(kappa, LearnedKappa):
        return _tensor_jump(z, kappa.value, cap, backward, kappa.bandwidth)
    if isinstance(kappa, tuple):
        return _tensor_jump(z, _as_tensor(kappa, z.dtype, z.device), cap, backward, None)
    if overwrite and kappa == 0 and cap is None:
        return torch.relu_(z)
    if overwrite and kappa > 0 and not (z.requires_grad and torch.is_grad_enabled()):
        return _threshold(z, kappa, cap, overwrite=True)
    if kappa == 0:
        # torch's own kernels: their derivative is 1 on (0, cap), like `exact`.
        return torch.relu(z) if cap is None else F.hardtanh(z, 0.0, cap)
    result: Tensor = _Jump.apply(z, kappa, cap, backward)  # type: ignore[no-untyped-call] # torch has no types here
    return result


class _Jump(torch.autograd.Function):
    """The forward pass and the three derivatives."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, kappa: float, cap: float | None, backward: SiteBackward) -> Tensor:
        del backward
        return _threshold(z, kappa, cap)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the derivative needs: the output for the exact one (it shows where z > kappa), else z."""
        z, ctx.kappa, ctx.cap, ctx.mode = inputs
        ctx.save_for_backward(output if ctx.mode.mode == "exact" else z)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (saved,) = ctx.saved_tensors
        grad = grads[0]
        if ctx.mode.mode == "smooth":
            result = grad * _smooth_derivative(saved, ctx.kappa, ctx.mode.beta_kappa / ctx.kappa)
        else:
            # The saved output is 0 or > kappa > 0, so that one comparison with the lower end serves both modes.
            result = torch.ops.aten.threshold_backward(grad, saved, 0.0)
        if ctx.cap is not None:
            result = torch.where(saved < ctx.cap, result, torch.zeros((), dtype=result.dtype, device=result.device))
        return result, None, None, None


@functools.lru_cache(maxsize=256)
def _as_tensor(kappa: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # what is made in inference mode cannot be kept for a derivative later
        return torch.tensor(kappa, dtype=torch.float64).to(device, dtype)


def _tensor_jump(
    z: Tensor, kappa: Tensor, cap: float | None, backward: SiteBackward, bandwidth: float | None
) -> Tensor:
    if kappa.dim():
        dims = channel_dims(len(kappa), z.dim())
        if len(kappa) != z.shape[CHANNEL_AXIS]:
            raise KappaError(
                f"kappa has {len(kappa)} values, one per channel, and the tensor has {z.shape[CHANNEL_AXIS]} channels",
                hint="Give one number, or one for each channel (axis 1)",
            )
        kappa = kappa.reshape(dims)
    result: Tensor = _TensorJump.apply(z, kappa, cap, backward, bandwidth)  # type: ignore[no-untyped-call] # torch has no types here
    return result


class _TensorJump(torch.autograd.Function):
    """JumpReLU whose kappa is a tensor that broadcasts over z, with a derivative for a kappa that is learned.

    d J / d kappa = -kappa / h where |z - kappa| < h / 2, else 0 (Rajamanoharan et al. 2024, section 3, "Jumping
    Ahead"): an estimate, with a rectangle of width h as kernel, of what moving the jump does on average. The derivative
    for z is that of `backward`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, kappa: Tensor, cap: float | None, backward: SiteBackward, bandwidth: float | None) -> Tensor:
        del backward, bandwidth
        result = torch.where(z > kappa.to(z.dtype), z, torch.zeros((), dtype=z.dtype, device=z.device))
        return result if cap is None else result.clamp(max=cap)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the pre-activations and kappa."""
        del output
        z, kappa, ctx.cap, ctx.mode, ctx.bandwidth = inputs
        ctx.save_for_backward(z, kappa)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        z, kappa = ctx.saved_tensors
        grad, zero = grads[0], torch.zeros((), dtype=z.dtype, device=z.device)
        size = kappa.to(z.dtype)
        for_kappa = None
        if ctx.bandwidth is not None:
            near = torch.where((z - size).abs() < ctx.bandwidth / 2, grad, zero).sum_to_size(kappa.shape)
            for_kappa = -(kappa / ctx.bandwidth) * near.to(kappa.dtype)
        if ctx.mode.mode == "smooth":
            one = torch.ones((), dtype=z.dtype, device=z.device)
            slope = _smooth_derivative(z, size, ctx.mode.beta_kappa / torch.where(size > 0, size, one))
            result = grad * torch.where(size > 0, slope, (z > 0).to(z.dtype))
        else:
            result = torch.where(z > (size if ctx.mode.mode == "exact" else zero), grad, zero)
        if ctx.cap is not None:
            result = torch.where(z < ctx.cap, result, zero)
        return result, for_kappa, None, None, None


def _threshold(z: Tensor, kappa: float, cap: float | None, *, overwrite: bool = False) -> Tensor:
    # One fused kernel, several times faster than where(); it lets NaN pass, which the definition does not.
    result = F.threshold(z, kappa, 0.0, inplace=overwrite).nan_to_num_(nan=0.0, posinf=math.inf, neginf=-math.inf)
    return result if cap is None else result.clamp_(max=cap)


def _smooth_derivative(z: Tensor, kappa: float | Tensor, beta: float | Tensor) -> Tensor:
    # Smaller values add nothing to sums of gradients in float32, but make denormal numbers, here and in all earlier
    # layers, which slow a CPU down many times.
    s = torch.sigmoid(((z - kappa) * beta).clamp(min=_LOWEST))
    s = F.threshold(s, _LEAST, 0.0, inplace=True)
    slope: Tensor = (1 - s).mul_(z).mul_(beta).add_(1).mul_(s)
    return slope

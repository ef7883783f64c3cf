"""Adversarial images for training: projected gradient ascent from a random start, in pixels.

    x <- project(x + step * direction(d loss / dx))        (Madry et al. 2018, section 2.1)

The loss is the cross entropy; TRADES takes the divergence of the predictions from those of the clean image instead
(Zhang et al. 2019, section 4.2). Nothing is measured here: robust accuracies come from `jr_onnx.attack`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from jr_onnx.attack.norms import expand, lengths, steepest
from jr_onnx.harden.recipe import Recipe

Network = Callable[[Tensor], Tensor]


def random_start(pixels: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return a random point of the ball around each image (N, C, H, W), a valid image."""
    noise = torch.rand(pixels.shape, generator=generator).to(pixels.device) * 2 - 1
    if recipe.norm == "linf":
        return (pixels + recipe.eps * noise).clamp_(0, 1)
    size = torch.rand(len(pixels), generator=generator).to(pixels.device) * recipe.eps
    return (pixels + noise * expand(size / lengths(noise, "l2").clamp_min(1e-12), noise)).clamp_(0, 1)


def projected(x: Tensor, pixels: Tensor, recipe: Recipe) -> Tensor:
    """Move points into the ball around the images, and into [0, 1]."""
    if recipe.norm == "linf":
        return torch.minimum(torch.maximum(x, pixels - recipe.eps), pixels + recipe.eps).clamp_(0, 1)
    delta = x - pixels
    size = expand(lengths(delta, "l2"), delta)
    return (pixels + delta * (recipe.eps / size.clamp_min(1e-12)).clamp_max(1.0)).clamp_(0, 1)


def craft(
    network: Network, pixels: Tensor, labels: Tensor, recipe: Recipe, start: Tensor, clean: Tensor | None = None
) -> Tensor:
    """Return adversarial images (N, C, H, W).

    Args:
        network: Pixels to logits.
        pixels: Clean images (N, C, H, W) in [0, 1].
        labels: (N,).
        recipe: Budget, norm and steps.
        start: Where to begin, from `random_start`.
        clean: Logits of the clean images (N, K) to move away from, as TRADES does; None for the labels.
    """
    x = start
    target = None if clean is None else clean.detach().softmax(1)
    for _ in range(recipe.attack_steps):
        x = x.detach().requires_grad_(True)
        logits = network(x)
        if target is None:
            loss = functional.cross_entropy(logits, labels, reduction="sum")
        else:
            loss = functional.kl_div(logits.log_softmax(1), target, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            x = projected(x + recipe.step_size * steepest(gradient, recipe.norm), pixels, recipe)
    return x.detach()


def loss_of(network: Network, pixels: Tensor, labels: Tensor, recipe: Recipe, adversarial: Tensor) -> Tensor:
    """Return the loss of one batch, summed over its images.

    Args:
        network: Pixels to logits, with gradients for the weights.
        pixels: Clean images (N, C, H, W).
        labels: (N,).
        recipe: The method.
        adversarial: (N, C, H, W); for fgsm the first share of them replaces clean ones.
    """
    if recipe.method == "trades":
        clean, moved = network(pixels), network(adversarial)
        divergence = functional.kl_div(moved.log_softmax(1), clean.softmax(1), reduction="sum")
        return functional.cross_entropy(clean, labels, reduction="sum") + recipe.beta * divergence
    if recipe.method == "fgsm":
        count = max(1, round(len(pixels) * recipe.mixed))
        adversarial = torch.cat([adversarial[:count], pixels[count:]])
    return functional.cross_entropy(network(adversarial), labels, reduction="sum")

"""The paper's attacks transcribed step by step, not optimised: the baseline of `tools.bench.attacks`.

Everything is in normalised space. Each step first evaluates the model to find the samples that are still classified
correctly, evaluates those again with a graph, and differentiates weights and input alike as a training loop does;
DeepFool scales its step with a diagonal matrix.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 -- the name every torch reader knows
from torch import Tensor, nn

OTHER_CLASSES = 9
Step = Callable[[nn.Module, Tensor, Tensor], Tensor]


def _standing(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        standing: Tensor = model(x).argmax(1) == labels
        return standing


def _until_fooled(model: nn.Module, images: Tensor, labels: Tensor, steps: int, step: Step) -> Tensor:
    """Repeat a step for the samples that are still classified correctly."""
    result = images.clone()
    rows = torch.arange(len(images))
    for _ in range(steps):
        rows = rows[_standing(model, result[rows], labels[rows])]
        if len(rows) < 1:
            break
        x = result[rows]
        moved = step(model, x, labels[rows])
        result[rows] = torch.clamp(moved, float(x.min()), float(x.max()))
    return result


def pgd(model: nn.Module, images: Tensor, labels: Tensor, steps: int, eps: float) -> Tensor:
    """Iterated FGSM with an early stop per sample; eps is the step."""

    def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        torch.autograd.backward(F.cross_entropy(model(x), y))
        return x.detach() + eps * _grad(x).sign()

    return _until_fooled(model, images, labels, steps, step)


def deepfool(model: nn.Module, images: Tensor, labels: Tensor, steps: int, norm: str) -> Tensor:
    """DeepFool in L-infinity or L2."""

    def step(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        per, slope, _ = _nearest(model, x, norm)
        unit = slope.sign() if norm == "linf" else slope / (slope.norm(dim=1, keepdim=True) + 1e-6)
        return x + torch.diag((per + 1e-4) * 1.02).mm(unit).view_as(x)

    return _until_fooled(model, images, labels, steps, step)


def trust_region(model: nn.Module, images: Tensor, labels: Tensor, steps: int, radius: float) -> Tensor:
    """First-order trust region in L2, towards the class that is nearest at the start."""
    goals = labels.clone()
    standing = _standing(model, images, labels)
    goals[standing] = _nearest(model, images[standing], "l2")[2]
    result = images.clone()
    rows = torch.arange(len(images))
    for _ in range(steps):
        rows = rows[_standing(model, result[rows], labels[rows])]
        if len(rows) < 1:
            break
        x = result[rows].clone().requires_grad_()
        logits = model(x)
        gap = logits.gather(1, labels[rows, None]) - logits.gather(1, goals[rows, None])
        torch.autograd.backward((-gap).sum())
        slope = _grad(x).flatten(1)
        size = slope.norm(dim=1)
        per = torch.clamp(gap.detach()[:, 0] / (size + 1e-6), max=radius)
        move = torch.diag((per + 1e-4) * 1.02).mm(slope / (size + 1e-6)[:, None])
        x = x.detach()
        result[rows] = torch.clamp(x + move.view_as(x), float(x.min()), float(x.max()))
    return result


def _nearest(model: nn.Module, x: Tensor, norm: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distance to the nearest linearised boundary, the gradient there, and the class beyond it."""
    x = x.clone().requires_grad_()
    logits = model(x)
    order = logits.argsort(dim=1, descending=True)
    slopes = []
    for column in range(OTHER_CLASSES + 1):
        x.grad = None
        torch.autograd.backward(logits.gather(1, order[:, column, None]).sum(), retain_graph=True)
        slopes.append(_grad(x).flatten(1).clone())
    gaps = (logits.gather(1, order[:, :1]) - logits).detach()
    best = torch.full((len(x),), float("inf"))
    direction, chosen = torch.zeros_like(slopes[0]), order[:, 1].clone()
    for column in range(1, OTHER_CLASSES + 1):
        slope = slopes[column] - slopes[0]
        per = gaps.gather(1, order[:, column, None])[:, 0] / slope.norm(p=1 if norm == "linf" else 2, dim=1)
        nearer = per < best
        best = torch.where(nearer, per, best)
        direction[nearer] = slope[nearer]
        chosen[nearer] = order[nearer, column]
    return best, direction, chosen


def _grad(x: Tensor) -> Tensor:
    if x.grad is None:
        raise RuntimeError("the model gave no gradient for its input")
    return x.grad

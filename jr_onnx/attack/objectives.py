"""What an attack increases: per-sample functions of the logits, all larger when closer to success.

Each takes logits (N, K) and an aim (N, 2) of integer classes, `(label, goal)`; goal is -1 in untargeted attacks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 -- the name every torch reader knows
from torch import Tensor

from jr_onnx.errors import InputError

Objective = Callable[[Tensor, Tensor], Tensor]
NO_GOAL = -1


def aim_of(labels: Tensor, goals: Tensor | None) -> Tensor:
    """Pair labels (N,) with goals (N,) into an aim (N, 2)."""
    second = torch.full_like(labels, NO_GOAL) if goals is None else goals
    return torch.stack([labels, second], dim=1)


def fooled(logits: Tensor, aim: Tensor) -> Tensor:
    """Return which samples (N,) an attack has won: an answer, and another class than the label, or the goal."""
    predicted = logits.argmax(1)
    won = torch.where(aim[:, 1] == NO_GOAL, predicted != aim[:, 0], predicted == aim[:, 1])
    return won & decided(logits)


def decided(logits: Tensor) -> Tensor:
    """Return which samples (N,) have an answer: the largest logit (N, K) is finite, and none is NaN.

    A class at minus infinity is one that is masked and never the answer. See `evaluation.scores.predictions`.
    """
    return torch.isfinite(logits.flatten(1).amax(1))


def finite(values: Tensor) -> Tensor:
    """Return which samples (N,) hold no NaN and no infinity."""
    return torch.isfinite(values.flatten(1)).all(1)


def cross_entropy(logits: Tensor, aim: Tensor) -> Tensor:
    """Return the cross entropy of the label, or minus that of the goal."""
    targeted = aim[:, 1] != NO_GOAL
    classes = torch.where(targeted, aim[:, 1], aim[:, 0])
    loss = F.cross_entropy(logits, classes, reduction="none")
    return torch.where(targeted, -loss, loss)


def margin(logits: Tensor, aim: Tensor) -> Tensor:
    """Return best other logit minus the label's, or the goal's minus the best other; positive means success."""
    targeted = aim[:, 1] != NO_GOAL
    classes = torch.where(targeted, aim[:, 1], aim[:, 0])[:, None]
    own = logits.gather(1, classes)[:, 0]
    other = logits.scatter(1, classes, float("-inf")).amax(1)
    return torch.where(targeted, own - other, other - own)


def dlr(logits: Tensor, aim: Tensor) -> Tensor:
    """Return the difference of logits ratio (Croce and Hein, 2020, eq. 6): the margin over z_1 - z_3.

    It does not change when logits are scaled, so that a saturated softmax cannot hide the gradient. Classes at minus
    infinity do not count; where they leave fewer than three, it is the margin.
    """
    _require_classes(logits, 3, "DLR")
    ordered = _unmasked(logits)
    return margin(logits, aim) / _scale(logits, ordered[:, 0] - ordered[:, 2], 3)


def dlr_targeted(logits: Tensor, aim: Tensor) -> Tensor:
    """Return the targeted DLR (Croce and Hein, 2020, eq. 7): (z_t - z_y) / (z_1 - (z_3 + z_4) / 2)."""
    _require_classes(logits, 4, "targeted DLR")
    ordered = _unmasked(logits)
    return towards(logits, aim) / _scale(logits, ordered[:, 0] - 0.5 * (ordered[:, 2] + ordered[:, 3]), 4)


def _scale(logits: Tensor, scale: Tensor, least: int) -> Tensor:
    """Return what to divide by (N,): 1 where fewer than `least` classes are open, whose ratio would be constant."""
    few = torch.isfinite(logits).sum(1) < least
    return torch.where(few, torch.ones_like(scale), scale.clamp_min(1e-12))


def _unmasked(logits: Tensor) -> Tensor:
    """Sort logits (N, K) in falling order; those at minus infinity take the value of the least finite one."""
    ordered = logits.sort(dim=1, descending=True).values
    masked = torch.isneginf(ordered)
    least = torch.where(masked, float("inf"), ordered).amin(1, keepdim=True)
    return torch.where(masked, least, ordered)


def towards(logits: Tensor, aim: Tensor) -> Tensor:
    """Return the goal's logit minus the label's; positive means that the label is beaten."""
    return (logits.gather(1, aim[:, 1:]) - logits.gather(1, aim[:, :1]))[:, 0]


OBJECTIVES: dict[str, Objective] = {
    "ce": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "dlr-targeted": dlr_targeted,
}


def objective_named(name: str) -> Objective:
    """Return an objective of `OBJECTIVES`, or refuse the name."""
    try:
        return OBJECTIVES[name]
    except KeyError:
        raise InputError(f"the loss is {name!r}, expected one of {', '.join(OBJECTIVES)}") from None


def _require_classes(logits: Tensor, least: int, what: str) -> None:
    if logits.shape[1] < least:
        raise InputError(
            f"the {what} loss needs {least} classes, the model has {logits.shape[1]}",
            hint="Use the loss 'ce' or 'margin'",
        )

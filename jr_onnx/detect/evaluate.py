"""How well LID tells adversarial examples from clean and noisy images, on the original and on the retrofit.

What this does that is easily left out:

- images are split before anything else: all forms of one image (clean, noisy, adversarial) fall on one side;
- reference images are neither trained nor tested on;
- the scaler and the classifier see the training side alone;
- an adversarial example counts only if it fools the model, and its noisy partner is as far away as it is;
- the interval resamples images, not rows, because the forms of one image are not independent.

The attack does not know of the detector: an attacker who does is a stronger one, and is not measured here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from jr_onnx.attack.apgd import APGD
from jr_onnx.attack.base import EOT_DRAWS
from jr_onnx.attack.classifier.opener import ClassifierOpener
from jr_onnx.attack.classifier.request import ClassifierRequest
from jr_onnx.attack.norms import Norm
from jr_onnx.attack.torch_target import TorchTarget
from jr_onnx.detect.lid import LidFeatures
from jr_onnx.errors import InputError, require
from jr_onnx.evaluation.statistics import area_interval
from jr_onnx.evaluation.store import host, versions
from jr_onnx.evaluation.summary import MODEL, ORIGINAL, RETROFIT
from jr_onnx.kappa import KappaPlan
from jr_onnx.records import Record
from jr_onnx.rewriter.pair import open_pair

Floats = npt.NDArray[np.float64]
Images = npt.NDArray[np.float32]
LEAST_IMAGES = 20
_ROUNDS = 1000


@dataclass(frozen=True, kw_only=True)
class DetectRequest(ClassifierRequest):
    """What to evaluate.

    Attributes:
        plan: kappa for an original; None for a retrofit, or to evaluate an original alone.
        norm: Norm of the attack's budget.
        eps: Budget, in pixel scale.
        steps: Steps of the attack.
        neighbours: k of the LID.
        reference: How many images, from the front, the LID refers to.
        seed: Random seed.
    """

    plan: KappaPlan | None = None
    norm: Norm = "linf"
    eps: float = 0.1
    steps: int = 40
    neighbours: int = 20
    reference: int = 100
    seed: int = 0


@dataclass(frozen=True, slots=True)
class DetectFigures(Record):
    """The detector on one model.

    Attributes:
        model: original or retrofit; "model" where it is alone.
        auc: Area under the ROC curve on the test side, adversarial against clean and noisy.
        low: Lower end of its 95 % interval.
        high: Upper end.
        train_images: Images the detector was fitted on.
        test_images: Images it was tested on.
        fooled: Share of the correctly classified images that the attack fooled; the others are left out.
        layers: What the features belong to.
        layer_auc: AUC of each feature alone, larger LID meaning adversarial.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.detect_figures/1"
    model: str
    auc: float
    low: float
    high: float
    train_images: int
    test_images: int
    fooled: float
    layers: tuple[str, ...]
    layer_auc: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DetectResult(Record):
    """The detector on the models.

    Attributes:
        logits: Description of the value taken for the logits.
        notes: What the reader should know.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.detect/1"
    models: tuple[DetectFigures, ...]
    data: str
    data_sha256: str
    attack: str
    neighbours: int
    reference: int
    seed: int
    versions: dict[str, str]
    host: str
    logits: str = ""
    notes: tuple[str, ...] = ()


def detect(request: DetectRequest, notify: Callable[[int, int, str], None] | None = None) -> DetectResult:
    """Fit and test the detector on the original and on the retrofit.

    Raises:
        InputError: Too few images are left.
        MissingExtraError: scikit-learn is not installed.
    """
    require("sklearn", "attack")
    if len(request.data) < request.reference + 2 * LEAST_IMAGES:
        raise InputError(
            f"found {len(request.data)} images, expected at least {request.reference} for reference and "
            f"{2 * LEAST_IMAGES} to train and test on",
            hint="Use more images (--limit), or fewer for reference (--reference)",
        )
    attack = APGD(norm=request.norm, eps=request.eps, steps=request.steps, seed=request.seed, backward="smooth:5")
    opener = request.opener()
    found = []
    with tempfile.TemporaryDirectory(prefix="jr-onnx-detect-") as folder:
        pair = open_pair(request.model, request.plan)
        original, retrofit = pair.save(Path(folder))
        files = [(MODEL, original)] if retrofit is None else [(ORIGINAL, original), (RETROFIT, retrofit)]
        for number, (label, path) in enumerate(files, 1):
            found.append(_figures(request, attack, label, path, opener))
            if notify is not None:
                notify(number, len(files), label)
    return DetectResult(
        tuple(found),
        request.data.name,
        request.data.digest,
        f"APGD, {request.norm} {request.eps:.4g}, {request.steps} steps, surrogate backward pass",
        request.neighbours,
        request.reference,
        request.seed,
        versions(),
        host(),
        opener.described,
        tuple(dict.fromkeys(opener.notes)),
    )


def _figures(request: DetectRequest, attack: APGD, label: str, path: Path, opener: ClassifierOpener) -> DetectFigures:
    _, net = opener.open_in_torch(path)
    target = TorchTarget(net, request.preprocessing)
    images, labels = request.data.images, request.data.labels
    features = LidFeatures(target, images[: request.reference], neighbours=request.neighbours)
    clean, answers = images[request.reference :], labels[request.reference :]
    attack = replace(attack, eot=EOT_DRAWS) if target.is_random else attack
    result = attack.run(target, clean, answers)
    correct, fooled = result.correct.numpy(), (result.correct & result.success).numpy()
    chosen = np.flatnonzero(fooled)
    adversarial = result.adversarials.numpy().astype(np.float32)[chosen]
    train = np.random.default_rng(request.seed).random(len(clean))[chosen] < 0.5
    if min(train.sum(), (~train).sum()) < LEAST_IMAGES:
        raise InputError(
            f"the attack fooled the {label} model on {len(chosen)} of {len(clean)} images, expected at least "
            f"{LEAST_IMAGES} on either side of the split",
            hint=f"Raise the budget (--eps, now {request.eps:g}), or use more images (--limit)",
        )
    noisy = noise_like(clean[chosen], adversarial, request.seed)
    rows = np.stack([features(part) for part in (clean[chosen], noisy, adversarial)], axis=1)
    scores = fitted_scores(rows, train)
    auc, low, high = area(scores, request.seed)
    held = rows[~train]
    return DetectFigures(
        model=label,
        auc=auc,
        low=low,
        high=high,
        train_images=int(train.sum()),
        test_images=int((~train).sum()),
        fooled=len(chosen) / max(1, int(correct.sum())),
        layers=features.names,
        layer_auc=tuple(area(held[:, :, layer], request.seed)[0] for layer in range(rows.shape[2])),
    )


def noise_like(clean: Images, adversarial: Images, seed: int) -> Images:
    """Return clean images plus Gaussian noise that is as long (L2) as the adversarial perturbation, within [0, 1]."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(clean.shape).astype(np.float32)
    axes = tuple(range(1, clean.ndim))
    wanted = np.sqrt(((adversarial - clean) ** 2).sum(axis=axes, keepdims=True))
    noise *= wanted / np.sqrt((noise**2).sum(axis=axes, keepdims=True))
    for _ in range(3):  # clipping shortens it; stretch again, as far as the box allows
        moved = np.clip(clean + noise, 0, 1) - clean
        length = np.sqrt((moved**2).sum(axis=axes, keepdims=True))
        noise *= np.where(length > 0, wanted / np.maximum(length, 1e-12), 1.0)
    result: Images = np.clip(clean + noise, 0, 1).astype(np.float32)
    return result


def fitted_scores(rows: Floats, train: npt.NDArray[np.bool_]) -> Floats:
    """Fit on the training images (n, forms, layers) and return the scores of the others (m, forms)."""
    linear: Any = require("sklearn.linear_model", "attack")
    scaling: Any = require("sklearn.preprocessing", "attack")
    pipeline: Any = require("sklearn.pipeline", "attack")
    is_adversarial = np.array([False, False, True])
    # Adversarial rows are one in three: balance them, so that the intercept does not depend on the mix.
    model = pipeline.make_pipeline(
        scaling.StandardScaler(), linear.LogisticRegression(max_iter=2000, class_weight="balanced")
    )
    known = rows[train]
    model.fit(known.reshape(-1, known.shape[2]), np.tile(is_adversarial, len(known)))
    held = rows[~train]
    scores: Floats = model.decision_function(held.reshape(-1, held.shape[2])).reshape(len(held), -1)
    return scores


def area(scores: Floats, seed: int) -> tuple[float, float, float]:
    """Return the AUC of scores (m, forms), the last form being adversarial, with a 95 % interval.

    It is the wider of the bootstrap interval by image and the score interval of as many independent images.
    """
    generator = np.random.default_rng(seed)
    table = wins(scores)
    count = len(scores)
    weights = generator.multinomial(count, np.full(count, 1 / count), size=_ROUNDS) / count
    drawn = np.einsum("ri,ij,rj->r", weights, table, weights, optimize=True)
    low, high = np.quantile(drawn, [0.025, 0.975])
    found = float(table.mean())
    # At an area of 1 every resample has it: there the score interval expresses how little so few images show.
    least, most = area_interval(found, count)
    return found, min(float(low), least), max(float(high), most)


def wins(scores: Floats) -> Floats:
    """Return how the adversarial form of image i ranks among the other forms of image j, from 0 to 1 (m, m).

    Args:
        scores: (m, forms), the last form being adversarial.
    """
    result: Floats = np.mean(
        [
            (scores[:, None, -1] > scores[None, :, form]) + 0.5 * (scores[:, None, -1] == scores[None, :, form])
            for form in range(scores.shape[1] - 1)
        ],
        axis=0,
    )
    return result

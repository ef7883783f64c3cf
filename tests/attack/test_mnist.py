"""The authors' MNIST network: the paper's protocol reproduced, and what adaptive attacks make of it.

The figures for the first 400 test images were read off the authors' own code, run on a CPU.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jr_onnx.attack import (
    APGD,
    DDN,
    AttackResult,
    DeepFool,
    IteratedFGSM,
    RescaledDeepFool,
    TorchTarget,
    TrustRegion,
    kappa_sources,
)
from jr_onnx.data import load
from jr_onnx.data.images import ImageData
from tests.attack.planted import lenet
from tests.development import DataFolder

EPS = 0.4 * 0.3081
"""What 40 steps of 0.01 in normalised units can move a pixel: 0.1232 of the pixel range."""


@pytest.fixture(scope="module")
def digits(data_dir: DataFolder) -> ImageData:
    return load(f"mnist:{data_dir / 'mnist'}", limit=400)


def attack_paper(attack, target: TorchTarget, digits: ImageData, count: int = 400) -> AttackResult:
    return attack.run(target.in_units("paper"), digits.images[:count], digits.labels[:count])


def percent(share: float) -> float:
    return round(100 * share, 2)


@pytest.fixture(scope="module", autouse=True)
def _few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, 2))
    yield
    torch.set_num_threads(before)


def test_the_papers_pgd_reads_what_the_authors_code_reads(data_dir: DataFolder, digits: ImageData) -> None:
    result = attack_paper(IteratedFGSM(), lenet(data_dir, "baseline", 0.0), digits)
    # One image is 0.25 points; float rounding may tip one.
    assert percent(result.clean_accuracy) == 99.75
    assert abs(percent(result.robust_accuracy) - 65.75) <= 0.25
    # 40 steps of 0.01, each moved to the nearest value that a float32 pixel gives: by 2.4e-7 at most.
    assert float(result.distances["linf"].max()) == pytest.approx(0.4, abs=1e-5)
    assert float(result.distances["linf"].max()) <= EPS / 0.3081 + 1e-5


def test_deepfool_reads_what_the_authors_code_reads(data_dir: DataFolder, digits: ImageData) -> None:
    result = attack_paper(DeepFool(), lenet(data_dir, "baseline", 0.0), digits)
    assert percent(float(result.relative["linf"].mean())) == pytest.approx(17.68, abs=0.02)
    assert result.robust_accuracy == 0
    assert not result.nonfinite.any()


@pytest.mark.parametrize(("norm", "broken"), [("linf", 17), ("l2", 10)])
def test_deepfool_at_kappa_one_breaks_down_as_often_as_the_authors_code(
    data_dir: DataFolder, digits: ImageData, norm: str, broken: int
) -> None:
    # The authors' code turns these images into NaN and counts them as fooled; here they are failures.
    result = attack_paper(DeepFool(norm=norm), lenet(data_dir, "baseline", 1.0), digits)
    assert abs(int((result.nonfinite > 0).sum()) - broken) <= 1
    assert percent(result.robust_accuracy) == pytest.approx(broken / 4, abs=0.26)
    assert set(np.asarray(digits.labels)[:400][result.nonfinite.numpy() > 0]) == {1}


def test_a_smooth_backward_pass_unmasks_kappa_one(data_dir: DataFolder, digits: ImageData) -> None:
    target = lenet(data_dir, "baseline", 1.0)
    images, labels = digits.images[:200], digits.labels[:200]
    paper = attack_paper(IteratedFGSM(), target, digits, 200)
    assert paper.robust_accuracy >= 0.78
    adaptive = APGD(eps=EPS, backward="smooth:5").run(target, images, labels)
    assert adaptive.robust_accuracy <= 0.45
    assert float(adaptive.distances["linf"].max()) <= EPS
    # The reward for the jump is gone: the ReLU network stands the plain attack as well as this.
    relu = APGD(eps=EPS).run(target.with_kappa(0.0), images, labels)
    assert relu.robust_accuracy >= adaptive.robust_accuracy - 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checkpoint", "kappa", "clean", "pgd", "linf", "l2"),
    [
        ("baseline", 0.0, 99.3, 64.6, 17.5, 21.9),
        ("baseline", 1.0, 99.3, 81.0, None, None),
        ("robust", 0.0, 99.6, 89.6, 27.6, 31.4),
        ("robust", 1.0, 99.4, 93.1, None, None),
    ],
)
def test_the_papers_table(
    data_dir: DataFolder, checkpoint: str, kappa: float, clean: float, pgd: float, linf: float | None, l2: float | None
) -> None:
    # An independent implementation's figures for the first 1000 test images, rounded to 0.1; one image is 0.1.
    digits = load(f"mnist:{data_dir / 'mnist'}", limit=1000)
    target = lenet(data_dir, checkpoint, kappa)
    result = attack_paper(IteratedFGSM(), target, digits, 1000)
    assert percent(result.clean_accuracy) == pytest.approx(clean, abs=0.01)
    assert percent(result.robust_accuracy) == pytest.approx(pgd, abs=0.3)
    for norm, expected in (("linf", linf), ("l2", l2)):
        if expected is not None:
            found = attack_paper(DeepFool(norm=norm), target, digits, 1000)
            assert percent(float(found.relative[norm].mean())) == pytest.approx(expected, abs=0.3)


@pytest.mark.slow
def test_minimal_perturbations_shrink_under_adaptive_attacks(data_dir: DataFolder, digits: ImageData) -> None:
    target = lenet(data_dir, "baseline", 1.0)
    paper = attack_paper(DeepFool(norm="l2"), target, digits, 100).relative["l2"].mean()
    exact = attack_paper(DDN(), target, digits, 100)
    smooth = attack_paper(DDN(backward="smooth:5"), target, digits, 100)
    relu = kappa_sources(target)["kappa*0"].in_units("paper")
    rescaled = RescaledDeepFool().run(target.in_units("paper"), digits.images[:100], digits.labels[:100], source=relu)
    assert smooth.success.all()
    assert float(paper) > 0.37
    assert float(exact.relative["l2"].mean()) == pytest.approx(0.20, abs=0.02)
    assert float(smooth.relative["l2"].mean()) < 0.16
    assert float(rescaled.relative["l2"].mean()) < 0.26


@pytest.mark.slow
def test_trust_region_needs_the_papers_thousand_steps(data_dir: DataFolder, digits: ImageData) -> None:
    result = attack_paper(TrustRegion(), lenet(data_dir, "baseline", 0.0), digits, 100)
    assert float(result.relative["l2"].mean()) == pytest.approx(0.196, abs=0.015)
    short = attack_paper(TrustRegion(steps=40), lenet(data_dir, "baseline", 0.0), digits, 100)
    assert float(short.relative["l2"].mean()) < 0.016

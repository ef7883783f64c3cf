"""The judge of AutoAttack's examples, with an attack of the test's own in its place."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jr_onnx.data import ImageData, Preprocessing
from jr_onnx.rewriter import rewrite
from tests.weights.models import with_initializers
from tools.bench.autoattack import Attack, Budget, Judge, autoattack, main, show

IMAGES = np.float32([[[[0.2, 0.8]]], [[[0.3, 0.35]]], [[[0.9, 0.1]]], [[[0.6, 0.4]]]])
LABELS = np.int64([1, 1, 0, 1])  # the last one is classified wrongly without an attack


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A classifier that says which of two pixels is the larger one."""
    made = with_initializers(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 1, 1, 2] x) => (float[N, 2] logits) {
            flat = Flatten (x)
            h = Relu (flat)
            logits = Gemm (h, w)
        }""",
        w=np.eye(2, dtype=np.float32),
    )
    path = tmp_path / "pixels.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def data() -> ImageData:
    return ImageData.from_arrays(IMAGES, LABELS, name="pixels", class_names=("left", "right"))


class Fake:
    """Makes an attack that adds a constant to the images, and counts."""

    def __init__(self, change: tuple[float, float]) -> None:
        self.change, self.made, self.attacked = change, [], 0

    def __call__(self, module: nn.Module, budget: Budget, classes: int, with_square: bool) -> Attack:
        assert (budget.norm, classes) == ("linf", 2)
        self.made.append(with_square)

        def attack(pixels: Tensor, labels: Tensor) -> Tensor:
            assert torch.equal(module(pixels).argmax(1), labels)  # torch answers as ONNX Runtime
            self.attacked += len(pixels)
            return pixels + torch.tensor(self.change)

        return attack


def judged(path: Path, folder: Path, fake: Fake, eps: float = 0.1) -> list[bool]:
    judge = Judge(data(), Preprocessing(), Budget("linf", eps), ("exact", "smooth:5"), folder, batch=3, make=fake)
    right, robust = judge.judge(path)
    assert right.tolist() == [True, True, True, False]
    return robust.tolist()


def test_only_valid_examples_that_onnx_runtime_misclassifies_count(model: Path, tmp_path: Path) -> None:
    # The second image is fooled by a change of 0.1; the third would leave [0, 1] on its left if it went on.
    assert judged(model, tmp_path / "a", Fake((0.06, 0.0))) == [True, False, True, False]
    assert judged(model, tmp_path / "b", Fake((0.11, 0.0))) == [True, True, True, False]  # longer than the budget
    assert judged(model, tmp_path / "c", Fake((float("nan"), 0.0))) == [True, True, True, False]
    # The left pixel of the others would be negative.
    assert judged(model, tmp_path / "d", Fake((-0.25, 0.85)), eps=0.9) == [
        True,
        True,
        False,
        False,
    ]


def test_what_is_left_of_a_retrofit_is_attacked_with_every_derivative_and_a_run_resumes(
    model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "jump.onnx"
    rewrite(model, kappa=0.05, output=path)
    fake = Fake((0.06, 0.0))
    assert judged(path, tmp_path / "kept", fake) == [True, False, True, False]
    assert fake.made == [True, False]  # the second batch holds no image that is classified correctly
    assert fake.attacked == 3 + 2
    again = Fake((0.0, 0.0))
    assert judged(path, tmp_path / "kept", again) == [True, False, True, False]
    assert again.attacked == 0


def test_the_command_compares_files(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "data.npz"
    np.savez(source, images=np.concatenate([IMAGES] * 10), labels=np.concatenate([LABELS] * 10))
    given = [str(model), "--data", f"npz:{source}", "--eps", "0.1", "--limit", "4", "-o", str(tmp_path / "kept")]
    assert main(given, Fake((0.06, 0.0))) == 0
    told = capsys.readouterr()
    assert "pixels.onnx" in told.out
    assert "images robust" in told.err
    assert main([str(tmp_path / "none.onnx"), *given[1:]], Fake((0.0, 0.0))) != 0
    assert "error: " in capsys.readouterr().err


def test_shares_are_compared_image_by_image(capsys: pytest.CaptureFixture[str]) -> None:
    right = np.ones(40, dtype=bool)
    show([("same.onnx", right, np.arange(40) < 10), ("same.onnx", right, np.arange(40) < 30)], "title")
    told = capsys.readouterr().out
    assert "25.0%" in told
    assert "75.0%" in told
    assert "+50.0%" in told


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from jr_onnx.errors import InputError

    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(InputError, match="pip install --no-deps torchattacks"):
        autoattack(nn.Identity(), Budget("linf", 0.1), 2, True)

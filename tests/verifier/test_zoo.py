"""Real models of the development data and of the onnx package are rewritten and verified, or refused rightly.

`python -m tools.checks.zoo` does the same for all of them, the largest included, and writes docs/model-zoo.md.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.development import DataFolder
from tools.checks.zoo import Outcome, examine

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
# Minutes rather than seconds: weights of 126 MB arrive as inputs.
LEFT_TO_THE_TOOL = ("example_4700",)
TESTED_LIGHT = ("light_resnet50.onnx", "light_shufflenet.onnx", "light_squeezenet.onnx")
# ONNX's evaluator needs seconds to minutes for these; the tool runs it on all of them.
SLOW_REFERENCE = ("test_data_model", "light_", "RFB-320")
WITHOUT_SITES = ("external_data_offset", "tracel-ai_burn-onnx__clip", "thresholded_relu")
REFUSED = ("one_layer.relu_model",)
CONVERTED = ("test_ReLU_model_61153a",)

pytestmark = pytest.mark.slow


def run(path: Path, folder: Path) -> list[Outcome]:
    reference = 0 if any(word in path.name for word in SLOW_REFERENCE) else 1
    return list(examine(path, folder, samples=1, reference_samples=reference))


def test_the_models_of_the_development_data(data_dir: DataFolder) -> None:
    folder = data_dir / "onnx"
    paths = [path for path in sorted(folder.rglob("*.onnx")) if not any(word in path.name for word in LEFT_TO_THE_TOOL)]
    outcomes = {path.name: run(path, folder) for path in paths}
    assert len(outcomes) > 20
    for name, found in outcomes.items():
        statuses = [outcome.status for outcome in found]
        expected = ["verified"]
        if any(word in name for word in WITHOUT_SITES):
            expected = ["no site"]
        elif any(word in name for word in REFUSED):
            expected = ["refused"]
        elif any(word in name for word in CONVERTED):
            expected = ["refused", "verified"]
        assert statuses == expected, f"{name}: {found[-1].verdict}"


@pytest.mark.parametrize("name", TESTED_LIGHT)
def test_the_light_models_of_onnx(name: str) -> None:
    (outcome,) = run(LIGHT / name, LIGHT)
    assert outcome.status == "verified", outcome.verdict

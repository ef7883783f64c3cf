"""Real data in its publisher's format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jr_onnx.data import ImageData, load


@pytest.fixture(scope="session")
def real_cifar10(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """The test split of CIFAR-10."""
    pytest.importorskip("PIL", reason="unpacking CIFAR-10 needs Pillow")
    folder = tmp_path_factory.mktemp("real")
    unpack = [sys.executable, str(shared_dir / "unpack.py"), str(folder), "cifar10"]
    subprocess.run(unpack, check=True, capture_output=True)
    return load(f"cifar10:{folder}")

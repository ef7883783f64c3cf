"""Real data in its publisher's format."""

from __future__ import annotations

import pytest

from jr_onnx.data import ImageData, load
from tests.data.builders import unpack_cifar10
from tests.development import DataFolder


@pytest.fixture(scope="session")
def real_cifar10(data_dir: DataFolder, tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """The test split of CIFAR-10."""
    return load(unpack_cifar10(data_dir, tmp_path_factory.mktemp("real")))

"""Fixtures of the deploy tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from jr_onnx.deploy import Placement, TritonOptions, package_triton
from tests.deploy.builders import classifier, make_keys, save


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small classifier that takes batches."""
    return save(classifier(), tmp_path / "model.onnx")


@pytest.fixture
def repository(tmp_path: Path, model: Path) -> Path:
    """A repository with one package, `net/1`."""
    root = tmp_path / "repository"
    package_triton(model, root, TritonOptions(name="net"))
    return root


@pytest.fixture(scope="session")
def key_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private and a public key on P-256; a skip where the signing library is not installed."""
    pytest.importorskip("model_signing", reason="model-signing is not installed")
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def gpu_repository(tmp_path: Path, model: Path) -> Path:
    root = tmp_path / "gpu"
    package_triton(model, root, TritonOptions(name="net", placement=Placement("gpu")))
    return root

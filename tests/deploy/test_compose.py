"""The Docker Compose package: services, ports, GPUs and paths."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from jr_onnx.deploy import ComposeOptions, Publish, Resources, package_compose
from jr_onnx.errors import RefusalError


def _compose(repository: Path, target: Path, **options: Any) -> object:
    return package_compose(repository, target, ComposeOptions(**options))


def _compose_file(folder: Path) -> Any:
    return yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))


def test_replicas_stand_behind_a_balancer_on_loopback(repository: Path, tmp_path: Path) -> None:
    _compose(repository, tmp_path / "out", replicas=3, resources=Resources("500m", "512Mi"))
    document = _compose_file(tmp_path / "out")
    triton, balancer = document["services"]["triton"], document["services"]["balancer"]
    assert triton["deploy"] == {"replicas": 3, "resources": {"limits": {"cpus": "0.5", "memory": "512m"}}}
    assert "ports" not in triton
    assert triton["user"] == "1000:1000"
    assert triton["volumes"] == [{"type": "bind", "source": "../repository", "target": "/models", "read_only": True}]
    assert triton["healthcheck"]["test"][-1] == "http://127.0.0.1:8000/v2/health/ready"
    assert balancer["ports"] == ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001", "127.0.0.1:8404:8404"]
    assert balancer["depends_on"] == {"triton": {"condition": "service_healthy"}}
    for service in document["services"].values():
        image, _, tag = service["image"].rpartition(":")
        assert image
        assert tag not in ("", "latest")
        assert service["healthcheck"]["retries"] >= 1
        assert service["restart"] == "unless-stopped"
        assert set(service["networks"]) <= set(document["networks"])


def test_the_balancer_listens_where_it_is_told(repository: Path, tmp_path: Path) -> None:
    _compose(repository, tmp_path / "out", publish=Publish("::1", 9000, 9001, 9002))
    balancer = _compose_file(tmp_path / "out")["services"]["balancer"]
    assert balancer["ports"] == ["[::1]:9000:8000", "[::1]:9001:8001", "[::1]:9002:8404"]


def test_each_gpu_has_a_replica_of_its_own(gpu_repository: Path, tmp_path: Path) -> None:
    _compose(gpu_repository, tmp_path / "out", gpus=(0, 2))
    services = _compose_file(tmp_path / "out")["services"]
    assert list(services) == ["triton-gpu0", "triton-gpu2", "balancer"]
    for gpu in ("0", "2"):
        service = services[f"triton-gpu{gpu}"]
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "device_ids": [gpu], "capabilities": ["gpu"]}
        assert service["networks"]["inference"]["aliases"] == ["triton"]
    assert set(services["balancer"]["depends_on"]) == {"triton-gpu0", "triton-gpu2"}
    with pytest.raises(RefusalError, match="runs on a GPU"):
        _compose(gpu_repository, tmp_path / "none")


def test_an_odd_path_is_taken_literally(repository: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a $HOME: #x"
    odd.mkdir()
    shutil.move(repository, odd / "repository")
    _compose(odd / "repository", odd / "out")
    _compose(odd / "repository", odd / "repository-out" / "deep")
    document = _compose_file(odd / "out")
    assert document["services"]["triton"]["volumes"][0]["source"] == "../repository"
    _compose(odd / "repository", tmp_path / "out")
    document = _compose_file(tmp_path / "out")
    assert document["services"]["triton"]["volumes"][0]["source"] == "../a $$HOME: #x/repository"


def test_docker_compose_reads_the_file_where_it_is_installed(repository: Path, tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed")
    _compose(repository, tmp_path / "out")
    command = [docker, "compose", "-f", str(tmp_path / "out" / "compose.yaml"), "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == {"triton", "balancer"}

"""The load balancer's configuration: HAProxy reads it, and it agrees with the compose file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from jr_onnx.deploy import ComposeOptions, package_compose


def test_haproxy_reads_the_configuration_where_it_is_installed(repository: Path, tmp_path: Path) -> None:
    haproxy = shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")
    if haproxy is None:
        pytest.skip("haproxy is not installed")
    package_compose(repository, tmp_path / "out", ComposeOptions())
    done = subprocess.run(
        [haproxy, "-c", "-f", str(tmp_path / "out" / "haproxy.cfg")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_balancer_listens_and_checks_where_the_compose_file_says(repository: Path, tmp_path: Path) -> None:
    package_compose(repository, tmp_path / "out", ComposeOptions(request_seconds=7))
    text = (tmp_path / "out" / "haproxy.cfg").read_text(encoding="utf-8")
    assert "timeout server 7s" in text
    document = yaml.safe_load((tmp_path / "out" / "compose.yaml").read_text(encoding="utf-8"))
    for port in document["services"]["balancer"]["ports"]:
        assert f"bind :{port.rpartition(':')[2]}" in text
    assert text.count("/v2/health/ready") == 2
    assert "{" not in text.replace("if { ", "")
    mounted = document["services"]["balancer"]["volumes"][0]
    assert (tmp_path / "out" / mounted["source"]).is_file()
    arguments = document["services"]["triton"]["command"]
    assert "--http-port=8000" in arguments
    servers = [line.strip() for line in text.splitlines() if line.strip().startswith("server ")]
    assert servers[:16] == [f"server triton-{number} triton:8000" for number in range(1, 17)]
    settings = "triton:8001 proto h2 check-proto h1 port 8000"
    assert servers[16:] == [f"server triton-{number} {settings}" for number in range(1, 17)]

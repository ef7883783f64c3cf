"""`jr-onnx package triton|kserve|compose`: bring a model to an inference server."""

from __future__ import annotations

import click

from jr_onnx.cli import package_compose, package_kserve, package_triton


@click.group("package")
def command() -> None:
    """Write a package for an inference server: Triton, KServe, or Triton in Docker Compose."""


command.add_command(package_triton.command)
command.add_command(package_kserve.command)
command.add_command(package_compose.command)

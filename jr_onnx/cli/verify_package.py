"""`jr-onnx verify-package`: check that a package is what was packaged, and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from jr_onnx.cli.command import cli_command, option
from jr_onnx.cli.options import TrustArguments, trust_options
from jr_onnx.cli.output import print_row
from jr_onnx.cli.types import PATH


@dataclass(frozen=True, kw_only=True)
class Arguments(TrustArguments):
    """The arguments and options of `jr-onnx verify-package`."""

    folder: Path
    expect: tuple[str, ...]


@cli_command("verify-package", Arguments, examples=("jr-onnx verify-package repository --expect digits/1",))
@click.argument("folder", type=PATH)
@trust_options
@option("--expect", multiple=True, metavar="NAME/VERSION", help="A package that must be there. Repeatable.")
def command(given: Arguments) -> None:
    """Check every package in FOLDER against its manifest, and with --key against its signature.

    FOLDER is a model repository, a model or version in it, or what `jr-onnx package kserve` or `jr-onnx package
    compose` wrote. Exits with code 7 if a file was changed, removed, added or replaced by a link, or if a package was
    moved.
    """
    from jr_onnx.deploy.verification import expect_packages, verify

    packages = verify(given.folder, given.key, not_before=given.not_before)
    expect_packages(packages, given.expect)
    for package in packages:
        signature = (
            "signature holds" if package.signature_checked else "signed, not checked" if package.signed else "unsigned"
        )
        manifest = package.manifest
        print_row(package.label, manifest.kind, f"{len(manifest.files)} files", manifest.created, signature)

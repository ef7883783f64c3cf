"""`jr-onnx verify-package`: check that a package is what was packaged, and by whom."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from jr_onnx.cli.options import PATH, key_option, not_before_option
from jr_onnx.cli.output import tell_row


@click.command("verify-package")
@click.argument("folder", type=PATH)
@key_option
@not_before_option
@click.option("--expect", multiple=True, metavar="NAME/VERSION", help="A package that must be there; repeatable.")
def command(folder: Path, key: Path | None, not_before: datetime | None, expect: tuple[str, ...]) -> None:
    """Check every package below FOLDER against its manifest, and with --key against its signature.

    FOLDER is a model repository, a model or version in it, or what `package kserve` or `package compose` wrote.
    Leaves with exit code 7 where a file was changed, is missing, was added or is a link, or a package lies in a place
    that is not its own.
    """
    from jr_onnx.deploy.verification import expect_packages, verify

    packages = verify(folder, key, not_before=not_before)
    expect_packages(packages, expect)
    for package in packages:
        signature = (
            "signature holds" if package.signature_checked else "signed, not checked" if package.signed else "unsigned"
        )
        manifest = package.manifest
        tell_row(package.label, manifest.kind, f"{len(manifest.files)} files", manifest.created, signature)

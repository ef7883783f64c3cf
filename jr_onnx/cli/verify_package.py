"""`jr-onnx verify-package`: check that a package is what was packaged, and by whom."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("verify-package")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), help="Public key (PEM); every package must be signed with it.")
@click.option("--expect", multiple=True, metavar="NAME/VERSION", help="A package that must be there; repeatable.")
def command(folder: Path, key: Path | None, expect: tuple[str, ...]) -> None:
    """Check every package below FOLDER against its manifest, and with --key against its signature.

    FOLDER is a model repository, a model or version in it, or what `package kserve` or `package compose` wrote.
    Leaves with exit code 7 where a file was changed, is missing, was added or is a link.
    """
    from jr_onnx.deploy.manifest import expect_packages, verify

    packages = verify(folder, key)
    expect_packages(packages, expect)
    for package in packages:
        signature = (
            "signature holds" if package.signature_checked else "signed, not checked" if package.signed else "unsigned"
        )
        click.echo(f"{package.label}\t{package.manifest.kind}\t{len(package.manifest.files)} files\t{signature}")

"""Write scikit-learn's digits into the package: `python tools/training/embed_digits.py`."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

TARGET = Path(__file__).resolve().parents[2] / "jr_onnx" / "data" / "digits.npz"


def write(target: Path) -> None:
    """Write the images (1797, 8, 8) and labels (1797,) as bytes to `target`.

    Raises:
        ValueError: scikit-learn's pixels are not whole numbers from 0 to 16.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)
    if not np.array_equal(images, bunch.images) or images.max() > 16:
        raise ValueError("scikit-learn's digits are no longer whole numbers from 0 to 16")
    np.savez_compressed(target, images=images, labels=bunch.target.astype(np.uint8))


@click.command()
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False), default=TARGET)
def main(target: Path) -> None:
    """Write the embedded digits to TARGET (by default inside the package)."""
    write(target)
    click.echo(f"{target}: {target.stat().st_size} bytes", err=True)


if __name__ == "__main__":
    main()

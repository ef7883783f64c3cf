"""Reproduce the paper's Tables 1(a) and 2(a): LeNetLike on MNIST, with the authors' checkpoints.

    python -m tools.reproduce_paper --out out/reproduction --page docs/reproduction.md

The data folder holds `mnist/` and `checkpoints/LeNetLike_{baseline,robust}.pkl`. An interrupted run resumes.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from jr_onnx.attack.suite.run import Progress
from jr_onnx.errors import JrError
from tools.development import data_folder
from tools.reproduction.page import page
from tools.reproduction.runs import Measured, measure

CHECKPOINTS = ("baseline", "robust")


class _Lines:
    """Prints a line every half a minute, for a log."""

    def __init__(self, title: str) -> None:
        self.title, self.began, self.last = title, time.monotonic(), time.monotonic()
        self.first: int | None = None

    def __call__(self, state: Progress) -> None:
        """Note a finished unit."""
        self.first = state.resumed if self.first is None else max(self.first, state.resumed)
        now = time.monotonic()
        if now - self.last < 30 and state.done < state.total:
            return
        self.last = now
        fresh = state.done - state.resumed
        left = (now - self.began) / fresh * (state.total - state.done) if fresh else 0.0
        click.echo(f"{self.title}: {state.done}/{state.total} units, about {left / 60:.0f} min left", err=True)


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=data_folder,
    help="Folder with mnist/ and checkpoints/. [default: $JR_ONNX_DATA, else ../shared/data]",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/reproduction"), show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Images for all attacks but the trust region. [default: all]")
@click.option(
    "--trust-limit", type=click.IntRange(min=0), help="Images for the trust region; 0 for none. [default: all]"
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where torch computes; on CUDA without TF32.",
)
@click.option("--page", "target", type=click.Path(path_type=Path), help="Write the page there; stdout otherwise.")
def main(data: Path, out: Path, limit: int | None, trust_limit: int | None, device: str, target: Path | None) -> None:
    """Run the paper's attacks on both checkpoints, and write the page."""
    try:
        quick = {name: _measure(data, out, name, slow=False, limit=limit, device=device) for name in CHECKPOINTS}
        trust = {}
        if trust_limit != 0:
            trust = {
                name: _measure(data, out, name, slow=True, limit=trust_limit, device=device) for name in CHECKPOINTS
            }
    except JrError as error:
        raise click.ClickException(str(error)) from None
    text = page(quick, trust)
    if target is None:
        click.echo(text)
    else:
        target.write_text(text, encoding="utf-8")
        click.echo(f"{target} written", err=True)


def _measure(data: Path, out: Path, name: str, *, slow: bool, limit: int | None, device: str) -> Measured:
    title = f"{name}, {'trust region' if slow else 'quick attacks'}"
    return measure(data, out, name, slow=slow, limit=limit, notify=_Lines(title), device=device)


if __name__ == "__main__":
    main()

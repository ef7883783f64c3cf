"""Options that several commands share, so that one word means one thing wherever it is said."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jr_onnx.cli.output import say

if TYPE_CHECKING:
    from datetime import datetime

    from jr_onnx.data import ImageData, Preprocessing

_Command = TypeVar("_Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
TRITON_RELEASE = "26.08"
_LARGEST_BYTE = 255
_USUAL_LINF = "8/255"
_PICTURES = (".png", ".svg", ".pdf")


class Moment(click.ParamType["datetime"]):
    """A date or a time, in UTC where no zone is named."""

    name = "DATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse 2026-11-01 or 2026-11-01T12:00:00Z."""
        from datetime import UTC, datetime

        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r}, expected a date or a time, for instance 2026-11-01T12:00:00Z", param, ctx)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def fraction(text: str) -> float:
    """Read "8/255" or "0.03".

    Raises:
        InputError: It is neither, or not a positive finite number.
    """
    import math

    from jr_onnx.errors import InputError

    first, slash, second = text.partition("/")
    try:
        value = float(first) / float(second) if slash else float(first)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"--eps is {text!r}, expected a positive number or fraction, for instance 8/255")
    return value


def check_budget(norm: str, eps: float) -> None:
    """Refuse an L-infinity budget beyond all images, almost always meant for bytes, and say when another is tiny.

    Raises:
        InputError: The budget is more than the pixel range.
    """
    from jr_onnx.errors import InputError

    if norm == "linf" and eps > 1:
        raise InputError(
            f"the linf budget is {eps:g} in pixel scale, where an image reaches from 0 to 1",
            hint=f"For pixels from 0 to 255 give --eps {eps:g}/255" if eps <= _LARGEST_BYTE else "Give --eps below 1",
        )
    if norm != "linf" and eps == fraction(_USUAL_LINF):
        say(f"note: --eps {_USUAL_LINF} is a usual budget in linf; in {norm} it is next to nothing, for pixels add up")


def output_folder(path: Path) -> Path:
    """Return a folder to write results into, which need not exist yet.

    Raises:
        OutputError: It, or what it should lie in, is no folder.
    """
    from jr_onnx.errors import OutputError

    taken = next((item for item in (path, *path.parents) if item.exists()), None)
    if taken is not None and not taken.is_dir():
        raise OutputError(f"the results cannot go to {path}: {taken} is a file", hint="Choose another --out")
    return path


def check_outputs(*paths: Path | None, plot: Path | None = None) -> None:
    """Refuse what cannot be written, before minutes of work rather than after.

    Raises:
        MissingExtraError: A plot is wanted, and matplotlib is not installed.
        OutputError: A path is no place for a file, or the plot's ending names no picture.
    """
    from jr_onnx.errors import OutputError, require
    from jr_onnx.modelfile import refuse_target

    for path in (*paths, plot):
        if path is not None:
            refuse_target(path)
            if not os.access(path.parent, os.W_OK):
                raise OutputError(f"cannot write {path}: its folder is read-only", hint="Choose another folder")
    if plot is None:
        return
    require("matplotlib", "report")
    if plot.suffix.lower() not in _PICTURES:
        raise OutputError(f"the plot {plot} ends in {plot.suffix!r}", hint=f"Use one of {', '.join(_PICTURES)}")


def read_data(
    spec: str, preprocess: str, *, split: str = "test", limit: int | None = None
) -> tuple[ImageData, Preprocessing]:
    """Load what `--data` names as `--preprocess` wants it, and print how it was understood.

    Returns:
        The data, and the preprocessing that is left to do.

    Raises:
        DataError: One of them cannot be used.
    """
    from jr_onnx.data import Preprocessing, load

    chosen = Preprocessing.parse(preprocess)
    data = load(spec, split=split, limit=limit, preprocessing=chosen)
    for note in data.notes:
        say(f"note: {note}")
    return data, data.restored(chosen)


model_argument = click.argument("model", type=PATH)
repository_argument = click.argument("repository", type=PATH)

data_option = click.option(
    "--data",
    "spec",
    default="digits",
    show_default=True,
    help="digits, mnist:DIR, cifar10:DIR, npz:FILE, folder:DIR; npz:FILE?range=-1,1&layout=NHWC, folder:DIR?order=text",
)
preprocess_option = click.option(
    "--preprocess",
    "--preprocessing",
    "preprocess",
    default="none",
    show_default=True,
    help="What the model expects: none, mnist, cifar10, imagenet, and parts such as "
    "mean=...;std=...;range=0,255;layout=NHWC;order=BGR;size=224;resize=256.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all random numbers."
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where torch computes.",
)
fallback_option = click.option(
    "--allow-fallback", is_flag=True, help="Go on without a provider that does not work here, rather than refuse."
)
value_option = click.option(
    "--value",
    "values",
    multiple=True,
    metavar="NAME=NUMBER",
    help="Fill an input beside the images (keep_prob, is_training) with a number, true or false. Repeatable.",
)
logits_option = click.option(
    "--logits",
    default="",
    metavar="NAME",
    help="The output, or value inside the graph, that holds the scores.  [default: the one that fits the labels]",
)
shape_option = click.option("--shape", multiple=True, metavar="NAME=1,3,224,224", help="Shape of an input. Repeatable.")
poor_option = click.option(
    "--force", is_flag=True, help="Go on with a model that classifies clean images no better than by chance."
)
force_option = click.option("--force", is_flag=True, help="Replace an existing output.")
sign_option = click.option("--sign", "key", type=PATH, help="Private key (PEM) that signs the package.")
key_option = click.option("--key", type=PATH, help="Public key (PEM); every package must be signed with it.")
not_before_option = click.option(
    "--not-before", type=Moment(), help="Refuse packages made earlier, for instance 2026-11-01; needs --key."
)
release_option = click.option(
    "--triton-release", default=TRITON_RELEASE, show_default=True, help="Release that serves it."
)


def eps_option_of(default: str) -> Callable[[_Command], _Command]:
    """Return `--eps` with a default."""
    return click.option(
        "--eps",
        type=fraction,
        default=default,
        show_default=True,
        metavar="NUMBER",
        help="Budget in pixel scale [0, 1], a number or a fraction.",
    )


eps_option = eps_option_of(_USUAL_LINF)


def norm_option(*norms: str) -> Callable[[_Command], _Command]:
    """Return `--norm` for an attack that knows the given norms; the first is the default."""
    return click.option(
        "--norm", type=click.Choice(norms), default=norms[0], show_default=True, help="Norm of the attack's budget."
    )


def deployment_options(command: _Command) -> _Command:
    """Add what both deployments of a model repository ask: where to, for which release, with which resources."""
    options = (
        click.option("-o", "--output", "folder", required=True, type=PATH, help="The folder to write."),
        release_option,
        click.option("--cpus", default="2", show_default=True, help="CPU cores of a replica."),
        click.option("--memory", default="4Gi", show_default=True, help="Memory of a replica."),
        click.option(
            "--load-seconds", type=int, default=120, show_default=True, help="Time the models may take to load."
        ),
        click.option("--force", is_flag=True, help="Replace an older package of this kind."),
        click.option(
            "--key", "public_key", type=PATH, help="Public key (PEM); every package of the repository must be signed."
        ),
        not_before_option,
        sign_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def warn_unless_checked(values: Mapping[str, Any]) -> None:
    """Say that a deployment was signed whose models nobody's signature was asked for."""
    if values["key"] is not None and values["public_key"] is None:
        say("note: this deployment is signed, but the signatures of its models were not checked; --key does that")

"""Options that several commands share, so that one word means one thing wherever it is said."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jr_onnx.cli.command import option, renamed_option
from jr_onnx.cli.output import print_lines, print_message
from jr_onnx.cli.types import INTEGER, PATH, Budget, Count, DateOrTime, NamedNumber, NamedShape, by_name

if TYPE_CHECKING:
    from jr_onnx.data import ImageData, Preprocessing
    from jr_onnx.deploy.deployment import Deployed
    from jr_onnx.kappa import KappaPlan
    from jr_onnx.semantics import SiteKappa

_Command = TypeVar("_Command", bound=Callable[..., Any])

TRITON_RELEASE = "26.08"
_LARGEST_BYTE = 255
_USUAL_LINF = 8 / 255
_PICTURES = (".png", ".svg", ".pdf")


def together(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Return one decorator that adds several options, in their order."""
    return lambda command: functools.reduce(lambda made, option: option(made), reversed(options), command)


def check_budget(norm: str, eps: float) -> None:
    """Refuse an L-infinity budget larger than the pixel range, and warn about a tiny one in another norm.

    Raises:
        InputError: The budget is more than the pixel range.
    """
    from jr_onnx.errors import InputError

    if norm == "linf" and eps > 1:
        raise InputError(
            f"the linf budget is {eps:g} in pixel scale, where an image reaches from 0 to 1",
            hint=f"For pixels from 0 to 255 give --eps {eps:g}/255" if eps <= _LARGEST_BYTE else "Give --eps below 1",
        )
    if norm != "linf" and eps == _USUAL_LINF:
        print_message(
            f"note: --eps 8/255 is a usual budget in linf; in {norm}, which sums over the pixels, it is next to nothing"
        )


def output_folder(path: Path, option: str = "--output") -> Path:
    """Return a folder for results, which need not exist yet.

    Raises:
        OutputError: It, or a folder above it, is a file.
    """
    from jr_onnx.errors import OutputError

    taken = next((item for item in (path, *path.parents) if item.exists()), None)
    if taken is not None and not taken.is_dir():
        raise OutputError(f"the results cannot go to {path}: {taken} is a file", hint=f"Choose another {option}")
    return path


def check_outputs(*paths: Path | None, plot: Path | None = None) -> None:
    """Refuse outputs that cannot be written, before minutes of work rather than after.

    Raises:
        MissingExtraError: A plot is wanted, and matplotlib is not installed.
        OutputError: A path cannot be written, or the plot has an unknown file extension.
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


model_argument = click.argument("model", type=PATH)
repository_argument = click.argument("repository", type=PATH)
seed_option = option("--seed", type=Count(min=0), default=0, help="Random seed.")
device_option = option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where torch computes."
)
fallback_option = option(
    "--allow-fallback", is_flag=True, help="Continue without a provider that does not work here, with a warning."
)
value_option = option(
    "--value",
    "values",
    type=NamedNumber(),
    multiple=True,
    callback=by_name,
    help="Value of an input besides the images (keep_prob, is_training): a number, true or false. Repeatable.",
)
logits_option = option(
    "--logits",
    default="",
    metavar="NAME",
    show_default="the one that fits the labels",
    help="The output, or value inside the graph, that holds the scores.",
)
preprocess_option = option(
    "--preprocess",
    "--preprocessing",
    "preprocess",
    default="none",
    metavar="WORDS",
    help="What the model expects: none, mnist, cifar10, imagenet, and parts such as "
    "mean=...;std=...;range=0,255;layout=NHWC;order=BGR;size=224;resize=256.",
)
shape_option = option(
    "--shape", type=NamedShape(), multiple=True, callback=by_name, help="Whole shape of an input. Repeatable."
)
kappa_option = option("--kappa", type=float, help="The threshold of every site; MODEL is then an original.")
external_data_option = option(
    "--external-data",
    type=click.Choice(["auto", "copy", "hardlink", "reference"]),
    default="auto",
    help="How external data reach another folder; auto shares blocks where the file system can, and otherwise copies.",
)
result_option = option("--result", type=PATH, help="Also write the result as JSON, for jr-onnx report.")
dry_run_option = option("--dry-run", is_flag=True, help="Write nothing.")
diff_option = option("--diff", is_flag=True, help="Print a unified diff of the nodes.")
force_option = option("--force", is_flag=True, help="Replace an existing output.")
sign_option = option("--sign", "sign_key", type=PATH, help="Private key (PEM) to sign the package with.")
release_option = option(
    "--triton-release", default=TRITON_RELEASE, metavar="YY.MM", help="Triton release that will serve it."
)


def output_option(what: str, *, default: str = "", required: bool = False) -> Callable[[_Command], _Command]:
    """Return `-o/--output`, which names what a command writes.

    Args:
        what: What is written, such as "The model to write."
        default: Where it goes without the option, in words; "" where nothing is written then.
        required: Whether the option must be given.
    """
    return option("-o", "--output", type=PATH, required=required, show_default=default or None, help=what)


def eps_option(default: str = "8/255") -> Callable[[_Command], _Command]:
    """Return `--eps` with a default."""
    return option("--eps", type=Budget(), default=default, help="Budget in pixel scale [0, 1], a number or a fraction.")


def norm_option(*norms: str) -> Callable[[_Command], _Command]:
    """Return `--norm` for an attack that has the given norms; the first is the default."""
    return option("--norm", type=click.Choice(norms), default=norms[0], help="Norm of the budget.")


def provider_option(*providers: str, what: str = "Where ONNX Runtime computes.") -> Callable[[_Command], _Command]:
    """Return `--provider` for a command that computes on one of the given providers; the first is the default."""
    return option("--provider", type=click.Choice(providers), default=providers[0], help=what)


@dataclass(frozen=True, kw_only=True)
class DataArguments:
    """What `labelled_data_options` adds: labelled images, and how they reach the model.

    Attributes:
        data: A data set's name, as `jr_onnx.data.load` takes it.
        preprocess: What the model expects of pixels, as `jr_onnx.data.Preprocessing` takes it.
        values: The numbers that fill the inputs besides the images, by name.
        logits: The output or value that holds the scores; "" to find it by the labels.
        allow_poor_accuracy: Continue where clean images are classified no better than by chance.
    """

    data: str
    preprocess: str
    values: Mapping[str, float]
    logits: str
    allow_poor_accuracy: bool

    def read(
        self, *, split: str = "test", limit: int | None = None, allow_unlabelled: bool = False
    ) -> tuple[ImageData, Preprocessing]:
        """Load the data as the model wants them, and print how they were understood.

        Returns:
            The data, and the preprocessing that is left to do.

        Raises:
            DataError: The data or the preprocessing cannot be used.
        """
        from jr_onnx.data import Preprocessing, load

        chosen = Preprocessing.parse(self.preprocess)
        data = load(self.data, split=split, limit=limit, preprocessing=chosen, allow_unlabelled=allow_unlabelled)
        for note in data.notes:
            print_message(f"note: {note}")
        return data, data.restored(chosen)


labelled_data_options = together(
    option(
        "--data",
        default="digits",
        metavar="SOURCE",
        help="digits, mnist:DIR, cifar10:DIR, npz:FILE, folder:DIR; details follow a question mark, such as "
        "npz:FILE?range=-1,1&layout=NHWC or folder:DIR?order=text.",
    ),
    preprocess_option,
    value_option,
    logits_option,
    option(
        "--allow-poor-accuracy", is_flag=True, help="Continue with a model that classifies no better than by chance."
    ),
)
data_options = together(labelled_data_options, renamed_option("--force", "--allow-poor-accuracy", is_flag=True))


@dataclass(frozen=True, kw_only=True)
class KappaArguments:
    """What `kappa_options` adds: the kappa of a retrofit.

    Attributes:
        kappa: For every site that the map does not name.
        kappa_map: File that maps sites to kappas.
        random: Range that kappa is drawn from for every forward pass; None for a fixed one.
    """

    kappa: float | None
    kappa_map: Path | None
    random: tuple[float, float] | None

    @property
    def plan(self) -> KappaPlan | None:
        """The plan, None where none of the options was given.

        Raises:
            KappaError: The options contradict each other, or the map cannot be read.
        """
        from jr_onnx.kappa import KappaPlan, RandomKappa

        by_site = self.by_site
        if self.kappa is None and not by_site and self.random is None:
            return None
        if self.random is None:
            return KappaPlan(self.kappa, by_site)
        drawn = KappaPlan.of(RandomKappa(*self.random))
        return KappaPlan(self.kappa, by_site, drawn.random, drawn.input_name)

    @property
    def by_site(self) -> tuple[tuple[str, SiteKappa], ...]:
        """The entries of the map.

        Raises:
            KappaError: It cannot be read.
        """
        from jr_onnx.kappa import read_kappa_map

        return tuple(read_kappa_map(self.kappa_map).items()) if self.kappa_map is not None else ()


kappa_options = together(
    option("--kappa", type=float, help="The threshold: z passes a site where z > kappa. 0 is ReLU."),
    option(
        "--kappa-map",
        type=PATH,
        metavar="FILE",
        help="JSON or YAML file with a kappa for each site id or regular expression: a number, or a list of one per "
        "channel. Other sites get --kappa, or stay ReLUs.",
    ),
    option(
        "--random",
        nargs=2,
        type=float,
        metavar="LOW HIGH",
        help="Draw kappa from U[LOW, HIGH] for every forward pass (paper, appendix C).",
    ),
)


@dataclass(frozen=True, kw_only=True)
class TrustArguments:
    """What `trust_options` adds: which packages are trusted.

    Attributes:
        key: Public key that every package must be signed with.
        not_before: The earliest time at which a package may have been made.
    """

    key: Path | None
    not_before: datetime | None


trust_options = together(
    option("--key", type=PATH, help="Public key (PEM) that every package must be signed with."),
    option("--not-before", type=DateOrTime(), help="Refuse packages made earlier, such as 2026-11-01; needs --key."),
)


@dataclass(frozen=True, kw_only=True)
class DeploymentArguments(TrustArguments):
    """What `deployment_options` adds: where a deployment is written, for which release, with which resources."""

    repository: Path
    output: Path
    triton_release: str
    cpus: str
    memory: str
    load_seconds: int
    force: bool
    sign_key: Path | None

    def show(self, deployed: Deployed) -> None:
        """Print what was written; warn if it is signed, and the signatures of its models were not checked."""
        for path in deployed.files:
            print_lines(str(path))
        if self.sign_key is not None and self.key is None:
            print_message(
                "note: this deployment is signed, but the signatures of its models were not checked; --key does that"
            )


deployment_options = together(
    repository_argument,
    output_option("The folder to write.", required=True),
    release_option,
    option("--cpus", default="2", metavar="NUMBER", help="CPU cores of a replica."),
    option("--memory", default="4Gi", metavar="SIZE", help="Memory of a replica."),
    option("--load-seconds", type=INTEGER, default=120, help="Time the models may take to load."),
    option("--force", is_flag=True, help="Replace an existing package of this kind."),
    trust_options,
    sign_option,
)

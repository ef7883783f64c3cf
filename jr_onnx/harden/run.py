"""From a model file to a hardened one: open and prove it, train it, write it, prove it again."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from jr_onnx import provenance
from jr_onnx._version import __version__
from jr_onnx.attack.classifier.accuracy import Clean, sample_of
from jr_onnx.attack.classifier.opener import ClassifierOpener
from jr_onnx.attack.classifier.request import ClassifierRequest
from jr_onnx.attack.classifier.served import ServedClassifier
from jr_onnx.data import ImageData
from jr_onnx.errors import DataError, InputError, KappaError, RefusalError, VerificationError
from jr_onnx.evaluation.scores import predictions
from jr_onnx.harden.network import TrainedNetwork
from jr_onnx.harden.recipe import Recipe
from jr_onnx.harden.record import Hardening, HardenResult, earlier_result
from jr_onnx.harden.state import StateFile, TrainingState
from jr_onnx.harden.trainer import Trainer, TrainingOutcome, TrainingProgress
from jr_onnx.harden.validation import Validation
from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile import ModelFile
from jr_onnx.modelfile import load as load_file
from jr_onnx.records import dumps
from jr_onnx.rewriter import rewrite
from jr_onnx.rewriter.api import output_path
from jr_onnx.semantics import SiteKappa, is_jump
from jr_onnx.torchnet import OnnxModule
from jr_onnx.torchnet import load as load_torch
from jr_onnx.weights import Weight, find_weights, save_weights
from jr_onnx.weights.find import has_quantised_weights

SUFFIX = ".hardened.onnx"


@dataclass(frozen=True, kw_only=True)
class HardenRequest(ClassifierRequest):
    """What the caller wants.

    Attributes:
        recipe: How to train.
        train: Images to train on; `data` are the validation images, which decide which epoch was the best.
        output: Where to write; None for `<name>.hardened.onnx` beside the model.
        labels_from: data, or model to train on the model's own answers.
        only: Regular expressions; a weight is trained if one of them is found in its name. Empty: all.
        freeze: Regular expressions; a weight in whose name one is found stays.
        bfloat16: Compute products in bfloat16 on a GPU.
        replace: Replace an existing output.
        restart: Forget the state of an earlier run.
    """

    recipe: Recipe
    train: ImageData
    output: Path | None = None
    labels_from: Literal["data", "model"] = "data"
    only: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    bfloat16: bool = True
    replace: bool = False
    restart: bool = False


def harden(request: HardenRequest, notify: Callable[[TrainingProgress], None] = lambda _: None) -> HardenResult:
    """Train a model file against attacks, and write it with the trained weights and nothing else changed.

    With a kappa the trained file is retrofitted with it, so that the result is the network that was trained.

    Args:
        request: What to do.
        notify: Called after every step and every epoch.

    Raises:
        InputError: Options, model and data do not fit together; nothing to train is left.
        DataError: Clean images are classified no better than by chance, or labels do not fit.
        RefusalError: The model is quantised, random or a retrofit, or the loss was no number from the start.
        UnsupportedOpsError: torch cannot evaluate the model.
        VerificationError: torch computes something else than ONNX Runtime, before or after.
        OutputError: The output cannot be written.
    """
    source = load_file(request.model)
    path = output_path(source, request.output, force=True, suffix=SUFFIX)
    earlier = _earlier(source, path, request)
    weights = _chosen(source, request)
    if request.labels_from == "model":
        request = replace(
            request, train=answered_by_model(request, request.train), data=answered_by_model(request, request.data)
        )
    opening = request.opener()
    served, trusted = opening.open_in_torch(request.model)
    if trusted.draws or served.random:
        raise RefusalError(f"{request.model.name} draws random numbers, so its gradients are noise to a training")
    _require_scores(request, served)
    network = _network(request, trusted, weights)
    if request.recipe.kappa:
        _require_classifier(request, network)
    run = _digest(request, source, weights)
    if earlier is not None:
        output_path(source, path, force=earlier.run == run)  # refuses to replace the result of another run
        opening.notes.append(f"{path.name} is the result of this very run, and was not trained again")
        return _proved(path, opening, earlier)
    outcome, surrogate, state = _train(request, network, path, run, notify)
    hardening = Hardening(
        version=__version__,
        source_name=source.name,
        source_sha256=source.sha256,
        recipe=request.recipe,
        data=request.train.name,
        data_sha256=request.train.digest,
        labels=request.labels_from,
        trained=tuple(item.name for item in weights if item.name in network.net.weights()),
        surrogate=surrogate,
        rows=outcome.rows,
        best=outcome.best,
        stopped=outcome.stopped,
        kappas=network.learned or (dict(network.net.kappas) if request.recipe.kappa else {}),
        run=run,
    )
    _write(request, network.net, hardening, path)
    try:
        found = _proved(path, opening, hardening)
    except VerificationError:
        path.unlink()
        raise
    state.remove()
    return found


def _train(
    request: HardenRequest, network: TrainedNetwork, path: Path, run: str, notify: Callable[[TrainingProgress], None]
) -> tuple[TrainingOutcome, str, StateFile[TrainingState]]:
    """Train, or resume the training of this run.

    Returns:
        What training did, the name of the backward pass through the jump ("" without one), and the state to remove
        once the result is written.
    """
    surrogate = ""
    if request.recipe.kappa:
        _, surrogate = Validation(request.data, request.recipe, network.net.device).strongest_surrogate(network)
    state: StateFile[TrainingState] = StateFile(path.with_name(f".{path.name}.training"), f"{run} {surrogate}")
    if request.restart:
        state.remove()
    if request.recipe.learn_kappa != "no":
        network.learn_kappas(request.train.images[:1] if request.recipe.learn_kappa == "per-channel" else None)
    if request.recipe.learn_kappa == "per-channel":
        _try_kappas(request, network.learned)
    try:
        outcome = Trainer(network, request.recipe, request.train, request.data, state).run(notify)
    except RefusalError:  # to resume would fail again, and the state would only stand in the way of other options
        state.remove()
        raise
    return outcome, surrogate, state


def default_output(model: Path) -> Path:
    """Return where the result goes unless a path is given."""
    return output_path(load_file(model), None, force=True, suffix=SUFFIX)


def _earlier(source: ModelFile, path: Path, request: HardenRequest) -> Hardening | None:
    """Return what the output says of its training, if the same recipe made it of the same model; None to train.

    Raises:
        OutputError: Something else stands there, and is not to be replaced.
    """
    if path.exists() and not (request.replace or request.restart):
        earlier = earlier_result(path)
        if earlier is not None and (earlier.source_sha256, earlier.recipe) == (source.sha256, request.recipe):
            return earlier
    output_path(source, path, force=request.replace)
    return None


def _proved(path: Path, opening: ClassifierOpener, hardening: Hardening) -> HardenResult:
    """Return the result, once the file is proved on real images to compute in ONNX Runtime what torch computes."""
    replace(opening, notes=[], force=True).open(path)
    return HardenResult(str(path), hardening, tuple(dict.fromkeys([*opening.notes, *_remarks(hardening)])))


def _chosen(source: ModelFile, request: HardenRequest) -> list[Weight]:
    """Return the weights to train.

    Raises:
        RefusalError: The model is a retrofit or quantised.
        InputError: No weight is left.
    """
    name = request.model.name
    if provenance.read(source.proto) is not None:
        raise RefusalError(
            f"{name} is a retrofit, and hardening begins with an original",
            hint=f"Run jr-onnx restore {name} first; --kappa hardens with the jump",
        )
    if has_quantised_weights(source.proto):
        raise RefusalError(
            f"{name} is quantised, and whole numbers cannot be trained",
            hint="Harden the float model, and quantise the result",
        )
    known = find_weights(source.proto)
    if not any(not item.is_statistic for item in known):
        raise InputError(f"{name} has no weights that could be trained: no Conv, Gemm, MatMul or normalisation has any")
    statistics = request.recipe.batch_statistics
    if statistics and not any(item.is_statistic for item in known):
        raise InputError(
            f"{name} has no means and variances of BatchNormalization, which exporters fold into the convolutions",
            hint="Leave --batch-statistics out",
        )
    chosen = [item for item in known if (statistics or not item.is_statistic) and _is_wanted(item, request)]
    if not any(not item.is_statistic for item in chosen):
        names = ", ".join(item.name for item in known[:3])
        raise InputError(
            f"--train and --freeze leave none of the {len(known)} weights of {name} to train",
            hint=f"Its weights are {names}, ...",
        )
    return [item for item in chosen if not item.same_as]


def _is_wanted(weight: Weight, request: HardenRequest) -> bool:
    for pattern in (*request.only, *request.freeze):
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:  # OverflowError: a{99999999999}
            raise InputError(f"{pattern!r} is not a valid regular expression: {error}") from None
    if any(re.search(pattern, weight.name) for pattern in request.freeze):
        return False
    return weight.is_statistic or not request.only or any(re.search(pattern, weight.name) for pattern in request.only)


def _require_scores(request: HardenRequest, served: ServedClassifier) -> None:
    """Refuse labels that the model has no score for.

    Raises:
        DataError: There is one.
    """
    classes = max(2, served.logits(request.data.images[:1]).shape[1])
    top = int(request.train.labels.max())
    if top >= classes:
        raise DataError(
            f"{request.train.name} has the label {top}, and {request.model.name} gives {classes} scores",
            hint="Check that the labels are numbered as the model's outputs are, from 0",
        )


def _require_classifier(request: HardenRequest, network: TrainedNetwork) -> None:
    """Refuse a kappa that leaves no classifier to begin with.

    Raises:
        DataError: With the jump the model classifies clean images no better than by chance.
    """
    sample = sample_of(request.data)
    with torch.no_grad():
        logits = network(torch.from_numpy(sample.images).to(network.net.device))
    found = Clean.of(predictions(logits.cpu().numpy()), sample)
    if found.is_chance and not request.force:
        raise DataError(
            f"with the jump at kappa {request.recipe.kappa:g} {request.model.name} classifies {found.accuracy:.0%} of "
            f"{len(sample)} clean images correctly, where guessing gives {found.chance:.0%}",
            hint="Lower --kappa, or continue with --allow-poor-accuracy",
        )


def answered_by_model(request: ClassifierRequest, data: ImageData) -> ImageData:
    """Return the images that the model of a request gives an answer for, with its answers as their labels.

    Raises:
        InputError: No value, or several, can be the scores.
        DataError: The images do not fit the model's input, or it gives no answer for any.
    """
    # The labels that the images have do not matter here, so neither does that the model may be at chance on them.
    served, _ = replace(request, data=data, force=True).opener(black_box=True).open(request.model)
    answers = np.concatenate([predictions(served.logits(images)) for images, _ in data.batches()])
    kept = np.flatnonzero(answers >= 0)
    if not len(kept):
        raise DataError(f"{served.path.name} gives no answer for any image of {data.name}")
    count = max(int(answers.max()) + 1, len(data.class_names))
    names = data.class_names if count == len(data.class_names) else tuple(map(str, range(count)))
    labels = np.maximum(answers, 0).astype(np.int64)
    return replace(data, labels=labels, class_names=names, labelled=True).take(kept)


def _network(request: HardenRequest, trusted: OnnxModule, weights: Sequence[Weight]) -> TrainedNetwork:
    """Load the model again with its weights as parameters, narrow ones in float32."""
    narrow = trusted.dtype in (torch.float16, torch.bfloat16)
    net = load_torch(
        request.model,
        device=trusted.device,
        dtype=torch.float32 if narrow else None,
        output=trusted.output_name,
        input_shape=trusted.input_shape,
        values=request.values,
        trainable=[item.name for item in weights],
    )
    net.set_offset(trusted.offset)
    parameters = dict(net.named_parameters())
    for item in weights:
        if item.is_statistic and item.name in parameters:
            parameters[item.name].requires_grad_(False)
    if not any(item.requires_grad for item in parameters.values()):
        raise InputError(f"none of the chosen weights of {request.model.name} leads to the scores")
    if request.recipe.kappa is not None:
        if not net.sites:
            raise InputError(f"{request.model.name} has no site for a jump", hint="Leave --kappa out")
        net.set_kappa(request.recipe.kappa)
    return TrainedNetwork(net, request.preprocessing, bfloat16=request.bfloat16)


def _try_kappas(request: HardenRequest, kappas: Mapping[str, SiteKappa]) -> None:
    """Rewrite the original with the first kappas, so that a file that cannot hold them is refused before training.

    Raises:
        KappaError: A site takes one number alone, for instance in the body of a function.
    """
    with tempfile.TemporaryDirectory(prefix="jr-onnx-harden-") as folder:
        try:
            rewrite(request.model, KappaPlan(by_site=tuple(kappas.items())), output=Path(folder) / request.model.name)
        except KappaError as error:
            raise KappaError(error.message, hint="Use --learn-kappa per-site") from None


def _digest(request: HardenRequest, source: ModelFile, weights: Sequence[Weight]) -> str:
    """Return a digest of everything that decides the trained weights."""
    parts = [
        __version__, dumps(request.recipe, indent=None), source.sha256, ",".join(item.name for item in weights),
        request.train.digest, request.data.digest, dumps(request.preprocessing, indent=None), request.labels_from,
        repr(sorted(request.values.items())), request.logits,
    ]  # fmt: skip
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _write(request: HardenRequest, net: OnnxModule, hardening: Hardening, path: Path) -> None:
    """Write the result: the trained weights, and where it was trained with jumps, these."""
    metadata = {provenance.HARDENED_KEY: hardening.as_metadata()}
    jumps = {site: kappa for site, kappa in hardening.kappas.items() if is_jump(kappa)}
    if not jumps:
        save_weights(request.model, net, path, force=request.replace, metadata=metadata)
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".hardening-") as folder:
        trained = save_weights(request.model, net, Path(folder) / request.model.name, metadata=metadata)
        rewrite(trained, KappaPlan(by_site=tuple(jumps.items())), output=path, force=request.replace)


def _remarks(hardening: Hardening) -> list[str]:
    before, best = hardening.rows[0], hardening.rows[hardening.best]
    found = [f"the training ended early: {hardening.stopped}"] if hardening.stopped else []
    if hardening.rows[-1].budget < 1:
        found.append(
            f"warning: the network could follow a growing budget only to {hardening.rows[-1].budget:.0%} of "
            f"{hardening.recipe.eps:.4g}: train longer (--epochs), on more images, or against a smaller --eps"
        )
    if best.robust <= before.robust:
        found.append(
            f"warning: on validation images the model was not harder to fool after training ({best.robust:.1%}) than "
            f"before ({before.robust:.1%}): train longer, or with another --rate"
        )
    return found

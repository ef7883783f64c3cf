"""Prepare an evaluation from the request: model, data, kappa. The checks before any attack are here.

The retrofit is written to a file first, because that file is what will be served and what adversarial examples are
replayed on; then both files become torch modules, each proved to compute what ONNX Runtime computes on real images.
A model that torch cannot evaluate leaves the black-box attacks, which need ONNX Runtime alone.
"""

from __future__ import annotations

import datetime
import json
import tempfile
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from jr_onnx.attack import accelerator
from jr_onnx.attack.classifier.opener import device_of
from jr_onnx.attack.classifier.request import ClassifierRequest
from jr_onnx.attack.inputs import require_classes
from jr_onnx.attack.norms import Norm
from jr_onnx.attack.suite.contender import Contender
from jr_onnx.attack.suite.plan import Entry, PaperSettings, SuiteName, SuiteOptions, suite
from jr_onnx.attack.suite.run import BLOCK, EvaluationJob, Shard
from jr_onnx.attack.torch_target import TorchTarget
from jr_onnx.errors import InputError, OutputError
from jr_onnx.evaluation.store import RunRecord, Store, digest, host, versions
from jr_onnx.evaluation.summary import MODEL, ORIGINAL, RETROFIT
from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile import load as load_model
from jr_onnx.provenance import Provenance
from jr_onnx.records import dumps
from jr_onnx.rewriter.pair import open_pair
from jr_onnx.runtime.providers import CPU, full_name, require_providers
from jr_onnx.semantics import SiteKappa

BATCH = 256
"""Samples in memory at once, on a CPU."""


@dataclass(frozen=True, kw_only=True)
class AttackRequest(ClassifierRequest):
    """What the caller wants.

    Attributes:
        plan: kappa for an original, to be compared with its retrofit; None to attack an original alone, or for a
            retrofit, which is compared with its original.
        suite: Which attacks.
        norm: Norm of the budget.
        eps: Budget, in pixel scale.
        out: Folder for results.
        seed: Random seed.
        batch: Samples in memory at once; by default 256, and 10,000 on CUDA.
        shard: Which part of the blocks to do.
        transfer_from: Further source kappas.
        paper: The authors' numbers.
        keep: Whether to save adversarial examples.
        block: Samples in a unit of work, the step in which a run can be resumed and cut into shards; by default 100,
            and 5,000 on CUDA.
        black_box: Only attacks that need ONNX Runtime alone.
        replay_provider: Where ONNX Runtime evaluates every adversarial example again: cpu or cuda. The figures are
            those of that run.
        command: The command line, for the record; "" where there is none.
    """

    plan: KappaPlan | None
    suite: SuiteName
    norm: Norm
    eps: float
    out: Path
    seed: int = 0
    batch: int | None = None
    shard: Shard = field(default_factory=Shard)
    transfer_from: tuple[float, ...] = ()
    paper: PaperSettings = field(default_factory=PaperSettings)
    keep: bool = False
    block: int | None = None
    black_box: bool = False
    replay_provider: str = "cpu"
    command: str = ""


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to go.

    Attributes:
        work: What to do.
        record: What is being run, for the store.
        notes: What the reader of the results should know.
    """

    work: EvaluationJob
    record: RunRecord
    notes: tuple[str, ...]


def prepare(request: AttackRequest) -> PreparedRun:
    """Write the retrofit, open both models, prove parity, make the suite.

    Raises:
        InputError: Model, data and options do not fit together.
        VerificationError: A torch module does not compute what ONNX Runtime computes.
    """
    files, digests, provenance = _files(request)
    sites = () if provenance is None else provenance.sites
    kappas = {site.id: site.kappa for site in sites}
    random = provenance is not None and provenance.plan.random is not None
    chosen = {RETROFIT} if random else set()
    return prepare_files(request, files, digests, dict.fromkeys(files, kappas), random=chosen)


def prepare_files(
    request: AttackRequest,
    files: Mapping[str, Path],
    digests: Mapping[str, str],
    kappas: Mapping[str, Mapping[str, SiteKappa]],
    *,
    random: Set[str] = frozenset(),
    same_weights: bool = True,
) -> PreparedRun:
    """Open any number of files, the first of which says where the scores are, prove parity, make the suite.

    Args:
        request: What the caller wants; its model and plan are ignored.
        files: Label -> file.
        digests: Label -> SHA-256 of the file.
        kappas: Label -> site id -> the kappa that multiples of kappa refer to.
        random: Labels of the files whose kappa is drawn at run time.
        same_weights: Whether the files differ in their jumps alone, so that what they have in common is computed once.

    Raises:
        InputError: Models, data and options do not fit together.
        VerificationError: A torch module does not compute what ONNX Runtime computes.
    """
    require_providers([full_name(request.replay_provider)], may_fall_back=False)
    device = device_of(request.device)
    request = _sized(request, device)
    opener = request.opener(
        batch=min(request.batch or BATCH, BATCH), black_box=request.black_box, replay_provider=request.replay_provider
    )
    notes = opener.notes
    contenders = []
    for label, path in files.items():
        served, net = opener.open(path, random=label in random)
        target = TorchTarget(net, request.preprocessing) if net is not None else None
        own = dict(kappas[label])
        if label == MODEL and net is not None:
            own = {name: site.kappa for name, site in net.jumps.items()}
        contenders.append(Contender(label, served, target, own, digests[label], "" if same_weights else label))
    is_random = any(item.served.random for item in contenders)
    if is_random and any(item.target is None for item in contenders):
        notes.append("no averaged gradient could be computed, so robust accuracies are upper bounds: do not quote them")
    entries = _entries(request, contenders, random=is_random)
    _check_shard(request)
    if MODEL in files:
        notes.append(f"no kappa is given, so {request.model.name} itself is attacked, not a retrofit of it")
    elif RETROFIT in files and not kappas[RETROFIT]:
        notes.append("the retrofit has no site, so both models are the same network")
    work = EvaluationJob(
        entries,
        contenders,
        request.data.images,
        request.data.labels,
        request.batch or BATCH,
        request.shard,
        request.keep,
        request.block or BLOCK,
    )
    found = tuple(dict.fromkeys(notes))
    record = _run_record(request, entries, contenders, dict(kappas.get(RETROFIT, {})), device)
    return PreparedRun(work, replace(record, logits=opener.described, notes=found), found)


def _sized(request: AttackRequest, device: torch.device) -> AttackRequest:
    """Return the request with sizes that suit the device: a GPU wants many samples at once."""
    apart = accelerator.runs_apart(device)
    batch = request.batch or (accelerator.BATCH if apart else BATCH)
    return replace(request, batch=batch, block=request.block or (accelerator.BLOCK if apart else BLOCK))


def _files(request: AttackRequest) -> tuple[dict[str, Path], dict[str, str], Provenance | None]:
    """Return the original and the retrofit, their SHA-256s, and the retrofit's provenance.

    Without a kappa an original is alone.

    The model that does not exist yet is made in the output folder. It is made beside its place first: a folder that
    holds another run must not lose the model that run was about.
    """
    pair = open_pair(request.model, request.plan)
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {request.out}: {error.strerror}", hint="Choose another --output") from None
    with tempfile.TemporaryDirectory(dir=request.out, prefix=".making-") as folder:
        original, retrofit = pair.save(Path(folder))
        files = {MODEL: original} if retrofit is None else {ORIGINAL: original, RETROFIT: retrofit}
        digests = {label: load_model(path).sha256 for label, path in files.items() if path != request.model}
        digests |= {label: pair.given.sha256 for label, path in files.items() if path == request.model}
        Store(request.out).refuse_other_models(digests)
        for path in Path(folder).iterdir():
            path.replace(request.out / path.name)
    made = {label: path if path == request.model else request.out / path.name for label, path in files.items()}
    return made, digests, pair.record


def _entries(request: AttackRequest, contenders: list[Contender], *, random: bool) -> list[Entry]:
    gradients = all(item.target is not None for item in contenders)
    classes = contenders[0].served.logits(request.data.images[:1]).shape[1]
    require_classes(classes)
    options = SuiteOptions(
        request.norm,
        request.eps,
        request.seed,
        random=random,
        transfer_from=request.transfer_from,
        paper=request.paper,
        classes=classes,
        jumps=RETROFIT in {item.label for item in contenders} or any(item.sources for item in contenders),
    )
    entries = suite(request.suite, options, gradients=gradients)
    if not entries:
        raise InputError(
            f"the suite {request.suite} has no attack that works without gradients in {request.norm}",
            hint="Use --norm linf or --norm l2",
        )
    return entries


def _check_shard(request: AttackRequest) -> None:
    block = request.block or BLOCK
    blocks = -(-len(request.data) // block)
    if request.shard.number > blocks:
        raise InputError(
            f"shard {request.shard.number}/{request.shard.of} has nothing to do: {len(request.data)} samples make "
            f"{blocks} block{'s' if blocks > 1 else ''} of {block}",
            hint="Use fewer shards",
        )


def _run_record(
    request: AttackRequest,
    entries: list[Entry],
    contenders: list[Contender],
    kappas: dict[str, SiteKappa],
    device: torch.device,
) -> RunRecord:
    data = request.data
    options: dict[str, Any] = {
        "transfer_from": list(request.transfer_from),
        "paper": asdict(request.paper),
        "keep": request.keep,
        "values": dict(request.values),
        "classes": list(data.class_names),
    }
    if full_name(request.replay_provider) != CPU:
        options["replay_provider"] = full_name(request.replay_provider)
    return RunRecord(
        suite=request.suite,
        entries=tuple(entry.name for entry in entries),
        models={item.label: item.sha256 for item in contenders},
        kappas=kappas,
        data=data.name,
        data_sha256=digest([data.images, data.labels]),
        samples=len(data.labels),
        block=request.block or BLOCK,
        norm=request.norm,
        eps=request.eps,
        seed=request.seed,
        preprocessing=dumps(request.preprocessing, indent=None),
        options=json.dumps(options, sort_keys=True),
        versions=versions(),
        host=host(),
        device=accelerator.named(device),
        files={item.label: item.served.path.name for item in contenders},
        command=request.command,
        date=datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
    )

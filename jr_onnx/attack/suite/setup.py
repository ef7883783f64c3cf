"""Prepare an evaluation from what a person gives: model, data, kappa. The gate before any attack is here.

The retrofit is written to a file first, because that file is what will be served and what adversarial examples are
replayed on; then both files become torch modules, each proved to compute what ONNX Runtime computes on real images.
A model that torch cannot evaluate leaves the black-box attacks, which need ONNX Runtime alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from jr_onnx import provenance
from jr_onnx.attack.norms import Norm
from jr_onnx.attack.suite.contender import Contender, ServedModel, torch_target
from jr_onnx.attack.suite.plan import Entry, PaperSettings, SuiteName, SuiteOptions, suite
from jr_onnx.attack.suite.run import BLOCK, Shard, Work
from jr_onnx.attack.suite.store import RunRecord, digest, host, versions
from jr_onnx.attack.suite.summary import ORIGINAL, RETROFIT
from jr_onnx.data import ImageData, Preprocessing
from jr_onnx.errors import InputError, UnsupportedOpsError
from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile import load as load_file
from jr_onnx.records import dumps
from jr_onnx.rewrite import restore, rewrite
from jr_onnx.torchnet import load as load_torch
from jr_onnx.torchnet.module import OnnxModule
from jr_onnx.torchnet.parity import check_parity

PARITY_SAMPLES = 64


@dataclass(frozen=True)
class Request:
    """What the caller wants.

    Attributes:
        model: An original (with `plan`) or a retrofit.
        plan: kappa for an original.
        data: Labelled images.
        suite: Which attacks.
        norm: Norm of the budget.
        eps: Budget, in pixel scale.
        out: Folder for results.
        preprocessing: What the model expects of pixels.
        seed: Of all random numbers.
        device: Where torch computes: auto, cpu, cuda.
        batch: Samples in memory at once.
        shard: Which part of the blocks to do.
        transfer_from: Further source kappas.
        paper: The authors' numbers.
        keep: Whether to save adversarial examples.
        block: Samples in a unit of work, the step in which a run can be resumed and cut into shards.
    """

    model: Path
    plan: KappaPlan | None
    data: ImageData
    suite: SuiteName
    norm: Norm
    eps: float
    out: Path
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    seed: int = 0
    device: str = "auto"
    batch: int = 256
    shard: Shard = field(default_factory=Shard)
    transfer_from: tuple[float, ...] = ()
    paper: PaperSettings = field(default_factory=PaperSettings)
    keep: bool = False
    block: int = BLOCK


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to go.

    Attributes:
        work: What to do.
        record: What is being run, for the store.
        notes: What the reader of the results should know.
    """

    work: Work
    record: RunRecord
    notes: tuple[str, ...]


def prepare(request: Request) -> Prepared:
    """Write the retrofit, open both models, prove parity, make the suite.

    Raises:
        InputError: Model, data and options do not fit together.
        VerificationError: A torch module does not compute what ONNX Runtime computes.
    """
    original, retrofit = _files(request)
    record = provenance.read(load_file(retrofit).proto)
    if record is None:
        raise InputError(f"{retrofit} is no retrofit of jr-onnx", hint="Give the original model and --kappa")
    kappas = {site.id: site.kappa for site in record.sites}
    random = record.plan.random is not None
    notes: list[str] = []
    device = _device(request.device)
    images = request.data.images
    contenders = []
    for label, path in ((ORIGINAL, original), (RETROFIT, retrofit)):
        drawn = random and label == RETROFIT
        served = ServedModel(path, request.preprocessing, images.shape[1:], random=drawn, batch=request.batch)
        net = _module(path, device, request, notes)
        target = torch_target(net, request.preprocessing, None) if net is not None else None
        contenders.append(Contender(label, served, target, kappas, load_file(path).sha256))
    entries = _entries(request, contenders, random=random)
    work = Work(
        entries, contenders, images, request.data.labels, request.batch, request.shard, request.keep, request.block
    )
    return Prepared(work, _run_record(request, entries, contenders, kappas, device), tuple(dict.fromkeys(notes)))


def _files(request: Request) -> tuple[Path, Path]:
    """Return the original and the retrofit; the one that is missing is made in the output folder."""
    request.out.mkdir(parents=True, exist_ok=True)
    if provenance.read(load_file(request.model).proto) is not None:
        if request.plan is not None:
            raise InputError(
                f"{request.model.name} is a retrofit, so its kappa is given",
                hint="Leave --kappa out, or give the original",
            )
        return Path(restore(request.model, request.out / "original.onnx", force=True)), request.model
    if request.plan is None:
        raise InputError(f"{request.model.name} is no retrofit, so a kappa is needed", hint="Give --kappa")
    path, _ = rewrite(request.model, request.plan, output=request.out / "retrofit.jr.onnx", force=True)
    return request.model, Path(path)


def _module(path: Path, device: torch.device, request: Request, notes: list[str]) -> OnnxModule | None:
    shape = request.data.images.shape
    try:
        net = load_torch(path, device=device)
    except UnsupportedOpsError as error:
        notes.append(f"{error.message}; only black-box attacks are run")
        return None
    notes.extend(net.notes)
    sample = request.preprocessing.apply(request.data.images[:PARITY_SAMPLES])
    wanted = [size if size is not None else -1 for size in net.input_shape[1:]]
    if len(wanted) != len(shape) - 1:
        sample = np.ascontiguousarray(sample.reshape(len(sample), *wanted))
    report = check_parity(net, path, sample)
    notes.extend(report.notes)
    return net


def _entries(request: Request, contenders: list[Contender], *, random: bool) -> list[Entry]:
    gradients = all(item.target is not None for item in contenders)
    classes = len(request.data.class_names)
    options = SuiteOptions(
        request.norm,
        request.eps,
        request.seed,
        random=random,
        transfer_from=request.transfer_from,
        paper=request.paper,
        classes=classes,
    )
    entries = suite(request.suite, options, gradients=gradients)
    if not entries:
        raise InputError(
            f"the suite {request.suite} has no attack that works without gradients in {request.norm}",
            hint="Use --norm linf or --norm l2",
        )
    return entries


def _device(wish: str) -> torch.device:
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wish == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda was asked for, and torch sees no GPU", hint="Use --device cpu")
    return torch.device(wish)


def _run_record(
    request: Request,
    entries: list[Entry],
    contenders: list[Contender],
    kappas: dict[str, float],
    device: torch.device,
) -> RunRecord:
    data = request.data
    options = {
        "transfer_from": list(request.transfer_from),
        "paper": asdict(request.paper),
        "keep": request.keep,
    }
    return RunRecord(
        suite=request.suite,
        entries=tuple(entry.name for entry in entries),
        models={item.label: item.sha256 for item in contenders},
        kappas=kappas,
        data=data.name,
        data_sha256=digest([data.images, data.labels]),
        samples=len(data.labels),
        block=request.block,
        norm=request.norm,
        eps=request.eps,
        seed=request.seed,
        preprocessing=dumps(request.preprocessing, indent=None),
        options=json.dumps(options, sort_keys=True),
        versions=versions(),
        host=host(),
        device=str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
    )

"""Prepare an evaluation from what a person gives: model, data, kappa. The gate before any attack is here.

The retrofit is written to a file first, because that file is what will be served and what adversarial examples are
replayed on; then both files become torch modules, each proved to compute what ONNX Runtime computes on real images.
A model that torch cannot evaluate leaves the black-box attacks, which need ONNX Runtime alone.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from jr_onnx import provenance
from jr_onnx.attack.inputs import require_classes
from jr_onnx.attack.norms import Norm
from jr_onnx.attack.suite.contender import Contender, ServedModel, torch_target
from jr_onnx.attack.suite.plan import Entry, PaperSettings, SuiteName, SuiteOptions, suite
from jr_onnx.attack.suite.run import BLOCK, Shard, Work
from jr_onnx.data import FurtherInputs, ImageData, InputAdapter, Preprocessing
from jr_onnx.errors import InputError, OutputError, UnsupportedOpsError
from jr_onnx.evaluation.store import RunRecord, Store, digest, host, versions
from jr_onnx.evaluation.summary import ORIGINAL, RETROFIT
from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile import load as load_file
from jr_onnx.records import dumps
from jr_onnx.rewrite import restore, rewrite
from jr_onnx.torchnet import load as load_torch
from jr_onnx.torchnet.module import OnnxModule
from jr_onnx.torchnet.parity import check_parity
from jr_onnx.torchnet.source import read as read_source
from jr_onnx.torchnet.source import required_inputs

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
        black_box: Only attacks that need ONNX Runtime alone.
        values: The numbers that fill the model's further inputs, by name.
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
    black_box: bool = False
    values: Mapping[str, float] = field(default_factory=dict)


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
    device = device_of(request.device)
    shape = request.data.shape
    contenders = []
    for label, path in ((ORIGINAL, original), (RETROFIT, retrofit)):
        served = ServedModel(
            path,
            request.preprocessing,
            shape,
            random=random and label == RETROFIT,
            batch=request.batch,
            values=request.values,
        )  # first: it says what is wrong with images that do not fit
        net = _module(path, device, request, notes)
        if net is not None:
            served.choose_output(net.output_name)
        target = torch_target(net, request.preprocessing, None) if net is not None else None
        contenders.append(Contender(label, served, target, kappas, load_file(path).sha256))
    entries = _entries(request, contenders, random=random)
    _check_shard(request)
    if not kappas:
        notes.append("the retrofit has no site, so both models are the same network")
    work = Work(
        entries, contenders, request.data.images, request.data.labels, request.batch, request.shard, request.keep,
        request.block,
    )  # fmt: skip
    return Prepared(work, _run_record(request, entries, contenders, kappas, device), tuple(dict.fromkeys(notes)))


def _files(request: Request) -> tuple[Path, Path]:
    """Return the original and the retrofit; the one that is missing is made in the output folder.

    It is made beside its place first: a folder that holds another run must not lose the model that run was about.
    """
    is_retrofit = provenance.read(load_file(request.model).proto) is not None
    if is_retrofit and request.plan is not None:
        raise InputError(
            f"{request.model.name} is a retrofit, so its kappa is given",
            hint="Leave --kappa out, or give the original",
        )
    plan = request.plan
    if not is_retrofit and plan is None:
        raise InputError(
            f"{request.model.name} is no retrofit, so a kappa is needed", hint="Give --kappa, --kappa-map or --random"
        )
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {request.out}: {error.strerror}", hint="Choose another --out") from None
    made = request.out / ("original.onnx" if is_retrofit else "retrofit.jr.onnx")
    with tempfile.TemporaryDirectory(dir=request.out, prefix=".making-") as folder:
        trial = Path(folder) / made.name
        if plan is None:
            restore(request.model, trial, force=True)
            digests = {ORIGINAL: load_file(trial).sha256, RETROFIT: load_file(request.model).sha256}
        else:
            rewrite(request.model, plan, output=trial, force=True)
            digests = {ORIGINAL: load_file(request.model).sha256, RETROFIT: load_file(trial).sha256}
        Store(request.out).refuse_other_models(digests)
        for path in Path(folder).iterdir():
            path.replace(request.out / path.name)
    return (made, request.model) if is_retrofit else (request.model, made)


def _module(path: Path, device: torch.device, request: Request, notes: list[str]) -> OnnxModule | None:
    if request.black_box:
        return None
    try:
        net = trusted_module(path, device, request.preprocessing, request.data, request.values)
    except UnsupportedOpsError as error:
        notes.append(f"{error.message}; only black-box attacks are run")
        return None
    notes.extend(net.notes)
    return net


def trusted_module(
    path: Path,
    device: torch.device,
    preprocessing: Preprocessing,
    data: ImageData,
    values: Mapping[str, float] | None = None,
) -> OnnxModule:
    """Return a model file as a torch module that is proved to compute what ONNX Runtime computes on real images.

    Args:
        path: The file.
        device: Where to compute.
        preprocessing: What the model expects of pixels.
        data: The images, whose sizes the free axes of the model's input get.
        values: The numbers that fill the model's further inputs.

    Raises:
        InputError: A further input has no value.
        DataError: The images do not fit the model's input.
        UnsupportedOpsError: The model has operators that torch cannot evaluate; the error lists all of them.
        VerificationError: The module computes something else.
    """
    original = read_source(path).model  # a retrofit may have an input more, for its kappa
    entry = FurtherInputs(required_inputs(original), values or {}).image
    batch, *axes = entry.shape or (None,)
    free = entry if entry.shape is None else replace(entry, shape=(None, *axes))
    adapter = InputAdapter(free, data.shape, preprocessing)
    shape = (batch if isinstance(batch, int) else None, *adapter.sample_shape)
    net = load_torch(path, device=device, input_shape=shape, values=values)
    sample = adapter.to_model(data.images[:PARITY_SAMPLES])
    check_parity(net, path, sample)
    return net


def _entries(request: Request, contenders: list[Contender], *, random: bool) -> list[Entry]:
    gradients = all(item.target is not None for item in contenders)
    target = contenders[0].target
    network: Any = target.model if target is not None else None  # `Shaped`, which passes the module's names on
    classes = network.num_classes if network is not None else len(request.data.class_names)
    require_classes(classes)
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


def _check_shard(request: Request) -> None:
    blocks = -(-len(request.data) // request.block)
    if request.shard.number > blocks:
        raise InputError(
            f"shard {request.shard.number}/{request.shard.of} has nothing to do: {len(request.data)} samples make "
            f"{blocks} block{'s' if blocks > 1 else ''} of {request.block}",
            hint="Use fewer shards",
        )


def device_of(wish: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda".

    Raises:
        InputError: There is no such device.
    """
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
        "values": dict(request.values),
        "classes": list(data.class_names),
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

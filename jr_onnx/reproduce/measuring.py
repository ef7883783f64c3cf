"""Attack a checkpoint with given entries at given kappas; finished units lie on the disk, so a run resumes and shards.

OUT/runs/<checkpoint>/<study>-<samples>/    a folder as `jr-onnx attack` makes it (`evaluation.store`)
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jr_onnx.attack import accelerator
from jr_onnx.attack.classifier.opener import ClassifierOpener, device_of
from jr_onnx.attack.suite.contender import Contender
from jr_onnx.attack.suite.plan import Entry
from jr_onnx.attack.suite.run import EvaluationJob, Progress, Shard, run, spec_of
from jr_onnx.attack.torch_target import TorchTarget
from jr_onnx.data import ImageData
from jr_onnx.data import load as load_data
from jr_onnx.errors import InputError
from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.store import RunRecord, Store, host, merged, versions
from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile import load as load_file
from jr_onnx.records import dumps
from jr_onnx.reproduce.networks import Checkpoint
from jr_onnx.reproduce.result import Cell, ItemResult, Layout
from jr_onnx.rewriter import rewrite

BLOCK, BATCH = 100, 250
Notify = Callable[[str, Progress], None]


def _ignore(title: str, state: Progress) -> None:
    """Do nothing."""


class UnfinishedError(Exception):
    """Other shards still have units to do, so an item cannot be summed up yet."""


@dataclass
class Bench:
    """What all items share.

    Attributes:
        out: Folder of results.
        specs: Kind of data (mnist, cifar10) -> specification.
        limit: At most so many images for everything; None for all.
        deepfool_limit: The same for the paper's DeepFool, whose steps take the gradients of all classes.
        trust_limit: The same for the paper's trust region, whose 1000 steps take long.
        adaptive_limit: The same for attacks that adapt, for sweeps, matrices and the detector; 0 leaves the adaptive
            columns of tables 1 and 2 unmeasured.
        eot_limit: The same for gradients averaged over random kappas, which take many passes each; `adaptive_limit`
            holds for them too.
        attacks: Of pgd, df, df2, tr.
        device: auto, cpu or cuda.
        shard: Which blocks to do.
        notify: Told after every unit.
        command: The command line, for the records.
    """

    out: Path
    specs: Mapping[str, str]
    limit: int | None = None
    deepfool_limit: int | None = None
    trust_limit: int = 1000
    adaptive_limit: int = 500
    eot_limit: int = 100
    attacks: tuple[str, ...] = ("pgd", "df", "df2", "tr")
    device: str = "auto"
    shard: Shard = field(default_factory=Shard)
    notify: Notify = _ignore
    command: str = ""
    _data: dict[tuple[str, int | None], ImageData] = field(default_factory=dict)
    found: dict[Path, Measured] = field(default_factory=dict, repr=False)
    """Studies that this run has looked at already, by folder: opening models takes longer than reading results."""
    _opened: dict[tuple[object, ...], tuple[ClassifierOpener, list[Contender]]] = field(default_factory=dict)

    def data(self, kind: str, limit: int | None) -> ImageData:
        """Return the first test images of a kind of data.

        Raises:
            InputError: No --data names it.
        """
        if kind not in self.specs:
            raise InputError(f"no {kind} images were given", hint=f"Add --data {kind}:DIR")
        if (kind, limit) not in self._data:
            self._data[kind, limit] = load_data(self.specs[kind], limit=limit)
        return self._data[kind, limit]

    def opened(
        self, checkpoint: Checkpoint, plans: Mapping[str, KappaPlan | None], data: ImageData, folder: Path
    ) -> tuple[ClassifierOpener, list[Contender]]:
        """Return a network at each of several kappas, proved on the images; files made for it go to `folder`.

        Studies of the same images share them: the proof alone takes a minute for a large network.
        """
        key = (checkpoint.path, *plans.items(), checkpoint.network.data, len(data))
        if key not in self._opened:
            opener = ClassifierOpener(
                data=data, preprocessing=checkpoint.network.preprocessing, device=device_of(self.device), batch=BATCH
            )
            contenders = [_contender(opener, checkpoint, label, plan, folder) for label, plan in plans.items()]
            self._opened[key] = opener, contenders
        return self._opened[key]

    def at_most(self, count: int) -> int:
        """Return a number of images, which `limit` may lower."""
        return count if self.limit is None else min(count, self.limit)

    def images_for(self, attack: str) -> int | None:
        """Return how many images one of the paper's attacks gets; None for all."""
        most = {"df": self.deepfool_limit, "df2": self.deepfool_limit, "tr": self.trust_limit}.get(attack)
        return self.limit if most is None else self.at_most(most)

    def result(self, item: str, title: str, layout: Layout, columns: Sequence[str], cells: Sequence[Cell],
               notes: Sequence[str], used: Sequence[Checkpoint]) -> ItemResult:  # fmt: skip
        """Return an item's record with what a reader needs to repeat it."""
        return ItemResult(
            item, title, layout, tuple(columns), tuple(cells), (*notes, *self._kept_back(used)),
            {item.path.name: load_file(item.path).sha256 for item in used},
            {item.path.name: item.source or "unknown: there is no card beside the file" for item in used},
            self.command, datetime.datetime.now(tz=datetime.UTC).date().isoformat(), versions(), host(),
            accelerator.named(device_of(self.device)),
        )  # fmt: skip

    def _kept_back(self, used: Sequence[Checkpoint]) -> list[str]:
        """Return a note for data without training images, whose test images are shared with validation."""
        kinds = {item.network.data for item in used}
        names = {
            data.name
            for (kind, _), data in self._data.items()
            if kind in kinds and not np.array_equal(data.indices, np.arange(len(data)))
        }
        return [
            f"the images are those of {name} that are not kept for validation, since there are no training images"
            for name in sorted(names)
        ]


@dataclass(frozen=True)
class Measured:
    """What a study found.

    Attributes:
        outcomes: Setting -> entry -> outcome.
        contenders: Setting -> the model.
        folder: Where the adversarial examples are, if they were kept.
        data: The images.
    """

    outcomes: Mapping[str, Mapping[str, Outcome]]
    contenders: Mapping[str, Contender]
    folder: Path
    data: ImageData

    def adversarials(self, setting: str, entry: str) -> npt.NDArray[np.float32]:
        """Return the adversarial examples (N, C, H, W) of one entry, pixels, in the order of the data."""
        found = np.array(self.data.images, dtype=np.float32)
        for outcome, images in Store(self.folder).adversarials():
            if (outcome.model, outcome.entry) == (setting, entry):
                found[list(outcome.indices)] = images
        return found


def measure(
    bench: Bench,
    checkpoint: Checkpoint,
    study: str,
    plans: Mapping[str, KappaPlan | None],
    entries: Sequence[Entry],
    *,
    limit: int | None,
    keep: bool = False,
) -> Measured:
    """Attack a checkpoint at each of several kappas, or resume doing so.

    Args:
        bench: What all items share.
        checkpoint: The network.
        study: Name of the folder.
        plans: Setting -> kappa; None is the ReLU network itself.
        entries: The attacks.
        limit: At most so many test images.
        keep: Whether to keep adversarial examples.

    Raises:
        UnfinishedError: This shard is done, and others are not.
    """
    network, data = checkpoint.network, bench.data(checkpoint.network.data, limit)
    folder = bench.out / "runs" / checkpoint.name / f"{study}-{len(data)}"
    if folder in bench.found:
        return bench.found[folder]
    folder.mkdir(parents=True, exist_ok=True)
    device = device_of(bench.device)
    apart = accelerator.runs_apart(device)
    batch, block = (accelerator.BATCH, accelerator.BLOCK) if apart else (BATCH, BLOCK)
    opener, contenders = bench.opened(checkpoint, plans, data, folder)
    work = EvaluationJob(list(entries), contenders, data.images, data.labels, batch, bench.shard, keep, block)
    options = {"keep": keep, "attacks": {entry.name: spec_of(entry) for entry in entries},
               "kappas": {label: None if plan is None else dumps(plan, indent=None) for label, plan in plans.items()}}  # fmt: skip # noqa: E501
    record = RunRecord(
        suite="reproduce", entries=tuple(entry.name for entry in entries),
        models={item.label: item.sha256 for item in contenders}, kappas={}, data=data.name, data_sha256=data.digest,
        samples=len(data), block=block, norm="linf", eps=network.eps, seed=0,
        preprocessing=dumps(network.preprocessing, indent=None), options=json.dumps(options, sort_keys=True),
        versions=versions(), host=host(), device=accelerator.named(device), logits=opener.described,
        notes=tuple(opener.notes),
    )  # fmt: skip
    store = Store(folder)
    store.open(record)
    run(work, store, lambda state: bench.notify(f"{checkpoint.name}, {study}", state))
    _, outcomes = merged([folder])
    finished = [len(found) for parts in outcomes.values() for found in parts.values()]
    if len(finished) < len(plans) * len(entries) or any(count < len(data) for count in finished):
        raise UnfinishedError(f"{checkpoint.name}, {study}")
    bench.found[folder] = Measured(outcomes, {item.label: item for item in contenders}, folder, data)
    return bench.found[folder]


def _contender(
    opener: ClassifierOpener, checkpoint: Checkpoint, label: str, plan: KappaPlan | None, folder: Path
) -> Contender:
    path, kappas, random = checkpoint.path, {}, plan is not None and plan.random is not None
    if plan is not None:
        path = folder / f"{label.replace(' ', '-')}.onnx"
        rewrite(checkpoint.path, plan, output=path, force=True)
    served, net = opener.open(path, random=random)
    if net is None:
        raise InputError(f"torch cannot evaluate {checkpoint.path.name}, so there are no gradients to attack with")
    target = TorchTarget(net, opener.preprocessing)
    if plan is not None and plan.kappa is not None:
        kappas = dict.fromkeys(net.sites, plan.kappa)
    return Contender(label, served, target, kappas, load_file(path).sha256)

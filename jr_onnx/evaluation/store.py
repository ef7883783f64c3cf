"""Where an evaluation keeps its results while it runs: one small file per finished unit of work.

    OUT/run.json                      what is being run: models, data, suite, seed, versions, hardware
    OUT/units/<unit>.json             outcome of one entry on one model and one block of samples
    OUT/adversarial/<unit>.npz        its adversarial examples, on request
    OUT/evaluation.json               the summary, written when all units are there
    OUT/examples.json, examples.npz   a few images with their adversarial examples, for the report

A unit's file appears whole or not at all, so a run can be killed at any time and resumed. Another shard
of the same run writes the units of its own blocks; folders of several shards are merged by reading them together.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from jr_onnx._version import __version__
from jr_onnx.element_types import Array
from jr_onnx.errors import InputError, OutputError
from jr_onnx.evaluation.examples import ExampleSet, ExampleTable
from jr_onnx.evaluation.outcome import Outcome, merge
from jr_onnx.modelfile import atomic_path, atomic_write
from jr_onnx.records import Record, dumps, load_file
from jr_onnx.semantics import SiteKappa

_RUN = "run.json"
_MAY_DIFFER = ("versions", "host", "device", "notes", "files", "command", "date")
_UNITS = "units"
_ADVERSARIAL = "adversarial"
_EXAMPLES = "examples"


@dataclass(frozen=True, slots=True)
class RunRecord(Record):
    """What is being run; two folders belong to one run when all but those of `_MAY_DIFFER` agree.

    Attributes:
        suite: Name of the suite.
        entries: Names of its entries, in order.
        models: Label -> SHA-256 of the model file.
        kappas: Site id -> kappa of the retrofit, or one for each channel.
        data: Name of the data.
        data_sha256: Digest of the images and labels.
        samples: How many samples.
        block: Samples in a unit.
        norm: Norm of the budget.
        eps: Budget, in pixel scale.
        seed: Random seed.
        preprocessing: What stands between pixels and the network, as JSON text.
        options: Further options that change results, as JSON text.
        versions: Package -> version.
        host: Machine and processor.
        device: Where torch computed.
        logits: Which value was used as the logits, for people.
        notes: What the reader of the results should know.
        files: Label -> name of the model file.
        command: The command line.
        date: When the run began, ISO.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.attack_run/1"
    suite: str
    entries: tuple[str, ...]
    models: dict[str, str]
    kappas: dict[str, SiteKappa]
    data: str
    data_sha256: str
    samples: int
    block: int
    norm: str
    eps: float
    seed: int
    preprocessing: str
    options: str
    versions: dict[str, str]
    host: str
    device: str
    logits: str = ""
    notes: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    command: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        """Refuse a run of nothing.

        Raises:
            InputError: There is no model, entry or sample, or an entry appears twice.
        """
        for what, count in (("entries", len(self.entries)), ("models", len(self.models)), ("samples", self.samples)):
            if count < 1:
                raise InputError(f"a run has {count} {what}, expected at least 1")
        if len(set(self.entries)) < len(self.entries):
            raise InputError("a run names an entry twice")

    def same_run(self, other: RunRecord) -> str | None:
        """Return the name of the first field that makes this another run, None where it is the same."""
        for item in dataclasses.fields(self):
            if item.name in _MAY_DIFFER:
                continue
            if getattr(self, item.name) != getattr(other, item.name):
                return item.name
        return None


def versions() -> dict[str, str]:
    """Return the versions that results may depend on."""
    from importlib import metadata

    found = {"jr-onnx": __version__, "python": platform.python_version()}
    for name in ("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def host() -> str:
    """Return the machine and its processor as text."""
    model = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return f"{platform.system()} {platform.machine()}, {match.group(1).strip() if match else model}"


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run, or of a shard."""
    return (folder / _RUN).is_file()


class Store:
    """The folder of one run, or of one shard of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, record: RunRecord) -> None:
        """Create the folder, or resume the run in it.

        Raises:
            OutputError: It holds another run, or cannot be written.
        """
        path = self.folder / _RUN
        if path.exists():
            earlier = load_file(RunRecord, path)
            field = earlier.same_run(record)
            if field is not None:
                raise self._another(field, getattr(earlier, field), getattr(record, field))
            return
        try:
            (self.folder / _UNITS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {self.folder}: {error.strerror}", hint="Choose another --output") from None
        atomic_write(path, [dumps(record).encode()])

    def refuse_other_models(self, models: Mapping[str, str]) -> None:
        """Check, before any model file is put into the folder, that it holds no run about other models.

        Args:
            models: Label -> SHA-256 of the model file.

        Raises:
            OutputError: It holds a run about other models.
        """
        path = self.folder / _RUN
        if path.exists() and (earlier := load_file(RunRecord, path)).models != dict(models):
            raise self._another("models", earlier.models, dict(models))

    def _another(self, field: str, was: object, now: object) -> OutputError:
        hint = "Choose another --output, or remove the folder"
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            names = dict.fromkeys(str(key) for key in (*now, *was) if was.get(key) != now.get(key))
            return OutputError(f"{self.folder} holds another run: its {' and '.join(names)} is another file", hint=hint)
        if field == "options":
            field, was, now = _first_difference(str(was), str(now))
        return OutputError(
            f"{self.folder} holds another run: its {field} is {_short(was)}, now {_short(now)}",
            hint=hint,
        )

    def record(self) -> RunRecord:
        """Return what is being run.

        Raises:
            InputError: The folder holds no run.
        """
        path = self.folder / _RUN
        if not path.exists():
            raise InputError(f"{self.folder} holds no evaluation", hint="jr-onnx attack --output makes one")
        return load_file(RunRecord, path)

    def has(self, unit: str) -> bool:
        """Return whether a unit is finished."""
        return self._unit_path(unit).exists()

    def put(self, unit: str, outcome: Outcome, adversarials: npt.NDArray[np.float32] | None) -> None:
        """Save a finished unit; its outcome last, so that a unit that exists is complete."""
        if adversarials is not None:
            path = self.folder / _ADVERSARIAL / f"{_file_name(unit)}.npz"
            path.parent.mkdir(exist_ok=True)
            with atomic_path(path) as temporary, temporary.open("wb") as stream:
                np.savez_compressed(
                    stream,
                    images=adversarials,
                    labels=np.asarray(outcome.labels, dtype=np.int64),
                    indices=np.asarray(outcome.indices, dtype=np.int64),
                )
        atomic_write(self._unit_path(unit), [dumps(outcome, indent=None).encode()])

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes of all finished units."""
        return [load_file(Outcome, path) for path in sorted((self.folder / _UNITS).glob("*.json"))]

    def adversarials(self) -> Iterator[tuple[Outcome, npt.NDArray[np.float32]]]:
        """Yield the outcome of every finished unit whose adversarial examples were kept, with these (N, C, H, W).

        Raises:
            InputError: A file of examples cannot be read.
        """
        for path in sorted((self.folder / _UNITS).glob("*.json")):
            examples = self.folder / _ADVERSARIAL / f"{path.stem}.npz"
            if not examples.exists():
                continue
            yield load_file(Outcome, path), _images(examples, "images")["images"]

    def put_examples(self, found: ExampleSet) -> None:
        """Save the images that a report shows; their table last, so that examples with a table are complete."""
        path = self.folder / f"{_EXAMPLES}.npz"
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, clean=found.clean, adversarial=found.adversarial)
        atomic_write(self.folder / f"{_EXAMPLES}.json", [dumps(found.table).encode()])

    def examples(self) -> ExampleSet | None:
        """Return the images that a report shows; None in a folder that has none, as those of older versions.

        Raises:
            InputError: Their files cannot be read, or do not belong together.
        """
        path = self.folder / f"{_EXAMPLES}.json"
        if not path.exists():
            return None
        images = _images(self.folder / f"{_EXAMPLES}.npz", "clean", "adversarial")
        return ExampleSet(load_file(ExampleTable, path), images["clean"], images["adversarial"])

    def _unit_path(self, unit: str) -> Path:
        return self.folder / _UNITS / f"{_file_name(unit)}.json"


def merged(folders: Sequence[Path]) -> tuple[RunRecord, dict[str, dict[str, Outcome]]]:
    """Read the folders of one run's shards together.

    Returns:
        The run, and model label -> entry -> outcome on all samples that are finished for that entry.

    Raises:
        InputError: A folder holds no run, or another one; a unit lies in two folders.
    """
    places = [folder.resolve() for folder in folders]
    twice = next((folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise InputError(f"the folder {twice} is given twice, expected every shard once")
    stores = [Store(folder) for folder in folders]
    records = [store.record() for store in stores]
    for folder, record in zip(folders[1:], records[1:], strict=True):
        field = records[0].same_run(record)
        if field is not None:
            raise InputError(f"{folder} holds another run than {folders[0]}: their {field} differs")
    parts: dict[str, dict[str, list[Outcome]]] = {}
    for outcome in (item for store in stores for item in store.outcomes()):
        parts.setdefault(outcome.model, {}).setdefault(outcome.entry, []).append(outcome)
    return records[0], {
        model: {entry: merge(entries[entry]) for entry in records[0].entries if entry in entries}
        for model, entries in parts.items()
    }


def by_run(folders: Sequence[Path]) -> list[list[Path]]:
    """Sort folders into runs: shards of one run together, in the order in which the runs appear.

    Raises:
        InputError: A folder holds no run.
    """
    found: list[tuple[RunRecord, list[Path]]] = []
    for folder in folders:
        record = Store(folder).record()
        shards = next((shards for known, shards in found if known.same_run(record) is None), None)
        if shards is None:
            found.append((record, [folder]))
        else:
            shards.append(folder)
    return [shards for _, shards in found]


def unit_name(model: str, entry: str, start: int) -> str:
    """Name the unit of one entry on one model and the block of samples from `start` on."""
    return f"{model}/{entry}/{start}"


def digest(arrays: Iterable[Array]) -> str:
    """Return the SHA-256 of arrays, their shapes and types included."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(json.dumps([list(array.shape), str(array.dtype)]).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _file_name(unit: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9._=*-]+", "-", unit)[:80]
    return f"{readable}.{hashlib.sha256(unit.encode()).hexdigest()[:10]}"


def _images(path: Path, *names: str) -> dict[str, npt.NDArray[np.float32]]:
    """Read arrays of images from a file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: np.asarray(content[name], dtype=np.float32) for name in names}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"cannot read the adversarial examples {path}: {error}") from None


def _first_difference(was: str, now: str) -> tuple[str, object, object]:
    """Return the name and the values of the first option that differs; the texts if they are not JSON."""
    try:
        before, after, name = json.loads(was), json.loads(now), "option"
        while isinstance(before, dict) and isinstance(after, dict):
            key = next(key for key in sorted({**before, **after}) if before.get(key) != after.get(key))
            before, after, name = before.get(key), after.get(key), f"{name} {key}"
    except (ValueError, StopIteration):
        return "options", was, now
    return name, before, after


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""Ways to break a packaged model, each with what tritonserver should say about it; for `tools/checks/triton/run.py`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class Fault:
    """One way to break a package.

    Attributes:
        name: What is broken.
        apply: Breaks the model's folder.
        pattern: Expected somewhere in one line of the server's log.
    """

    name: str
    apply: Callable[[Path], None]
    pattern: re.Pattern[str]


def _edit(old: str, new: str) -> Callable[[Path], None]:
    """Return a function that replaces text of the configuration, which must be there."""

    def apply(folder: Path) -> None:
        path = folder / CONFIG
        text = path.read_text(encoding="utf-8")
        if old not in text:
            raise SystemExit(f"the configuration does not hold {old!r}, so this fault cannot be tried")
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return apply


def _remove_versions(folder: Path) -> None:
    for version in ("1", "2"):
        shutil.rmtree(folder / version)


def _remove_model(folder: Path) -> None:
    (folder / "2" / "model.onnx").unlink()


def _truncate_model(folder: Path) -> None:
    path = folder / "2" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1000])


def _remove_labels(folder: Path) -> None:
    (folder / "labels.txt").unlink()


FAULTS = (
    Fault("unknown field", _edit("max_batch_size:", "largest_batch:"), re.compile("no field named")),
    Fault("unknown type", _edit("TYPE_FP32", "TYPE_FLOAT"), re.compile("Unknown enumeration value")),
    Fault("unbalanced brace", _edit("instance_group {", "instance_group"), re.compile("Expected")),
    Fault(
        "name of another folder",
        _edit('name: "digits"', 'name: "letters"'),
        re.compile("directory name must equal model name"),
    ),
    Fault("no version", _remove_versions, re.compile("at least one version must be available")),
    Fault("model file missing", _remove_model, re.compile("File doesn't exist")),
    Fault("model file cut off", _truncate_model, re.compile("Protobuf parsing failed")),
    Fault(
        "unknown back end",
        _edit('backend: "onnxruntime"', 'backend: "onnx"'),
        re.compile("unable to find backend library"),
    ),
    Fault("wrong name of an input", _edit('name: "input"', 'name: "pixels"'), re.compile("unexpected tensor 'pixels'")),
    Fault(
        "warm-up of another shape",
        _edit("dims: [ 1, 8, 8 ]", "dims: [ 1, 8, 9 ]"),
        re.compile("unexpected shape for input"),
    ),
    Fault(
        "preferred batch too large",
        _edit("dynamic_batching {", "dynamic_batching { preferred_batch_size: [ 64 ]"),
        re.compile("preferred size must be <= max batch size"),
    ),
    Fault("labels missing", _remove_labels, re.compile("failed to open text file.*labels.txt")),
)

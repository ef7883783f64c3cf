"""The runs behind the page: the paper suite on an export of each checkpoint, through the same doors as any user's.

Each checkpoint has two runs, because the trust region's 1000 steps take longer than everything else together: the
quick attacks on all images, the trust region on as many as wanted. Both are resumable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from jr_onnx.attack.suite.plan import Entry
from jr_onnx.attack.suite.run import Progress, run
from jr_onnx.attack.suite.setup import AttackRequest, prepare
from jr_onnx.data import PRESETS, load
from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.store import RunRecord, Store, merged
from jr_onnx.kappa import KappaPlan
from models.checkpoints import load_weights
from models.registry import build, entry
from tools.reproduction.paper import KAPPA
from tools.training.export import export

BLOCK = 500
CUDA_BLOCK = 5000
"""Images in a unit of work: a GPU takes more at once."""
_SLOW = "trust-region"


@dataclass(frozen=True)
class Measured:
    """What one run gave: its record, and outcomes by model label and entry."""

    record: RunRecord
    outcomes: dict[str, dict[str, Outcome]]


def exported(weights: Path, out: Path) -> Path:
    """Export a LeNetLike checkpoint once; its input is what the authors' loader gives, normalised pixels."""
    path = out / f"{weights.stem}.onnx"
    if not path.exists():
        net = build("lenet_like")
        load_weights(net, weights)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(export(net, entry("lenet_like").input_shape, exporter="old").SerializeToString())
    return path


def measure(
    data: Path,
    out: Path,
    checkpoint: str,
    *,
    slow: bool,
    limit: int | None,
    notify: Callable[[Progress], None],
    device: str = "cpu",
) -> Measured:
    """Run, or go on with, one of the two runs of a checkpoint.

    Args:
        data: Folder with `mnist/` and `checkpoints/`.
        out: Folder for exports and results.
        checkpoint: baseline or robust.
        slow: The trust region, or all other attacks.
        limit: At most this many test images.
        notify: Called after every unit.
        device: Where torch computes: cpu or cuda; on CUDA without TF32.
    """
    model = exported(data / "checkpoints" / f"LeNetLike_{checkpoint}.pkl", out)
    place = "" if device == "cpu" else f"-{device}"
    folder = out / f"{checkpoint}-{'trust' if slow else 'quick'}-{limit or 'all'}{place}"
    block = BLOCK if device == "cpu" else CUDA_BLOCK
    request = AttackRequest(
        model=model,
        plan=KappaPlan(KAPPA),
        data=load(f"mnist:{data / 'mnist'}", limit=limit),
        suite="paper",
        norm="linf",
        eps=0.1,  # recorded; no attack of the paper's has a budget in pixel scale
        out=folder,
        preprocessing=PRESETS["mnist"],
        device=device,
        batch=block,
        block=block,
    )
    prepared = prepare(request)
    entries: list[Entry] = [item for item in prepared.work.entries if (_SLOW in item.name) == slow]
    store = Store(folder)
    store.open(replace(prepared.record, entries=tuple(item.name for item in entries)))
    run(replace(prepared.work, entries=entries), store, notify)
    return Measured(*merged([folder]))

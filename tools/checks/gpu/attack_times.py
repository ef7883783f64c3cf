"""Time the paper's attacks on trained networks.

    python -m tools.checks.gpu.attack_times --weights models/exported --data cifar10:DIR -o times.json

For each network of a folder, `NAME_base.onnx`, `NAME_robust.onnx` or weights `NAME.pt`, `NAME_robust.pt` as a training
writes them: clean accuracy, accuracy under the paper's PGD (7 steps), and DeepFool on fewer images, at kappa 0 and at
the paper's kappa; the time is that of a second run. The CPU attacks the first images too, since a figure of the GPU
counts only where the CPU gives it. Saved after every row, so that an interrupted run loses one at most.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch

from jr_onnx.attack import AttackResult, DeepFool, IteratedFGSM, TorchTarget
from jr_onnx.attack.accelerator import BATCH, named
from jr_onnx.attack.base import Attack
from jr_onnx.attack.suite.plan import PaperSettings
from jr_onnx.data import ImageData, load
from jr_onnx.errors import InputError, JrError
from jr_onnx.torchnet import load as load_onnx
from jr_onnx.torchnet.module import OnnxModule
from models.checkpoints import load_weights
from models.registry import NAMES, build, entry
from tools.training.export import export

_STEPS = 7  # of the paper's PGD and DeepFool on CIFAR-10 (section 4)
_PAPER = PaperSettings(steps=_STEPS)
_DEEPFOOL_IMAGES = 1000
_AGREEMENT_IMAGES = 256
_NEVER_TIMED = ("wide_resnet", "mobilenet_v2")
ATTACKS: dict[str, tuple[Attack, int]] = {
    "pgd": (IteratedFGSM(eps=_PAPER.step, steps=_STEPS), BATCH),
    "deepfool": (DeepFool(norm="linf", steps=_STEPS), _DEEPFOOL_IMAGES),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One attack on one network.

    Attributes:
        weights: Name of the weights file, without its suffix.
        kappa: The kappa of all sites.
        attack: pgd or deepfool.
        layout: How images lie in memory: NHWC or NCHW.
        images: How many were attacked.
        clean: Share of them that is classified correctly.
        robust: Share of them that still is after the attack.
        first_seconds: Time of the first run, with the choice of kernels.
        seconds: Time of the second run.
        agreement_images: How many the CPU attacked too; 0 for none.
        robust_here: Robust share of those on the device.
        robust_cpu: The same on the CPU.
        disagreements: Images of which the two differ in being robust.
    """

    weights: str
    kappa: float
    attack: str
    layout: str
    images: int
    clean: float
    robust: float
    first_seconds: float
    seconds: float
    agreement_images: int = 0
    robust_here: float = 0.0
    robust_cpu: float = 0.0
    disagreements: int = 0


@click.command()
@click.option("--weights", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--data", "spec", required=True, help="Such as cifar10:DIR; the test split is attacked.")
@click.option(
    "-o", "--output", "target", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Figures."
)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--limit", type=click.IntRange(1), help="At most this many images.")
@click.option("--limit-s", type=click.FloatRange(min=0), default=240.0, show_default=True, help="Start no row later.")
@click.option("--agreement", type=click.IntRange(0), default=_AGREEMENT_IMAGES, show_default=True)
def main(
    weights: Path, spec: str, target: Path, device: str, limit: int | None, limit_s: float, agreement: int
) -> None:
    """Time the paper's PGD and DeepFool on every network of a folder."""
    began = time.monotonic()
    try:
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda was asked for, and torch sees no GPU", hint="Use --device cpu")
        files = _files(weights)
        data = load(spec, split="test", limit=limit)
        place = torch.device(device)
        rows: list[Row] = []
        for path, kappa, attack, layout in _plan(files):
            if time.monotonic() - began > limit_s:
                click.echo(f"stopped after {limit_s:g} s, before {path.stem} at kappa {kappa:g}, {attack}", err=True)
                break
            checked = agreement if layout == "NHWC" else 0
            rows.append(measure(path, kappa, attack, layout, data, place, checked))
            click.echo(_line(rows[-1]), err=True)
            found = {
                "device": named(place),
                "torch": torch.__version__,
                "tf32": False,
                "rows": [asdict(row) for row in rows],
            }
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    except JrError as error:
        raise click.ClickException(str(error)) from None


def measure(
    path: Path, kappa: float, name: str, layout: str, data: ImageData, device: torch.device, agreement: int
) -> Row:
    """Attack one network twice, and its first images on the CPU.

    Args:
        path: The weights.
        kappa: The kappa of all sites.
        name: Of `ATTACKS`.
        layout: NHWC or NCHW.
        data: Labelled images.
        device: Where to attack.
        agreement: Images to attack on the CPU too.
    """
    attack, count = ATTACKS[name]
    data = data.take(np.arange(min(count, len(data))))
    net = _network(path)
    target = _target(net, path, kappa, device, channels_last=layout == "NHWC")
    times = []
    for _ in range(2):
        _wait(device)
        start = time.perf_counter()
        result = attack.run(target, data.images, data.labels, batch_size=BATCH)
        _wait(device)
        times.append(time.perf_counter() - start)
    row = Row(
        path.stem, kappa, name, layout, len(data), result.clean_accuracy, result.robust_accuracy, times[0], times[1]
    )
    return row if agreement == 0 else _compared(row, net, path, attack, data, result, agreement)


def _compared(
    row: Row, net: OnnxModule, path: Path, attack: Attack, data: ImageData, result: AttackResult, count: int
) -> Row:
    count = min(count, len(data))
    target = _target(net, path, row.kappa, torch.device("cpu"), channels_last=False)
    other = attack.run(target, data.images[:count], data.labels[:count])
    here = result.robust[:count]
    return replace(
        row,
        agreement_images=count,
        robust_here=float(here.double().mean()),
        robust_cpu=other.robust_accuracy,
        disagreements=int((here != other.robust).sum()),
    )


def _network(path: Path) -> OnnxModule:
    """Read a network as a torch module, as `jr-onnx attack` does with any model; export it first if need be."""
    if path.suffix == ".onnx":
        return load_onnx(path)
    name = _name(path)
    net = build(name)
    load_weights(net, path)
    return load_onnx(export(net, entry(name).input_shape, exporter="old"))


def _target(net: OnnxModule, path: Path, kappa: float, device: torch.device, *, channels_last: bool) -> TorchTarget:
    preprocessing = entry(_name(path)).preprocessing
    found = TorchTarget(net, preprocessing, units="paper", device=device, channels_last=channels_last)
    return found.with_kappa(kappa)


def _plan(files: list[Path]) -> Iterator[tuple[Path, float, str, str]]:
    """Yield weights, kappa, attack and layout, the PGD column first; the other layout last.

    Networks that were never timed, or not since batches are padded, come before the others.
    """
    files = sorted(files, key=lambda path: _NEVER_TIMED.index(_name(path)) if _name(path) in _NEVER_TIMED else 2)
    for attack in ATTACKS:
        for path in files:
            for kappa in (0.0, entry(_name(path)).paper_kappa):
                if kappa is not None:
                    yield path, kappa, attack, "NHWC"
    for path in files:
        yield path, 0.0, "pgd", "NCHW"


def _files(folder: Path) -> list[Path]:
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in (".onnx", ".pt") and _name(path) in NAMES and entry(_name(path)).data == "cifar10"
    )
    if not found:
        raise InputError(
            f"{folder} holds no CIFAR-10 network NAME_base.onnx or weights NAME.pt, NAME one of {', '.join(NAMES)}",
            hint="Take models/exported, or train one: python -m tools.training.train NAME -o DIR/NAME.pt",
        )
    return found


def _name(path: Path) -> str:
    return path.stem.removesuffix("_robust").removesuffix("_base")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _line(row: Row) -> str:
    text = (
        f"{row.weights}, kappa {row.kappa:g}, {row.attack}, {row.layout}: {row.images} images in {row.seconds:.2f} s "
        f"(first {row.first_seconds:.2f} s), clean {row.clean:.2%}, robust {row.robust:.2%}"
    )
    if row.agreement_images:
        text += (
            f"; of {row.agreement_images} the CPU gives {row.robust_cpu:.2%}, here {row.robust_here:.2%}, "
            f"{row.disagreements} differ"
        )
    return text


if __name__ == "__main__":
    main()

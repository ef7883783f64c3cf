"""Export all weights in a folder as `jr-onnx reproduce --checkpoints` looks for them: NETWORK_VARIANT.onnx and a card.

    python -m tools.training.export_networks WEIGHTS models/exported --data mnist:DIR --data cifar10:DIR

WEIGHTS holds what `tools.training.train` wrote (alex_like.pt or alex_like_base.pt, alex_like_robust.pt, ...) or the
state dicts that the authors of JumpReLU published (LeNetLike_baseline.pkl, ResNet_robust.pkl, ...), or what `jr-onnx
harden` made of an export (lenet_like_pgd.onnx). With `--half` the weights are stored as float16 behind a Cast, so that
the file is half as large and the network still computes in float32; the card says what that costs on the test images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.data import ImageData, InputAdapter, ModelInput, load
from jr_onnx.errors import InputError, JrError, require
from jr_onnx.modelfile import atomic_write
from jr_onnx.provenance import HARDENED_KEY
from models.checkpoints import load_weights
from models.registry import NAMES, ModelEntry, build, entry
from tools.training.export import export

VARIANTS = ("base", "robust", "pgd")
_AUTHORS = {"lenet_like": "LeNetLike", "resnet20": "ResNet", "alex_like": "AlexLike", "wide_resnet": "WideResNet",
            "mobilenet_v2": "MobileNetV2"}  # fmt: skip
_LEAST_ELEMENTS = 1024
"""Smaller tensors (biases) stay float32: halving them saves nothing."""


def weights_in(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield (network, variant, file) for all weights in a folder."""
    for name in NAMES:
        for variant in VARIANTS:
            authors = f"{_AUTHORS.get(name)}_{'baseline' if variant == 'base' else variant}.pkl"
            names = [
                f"{name}_{variant}.pt",
                authors,
                f"{name}_{variant}.onnx",
                *([f"{name}.pt"] if variant == "base" else []),
            ]
            found = next((folder / item for item in names if (folder / item).is_file()), None)
            if found is not None:
                yield name, variant, found


def with_half_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose large float32 weights are stored as float16, each behind a Cast to float32."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    casts, kept = [], []
    for tensor in changed.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or value.size < _LEAST_ELEMENTS:
            kept.append(tensor)
            continue
        stored = f"{tensor.name}.float16"
        kept.append(numpy_helper.from_array(value.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [tensor.name], f"{tensor.name}.widen", to=TensorProto.FLOAT))
    nodes = [*casts, *changed.graph.node]
    changed.graph.ClearField("initializer")
    changed.graph.ClearField("node")
    changed.graph.initializer.extend(kept)
    changed.graph.node.extend(nodes)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def right_answers(proto: onnx.ModelProto, known: ModelEntry, data: ImageData) -> int:
    """Return how many images ONNX Runtime classifies correctly."""
    ort: Any = require("onnxruntime", "cpu")
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = ModelInput.of_session(session.get_inputs()[0])
    adapter = InputAdapter(feed, data.shape, known.preprocessing)
    right = 0
    for images, labels in data.batches(500):
        (logits,) = session.run(None, {feed.name: adapter.to_model(images)})
        right += int((logits.argmax(1) == labels).sum())
    return right


@click.command()
@click.argument("weights", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--data", "specs", multiple=True, required=True, help="mnist:DIR or cifar10:DIR. Repeatable.")
@click.option("--half", is_flag=True, help="Store large weights as float16.")
@click.option("--limit", type=click.IntRange(min=1), help="Measure on at most this many test images. [default: all]")
def main(weights: Path, out: Path, specs: tuple[str, ...], half: bool, limit: int | None) -> None:
    """Export all weights in the folder WEIGHTS to the folder OUT, each with a card in JSON."""
    try:
        known_data = {spec.partition(":")[0]: load(spec, limit=limit) for spec in specs}
        found = list(weights_in(weights))
        if not found:
            raise InputError(f"{weights} holds no weights of a network here", hint="Expected alex_like_robust.pt, ...")
        out.mkdir(parents=True, exist_ok=True)
        for name, variant, path in found:
            known = entry(name)
            if known.data not in known_data:
                click.echo(f"{path.name} left out: no --data {known.data}:DIR", err=True)
                continue
            _write(name, variant, path, out, known_data[known.data], half=half)
    except JrError as error:
        raise click.ClickException(str(error)) from None


def _read(known: ModelEntry, path: Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Return a network, and what the record beside the weights, or the hardened file itself, says of its training."""
    if path.suffix == ".onnx":
        proto = onnx.load(path)
        entries = {item.key: item.value for item in proto.metadata_props}
        if HARDENED_KEY not in entries:
            raise InputError(f"{path} has no entry {HARDENED_KEY}, expected a file that jr-onnx harden wrote")
        return proto, json.loads(entries[HARDENED_KEY])
    net = build(known.name)
    load_weights(net, path)
    record = path.with_suffix(".json")
    trained = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    return export(net, known.input_shape, exporter="old"), trained


def _write(name: str, variant: str, path: Path, out: Path, data: ImageData, *, half: bool) -> None:
    known = entry(name)
    full, trained = _read(known, path)
    stored = with_half_weights(full) if half else full
    right = right_answers(full, known, data)
    kept = right_answers(stored, known, data) if half else right
    card = {
        "schema": "jr_onnx.network_card/1",
        "network": name,
        "variant": variant,
        "source": "trained here" if trained else f"published by the authors of JumpReLU ({path.name})",
        "preprocess": known.preset,
        "weights": "float16, computed in float32" if half else "float32",
        "test_images": len(data),
        "correct": kept,
        "correct_float32": right,
        "test_accuracy_when_trained": trained.get("test_accuracy"),
        "trained_on": trained.get("device", ""),
        "training_seconds": trained.get("seconds"),
        "recipe": trained.get("recipe", {}),
    }
    if "source_name" in trained:
        card |= {"hardened_from": trained["source_name"], "hardened_from_sha256": trained["source_sha256"]}
    target = out / f"{name}_{variant}.onnx"
    atomic_write(target, [stored.SerializeToString()])
    atomic_write(target.with_suffix(".json"), [(json.dumps(card, indent=2) + "\n").encode()])
    click.echo(
        f"{target}: {target.stat().st_size} bytes, {kept} of {len(data)} test images correct "
        f"({kept - right:+d} against float32)",
        err=True,
    )


if __name__ == "__main__":
    main()

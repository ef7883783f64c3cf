"""Export a torch network to ONNX: `python -m tools.training.export digits_cnn out/cnn.onnx --weights out/cnn.pt`.

Both of torch's exporters are here, because their graphs differ: the old one traces (TorchScript), the new one goes
through `torch.export` (dynamo). The file is checked, compared with torch in ONNX Runtime on random inputs, and
freed of source paths and stack traces before it is written.
"""

from __future__ import annotations

import importlib
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import click
import onnx
import torch
from torch import Tensor, nn

from jr_onnx.data import Preprocessing
from jr_onnx.errors import InputError, JrError, VerificationError, require
from jr_onnx.verifier.compare import largest_difference, magnitude
from models.checkpoints import load_weights
from models.registry import NAMES, build, entry

Exporter = Literal["old", "dynamo"]
DEFAULT_OPSET = 18
INPUT_NAME, OUTPUT_NAME = "input", "logits"
# Two evaluations of one float32 network that sum in another order differ by about sqrt(depth * width) roundings of
# 6e-8 relative to the largest logit; 1e-4 leaves two decimal orders for the deepest network here and is far below
# the difference that any wrongly exported operator makes.
_RELATIVE_TOLERANCE = 1e-4


class WithPreprocessing(nn.Module):
    """A network behind its own normalisation, so that its input is the pixel scale [0, 1].

    Args:
        model: The network.
        preprocessing: What it expects; NCHW.
        channels: C.
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, channels: int) -> None:
        super().__init__()
        self.model = model
        scale, offset = preprocessing.affine(channels)
        self.register_buffer("gain", torch.tensor(scale, dtype=torch.float32)[:, None, None])
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the network's logits for pixels (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.model(pixels * self.gain + self.offset)
        return logits


def export(
    model: nn.Module,
    input_shape: tuple[int, ...],
    *,
    exporter: Exporter = "dynamo",
    opset: int = DEFAULT_OPSET,
    batch: int | None = None,
) -> onnx.ModelProto:
    """Return the ONNX form of a network, checked against torch in ONNX Runtime.

    Args:
        model: The network; exported in evaluation mode, which folds batch normalisation into the convolutions.
        input_shape: Shape of one input, without the batch.
        exporter: old (TorchScript) or dynamo.
        opset: Version of the standard operators.
        batch: A fixed batch size; None leaves it dynamic.

    Raises:
        InputError: torch cannot export this.
        VerificationError: ONNX Runtime's outputs differ from torch's.
    """
    if exporter == "dynamo":
        require("onnxscript", "train")
    model.eval()
    # Two images: an exporter may take a batch of one for a constant.
    sample = torch.rand((batch or 2, *input_shape), generator=torch.Generator().manual_seed(0))
    try:
        proto = _run_exporter(model, sample, exporter, opset, dynamic=batch is None)
    except Exception as error:  # noqa: BLE001 - the exporters raise whatever their passes raise
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"the {exporter} exporter fails at opset {opset}: {type(error).__name__}: {reason}") from None
    strip_traces(proto)
    onnx.checker.check_model(proto, full_check=True)
    _compare(model, proto, input_shape, batch)
    return proto


def strip_traces(proto: onnx.ModelProto) -> None:
    """Remove what exporters write about the machine: stack traces, source paths, doc strings of nodes."""
    for graph_nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        for node in graph_nodes:
            node.ClearField("doc_string")
            del node.metadata_props[:]
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]


def _run_exporter(
    model: nn.Module, sample: Tensor, exporter: Exporter, opset: int, *, dynamic: bool
) -> onnx.ModelProto:
    names: dict[str, Any] = {"input_names": [INPUT_NAME], "output_names": [OUTPUT_NAME], "opset_version": opset}
    with warnings.catch_warnings():
        # The old exporter announces its end, the new one its internals; neither concerns the caller.
        warnings.simplefilter("ignore")
        if exporter == "old":
            axes = {INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}} if dynamic else None
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                torch.onnx.export(model, (sample,), path, dynamo=False, dynamic_axes=axes, **names)
                return onnx.load_model(path)
        shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
        program = torch.onnx.export(model, (sample,), dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
        if program is None:
            raise InputError("the dynamo exporter returned nothing")
        return program.model_proto


def _compare(model: nn.Module, proto: onnx.ModelProto, input_shape: tuple[int, ...], batch: int | None) -> None:
    session = require("onnxruntime", "cpu").InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for count in (1, 3) if batch is None else (batch,):
        images = torch.rand((count, *input_shape), generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            expected = model(images).numpy()
        (found,) = session.run(None, {INPUT_NAME: images.numpy()})
        difference = largest_difference(found, expected)
        allowed = _RELATIVE_TOLERANCE * max(1.0, magnitude(expected))
        if found.shape != expected.shape or not difference <= allowed:
            raise VerificationError(
                f"the export differs from torch by {difference} on a batch of {count}, expected at most {allowed}"
            )


def resolve(name: str) -> tuple[nn.Module, tuple[int, ...] | None, Preprocessing | None]:
    """Return (network, input shape, preprocessing) of a registered name or of `module:factory`.

    Raises:
        InputError: There is no such network, or the factory does not return one.
    """
    if ":" not in name:
        known = entry(name)
        return build(name), known.input_shape, known.preprocessing
    module_name, _, factory_name = name.partition(":")
    try:
        model = getattr(importlib.import_module(module_name), factory_name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(f"cannot call {name}: {error}") from None
    if not isinstance(model, nn.Module):
        raise InputError(f"{name} returned {type(model).__name__}, expected a torch.nn.Module")
    return model, None, None


@click.command(epilog=f"Registered networks: {', '.join(NAMES)}.")
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--weights", type=click.Path(path_type=Path, dir_okay=False), help="State dict; random otherwise.")
@click.option("--exporter", type=click.Choice(["old", "dynamo"]), default="dynamo", show_default=True)
@click.option("--opset", type=click.IntRange(7), default=DEFAULT_OPSET, show_default=True)
@click.option("--batch", type=click.IntRange(1), help="Fix the batch size. [default: dynamic]")
@click.option("--shape", help="Shape of one input, such as 3,32,32; for module:factory.")
@click.option("--pixels", is_flag=True, help="Put the normalisation inside, so that the input is in [0, 1].")
def main(
    model: str,
    out: Path,
    weights: Path | None,
    exporter: Exporter,
    opset: int,
    batch: int | None,
    shape: str | None,
    pixels: bool,
) -> None:
    """Export MODEL (a registered name, or module:factory) to the ONNX file OUT."""
    try:
        network, input_shape, preprocessing = resolve(model)
        if weights is not None:
            load_weights(network, weights)
        wanted = _shape(shape) if shape else input_shape
        if wanted is None:
            raise InputError(f"the input shape of {model} is unknown", hint="Give --shape, such as 3,32,32")
        if pixels:
            if preprocessing is None:
                raise InputError(f"the normalisation of {model} is unknown", hint="Put it into the factory")
            network = WithPreprocessing(network, preprocessing, wanted[0])
        proto = export(network, wanted, exporter=exporter, opset=opset, batch=batch)
    except JrError as error:
        raise click.ClickException(str(error)) from None
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(proto.SerializeToString())
    click.echo(f"{out}: {out.stat().st_size} bytes, opset {proto.opset_import[0].version}", err=True)


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(f"found the shape {text!r}, expected positive numbers such as 3,32,32")
    return shape


if __name__ == "__main__":
    main()

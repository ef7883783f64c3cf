from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from jr_onnx.data import PRESETS
from jr_onnx.errors import InputError, VerificationError
from models import build, entry
from tools.training.export import WithPreprocessing, export, main, resolve, strip_traces

ort = pytest.importorskip("onnxruntime")


def _run(proto: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": images})
    return logits  # type: ignore[no-any-return]


def _images(shape: tuple[int, ...], count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, *shape), dtype=np.float32)


@pytest.mark.parametrize(("exporter", "opset"), [("old", 13), ("old", 17), ("dynamo", 18), ("dynamo", 20)])
@pytest.mark.parametrize("name", ["digits_cnn", "lenet_like"])
def test_both_exporters_give_the_network(name: str, exporter: str, opset: int) -> None:
    torch.manual_seed(0)
    model, known = build(name), entry(name)
    proto = export(model, known.input_shape, exporter=exporter, opset=opset)  # type: ignore[arg-type]
    assert {item.domain: item.version for item in proto.opset_import}[""] == opset
    assert sum(node.op_type == "Relu" for node in proto.graph.node) == known.sites
    assert not any(node.op_type == "BatchNormalization" for node in proto.graph.node)
    for count in (1, 4):
        images = _images(known.input_shape, count)
        with torch.inference_mode():
            expected = model(torch.from_numpy(images)).numpy()
        assert np.allclose(_run(proto, images), expected, atol=1e-5)


@pytest.mark.parametrize("exporter", ["old", "dynamo"])
def test_nothing_of_the_machine_is_in_the_file(exporter: str) -> None:
    content = export(build("digits_mlp"), (1, 8, 8), exporter=exporter, opset=18).SerializeToString()  # type: ignore[arg-type]
    for trace in (b"digits_net.py", b"stack_trace", b"site-packages", str(Path.cwd()).encode()):
        assert trace not in content


def test_traces_go_from_functions_and_values_too() -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"], doc_string="/home/me/net.py:3")
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File net.py")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    value.metadata_props.add(key="pkg.torch.onnx.original_node_name", value="x")
    graph = onnx.helper.make_graph([node], "g", [value], [])
    graph.metadata_props.add(key="a", value="b")
    opsets = [onnx.helper.make_opsetid("", 18)]
    function = onnx.helper.make_function("d", "f", ["x"], ["y"], [node], opsets)
    proto = onnx.helper.make_model(graph, functions=[function], opset_imports=opsets)
    strip_traces(proto)
    for text in (b"net.py", b"original_node_name"):
        assert text not in proto.SerializeToString()
    assert proto.graph.node[0].op_type == proto.functions[0].node[0].op_type == "Relu"


@pytest.mark.parametrize("exporter", ["old", "dynamo"])
def test_a_fixed_batch_stays_fixed(exporter: str) -> None:
    proto = export(build("digits_mlp"), (1, 8, 8), exporter=exporter, opset=18, batch=3)  # type: ignore[arg-type]
    axes = proto.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_value for axis in axes] == [3, 1, 8, 8]


def test_the_normalisation_can_go_inside() -> None:
    torch.manual_seed(0)
    model, known = build("lenet_like"), entry("lenet_like")
    proto = export(WithPreprocessing(model, known.preprocessing, 1), known.input_shape)
    pixels = _images(known.input_shape, 3)
    with torch.inference_mode():
        expected = model(torch.from_numpy(PRESETS["mnist"].apply(pixels))).numpy()
    assert np.allclose(_run(proto, pixels), expected, atol=1e-5)


class _Moody(nn.Module):
    """Gives another answer at every call, which no file can repeat."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) + torch.rand(())


class _Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError(f"this network cannot run\non {x.shape}")


def test_an_export_that_differs_is_refused() -> None:
    with pytest.raises(VerificationError, match="the export differs from torch by"):
        export(_Moody(), (4,), exporter="old", opset=17)


@pytest.mark.parametrize("exporter", ["old", "dynamo"])
def test_a_network_that_cannot_be_exported_is_an_error_of_one_line(exporter: str) -> None:
    with pytest.raises(InputError, match=f"the {exporter} exporter fails at opset 18") as caught:
        export(_Broken(), (4,), exporter=exporter, opset=18)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_module_and_factory() -> None:
    model, shape, preprocessing = resolve("models.digits_net:DigitsMLP")
    assert type(model).__name__ == "DigitsMLP"
    assert shape is None
    assert preprocessing is None
    for name in ("models.nothing:Net", "models.digits_net:Nothing", "models.wide_resnet:WideBlock"):
        with pytest.raises(InputError, match=f"cannot call {name}"):
            resolve(name)
    with pytest.raises(InputError, match=r"returned dict, expected a torch\.nn\.Module"):
        resolve("builtins:dict")


def _command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_command_writes_a_model_with_the_weights(tmp_path: Path) -> None:
    model = build("digits_mlp")
    torch.save(model.state_dict(), tmp_path / "mlp.pt")
    out = tmp_path / "deep" / "mlp.onnx"
    code, output = _command(
        "models.digits_net:DigitsMLP", str(out), "--weights", str(tmp_path / "mlp.pt"), "--shape", "1,8,8"
    )
    assert code == 0, output
    images = _images((1, 8, 8), 2)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    assert np.allclose(_run(onnx.load_model(out), images), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models.digits_net:DigitsMLP"], "the input shape of models.digits_net:DigitsMLP is unknown"),
        (["models.digits_net:DigitsMLP", "--shape", "1,8,8", "--pixels"], "the normalisation of"),
        (["digits_mlp", "--shape", "1,x"], "found the shape '1,x'"),
        (["digits_mlp", "--shape", "0"], "found the shape '0'"),
        (["digits_mlp", "--weights", "nowhere.pt"], "cannot read weights from nowhere.pt"),
        (["vgg"], "there is no network 'vgg'"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(tmp_path: Path, arguments: list[str], message: str) -> None:
    code, output = _command(*arguments[:1], str(tmp_path / "out.onnx"), *arguments[1:])
    assert code == 1
    assert message in " ".join(output.split())
    assert not list(tmp_path.iterdir())

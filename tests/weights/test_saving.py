"""Other values in the weights, and nothing else changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from jr_onnx import find_weights, save_weights
from jr_onnx.errors import ContractError, InputError, ModelError, OutputError
from jr_onnx.modelfile import load
from jr_onnx.weights.find import tensors_by_place
from jr_onnx.weights.proof import Allowed, prove
from tests.weights import models


def written(kind: str, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(models.KINDS[kind]().SerializeToString(deterministic=True))
    return path


def values_of(path: Path) -> dict[str, np.ndarray]:
    model = onnx.load(path)
    places = tensors_by_place(model)
    return {item.name: numpy_helper.to_array(places[item.scope, item.tensor]) for item in find_weights(model)}


@pytest.mark.parametrize("kind", models.KINDS)
def test_the_same_values_give_the_same_file(kind: str, tmp_path: Path) -> None:
    source = written(kind, tmp_path)
    output = save_weights(source, values_of(source), tmp_path / "same.onnx")
    assert output.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("kind", models.KINDS)
def test_other_values_change_the_weights_and_nothing_else(kind: str, tmp_path: Path) -> None:
    source = written(kind, tmp_path)
    wanted = {name: value + np.asarray(1, value.dtype) for name, value in values_of(source).items()}
    output = save_weights(source, wanted, tmp_path / "other.onnx")
    for name, value in values_of(output).items():
        np.testing.assert_array_equal(value, wanted[name])
    back = save_weights(output, values_of(source), tmp_path / "back.onnx")
    assert back.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("folder", ["", "elsewhere"])
def test_external_data_are_copied_and_changed_in_the_copy(folder: str, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    onnx.save(models.plain(), source, save_as_external_data=True, location="model.data", size_threshold=100)
    before = (tmp_path / "model.data").read_bytes()
    wanted = {"w1": values_of(source)["w1"] * np.float32(2)}
    target = tmp_path / folder
    target.mkdir(exist_ok=True)
    output = save_weights(source, wanted, target / "other.onnx")
    found = values_of(output)
    for name, value in values_of(source).items():
        np.testing.assert_array_equal(found[name], wanted.get(name, value))
    assert (tmp_path / "model.data").read_bytes() == before
    assert sorted(item.name for item in target.iterdir() if item.is_file())[-2:] == (
        ["other.onnx", "other.onnx.model.data"] if not folder else ["model.data", "other.onnx"]
    )


def test_weights_in_the_same_external_bytes_stay_one(tmp_path: Path) -> None:
    model = models.in_a_function()
    del model.graph.initializer[1]
    model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
    model.graph.initializer[1].name = "v"
    source = tmp_path / "model.onnx"
    onnx.save(model, source, save_as_external_data=True, location="model.data", size_threshold=0)
    merged = onnx.load(source, load_external_data=False)
    for entry in merged.graph.initializer[1].external_data:
        entry.value = next(item.value for item in merged.graph.initializer[0].external_data if item.key == entry.key)
    source.write_bytes(merged.SerializeToString())
    assert [item.same_as for item in find_weights(source)] == ["", "", "w"]
    output = save_weights(source, {"w": np.ones((6, 6), "float32")}, tmp_path / "other.onnx")
    assert (values_of(output)["v"] == 1).all()
    with pytest.raises(InputError, match="given different values"):
        save_weights(source, {"w": np.ones((6, 6)), "v": np.zeros((6, 6))}, tmp_path / "odd.onnx")


def test_an_untrained_tensor_in_the_same_bytes_is_a_reason_to_refuse(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    onnx.save(models.plain(), source, save_as_external_data=True, location="model.data", size_threshold=100)
    model = onnx.load(source, load_external_data=False)
    tensors = {item.name: item for item in model.graph.initializer}
    del tensors["deviation"].external_data[:]
    tensors["deviation"].external_data.extend(tensors["w1"].external_data)
    source.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="share bytes of a file"):
        save_weights(source, {"w1": np.zeros((256, 40), "float32")}, tmp_path / "other.onnx")


@pytest.mark.parametrize("trained", [("last",), ("whole", "last"), ("whole", "flat")])
def test_bytes_that_several_tensors_read_are_not_written_for_one(trained: tuple[str, ...], tmp_path: Path) -> None:
    """The first tensor spans all others, so that the two that clash are not neighbours; `flat` is `whole` reshaped."""
    model = models.with_initializers(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 4] x) => (float[N, 4] y) {
            a = MatMul (x, whole)  b = Add (a, first)  c = Add (b, last)  shape = Constant <value_ints = [4, 4]> ()
            square = Reshape (flat, shape)  y = MatMul (c, square)
        }""",
        whole=models.numbers(4, 4, seed=1), first=models.numbers(4, seed=2), last=models.numbers(4, seed=3),
        flat=models.numbers(16, seed=4),
    )  # fmt: skip
    (tmp_path / "all.data").write_bytes(bytes(64))
    for tensor, (offset, length) in zip(model.graph.initializer, ((0, 64), (0, 16), (48, 16), (0, 64)), strict=True):
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "all.data"), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
    source = tmp_path / "model.onnx"
    source.write_bytes(model.SerializeToString(deterministic=True))
    shapes = {item.name: item.shape for item in find_weights(source)}
    values = {name: np.full(shapes[name], number, np.float32) for number, name in enumerate(trained)}
    with pytest.raises(ModelError, match="share bytes of a file"):
        save_weights(source, values, tmp_path / "other.onnx")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["all.data", "model.onnx"]


def test_a_tensor_that_asks_for_gradients_is_a_value(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    source = written("plain", tmp_path)
    value = torch.nn.Parameter(torch.ones(40))
    output = save_weights(source, {"b1": value}, tmp_path / "other.onnx")
    assert (values_of(output)["b1"] == 1).all()


def test_halves_are_rounded_to_nearest(tmp_path: Path) -> None:
    source = written("halves", tmp_path)
    value = np.full((8,), 1 + 2.0**-11 + 2.0**-13, "float32")  # nearer to 1 + 2**-10 than to 1
    output = save_weights(source, {"b1": value}, tmp_path / "other.onnx")
    assert (values_of(output)["b1"] == np.float16(1 + 2.0**-10)).all()


def test_bfloat16_is_rounded_to_nearest_even(tmp_path: Path) -> None:
    model = models.shared()
    tensor = model.graph.initializer[0]
    bits = (np.ones(36, "float32").view("uint32") >> 16).astype("uint16")
    tensor.CopyFrom(
        onnx.TensorProto(name="w", dims=[6, 6], data_type=onnx.TensorProto.BFLOAT16, raw_data=bits.tobytes())
    )
    source = tmp_path / "model.onnx"
    source.write_bytes(model.SerializeToString(deterministic=True))
    value = np.full((6, 6), 1 + 2.0**-8, "float32")  # half way between 1 and 1 + 2**-7: to the even one, 1
    value[0, 0] = 1 + 3 * 2.0**-8  # half way between 1 + 2**-7 and 1 + 2**-6: to the even one
    output = save_weights(source, {"w": value}, tmp_path / "other.onnx")
    found = np.frombuffer(onnx.load(output).graph.initializer[0].raw_data, "uint16").astype("uint32") << 16
    assert found.view("float32").tolist() == [1 + 2.0**-6] + [1.0] * 35


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"missing": np.zeros(3)}, "no weight 'missing'"),
        ({"b1": np.zeros(3)}, r"the shape \[3\], expected \[8\]"),
        ({"b1": np.full(8, np.nan)}, "not all finite"),
        ({"b1": np.zeros(8, int)}, "the type int64, expected floats"),
        ({"b1": np.full(8, 70000.0)}, "more than float16 can hold"),
    ],
)
def test_values_that_do_not_fit_are_refused(values: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    source = written("halves", tmp_path)
    with pytest.raises(InputError, match=message):
        save_weights(source, values, tmp_path / "other.onnx")
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


def test_what_holds_no_weights_is_refused(tmp_path: Path) -> None:
    class Module:
        def weights(self) -> dict[str, np.ndarray]:
            return {}

    source = written("plain", tmp_path)
    for given, message in ((Module(), "the given Module has no trainable weights"), (None, "is no module of a model")):
        with pytest.raises(InputError, match=message):
            save_weights(source, given, tmp_path / "other.onnx")  # type: ignore[arg-type] # what a person may give
    assert not (tmp_path / "other.onnx").exists()


def test_neither_the_source_nor_an_existing_file_is_replaced(tmp_path: Path) -> None:
    source = written("plain", tmp_path)
    with pytest.raises(OutputError, match="is the source itself"):
        save_weights(source, {}, source)
    (tmp_path / "there.onnx").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        save_weights(source, {}, tmp_path / "there.onnx")
    assert (tmp_path / "there.onnx").read_bytes() == b"mine"


def test_metadata_are_set(tmp_path: Path) -> None:
    source = written("plain", tmp_path)
    output = save_weights(source, {}, tmp_path / "other.onnx", metadata={"training": "none"})
    assert {item.key: item.value for item in onnx.load(output).metadata_props} == {"training": "none"}


@pytest.mark.parametrize("change", ["another small tensor", "another large tensor", "a node", "the trained tensor"])
def test_the_proof_sees_whatever_else_has_moved(change: str, tmp_path: Path) -> None:
    source = written("plain", tmp_path)
    values = values_of(source)["w2"] + np.float32(1)
    model = onnx.load(source)
    tensors = {item.name: item for item in model.graph.initializer}
    tensors["w2"].raw_data = values.tobytes()
    if change == "another small tensor":
        tensors["b2"].raw_data = bytes(12)
    elif change == "another large tensor":
        tensors["w1"].raw_data = bytes(256 * 40 * 4)
    elif change == "a node":
        model.graph.node[4].op_type = "Sigmoid"
    else:
        tensors["w2"].raw_data = bytes(3 * 40 * 4)
    forged = tmp_path / "forged.onnx"
    forged.write_bytes(model.SerializeToString())
    with pytest.raises(ContractError):
        prove(load(source), load(forged), Allowed({("", "w2"): values.tobytes()}), tmp_path)

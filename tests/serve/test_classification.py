"""The largest elements of an output, as `VALUE:INDEX[:LABEL]`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jr_onnx.deploy import TritonOptions, package_triton
from jr_onnx.rewriter import rewrite
from jr_onnx.serve.call import Call, ModelInterface
from jr_onnx.serve.extensions.classification import MOST_CLASSES, answered_spec, class_count, classify
from jr_onnx.serve.faults import BadRequestError
from jr_onnx.serve.tensors import TensorSpec
from tests.serve.builders import perceptron
from tests.serve.support import ROWS, Rest, request
from tools.checks.serving.processes import ServerProcess, jr_onnx, running


def _classes(array: np.ndarray, count: int, *, batched: bool = True, labels: tuple[str, ...] = ()) -> list:
    spec = TensorSpec("y", "FP32", array.dtype, array.shape)
    interface = ModelInterface("m", "1", {}, {"y": spec}, batched, 64, labels={"y": labels})
    call = Call({}, len(array), "", {"y": True}, classes={"y": count})
    assert answered_spec(interface, call, "y").datatype == "BYTES"
    found = classify(interface, call, {"y": array})["y"]
    return [[item.decode() for item in row] for row in found] if batched else [item.decode() for item in found]


def test_every_row_of_a_batch_has_its_classes() -> None:
    array = np.array([[0.5, 2.0, -1.0], [3.0, 0.0, 1.0]], np.float32)
    assert _classes(array, 2) == [["2.000000:1", "0.500000:0"], ["3.000000:0", "1.000000:2"]]


def test_without_a_batch_all_elements_are_one_row() -> None:
    assert _classes(np.array([[1, 9], [4, 2]], np.int64), 3, batched=False) == ["9:1", "4:2", "2:3"]


def test_more_classes_than_there_are_gives_all() -> None:
    assert _classes(np.array([[1, 2]], np.uint8), 99) == [["2:1", "1:0"]]


def test_of_equals_the_first_comes_first_and_nan_comes_last() -> None:
    array = np.array([[1.0, np.nan, 1.0, -np.inf, np.inf]], np.float32)
    assert _classes(array, 3) == [["inf:4", "1.000000:0", "1.000000:2"]]
    assert _classes(array, 5)[0][3:] in (["nan:1", "-inf:3"], ["-inf:3", "nan:1"])


def test_labels_are_added_as_far_as_there_are_any() -> None:
    assert _classes(np.array([[1, 3, 2]], np.int32), 3, labels=("a", "b")) == [["3:1:b", "2:2", "1:0:a"]]


@pytest.mark.parametrize("value", [0, -1, True, 2.0, "2", None])
def test_what_is_no_number_of_classes_is_refused(value: object) -> None:
    with pytest.raises(BadRequestError, match="expected a number of classes"):
        class_count(value, TensorSpec("y", "FP32", np.dtype(np.float32), (-1, 4)))


def test_strings_have_no_largest_elements() -> None:
    with pytest.raises(BadRequestError, match="no largest elements"):
        class_count(2, TensorSpec("y", "BYTES", np.dtype(object), (-1, 4)))


def test_a_server_answers_classes_instead_of_the_output(server: ServerProcess) -> None:
    rest = Rest(server.http_port)
    plain = rest.infer("fixed", request(ROWS)).output()
    wanted = {"outputs": [{"name": "y", "parameters": {"classification": 2}}]}
    (output,) = rest.infer("fixed", request(ROWS) | wanted).json["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    order = np.argsort(-plain, axis=1)[:, :2]
    assert output["data"] == [f"{plain[row, index]:f}:{index}" for row in range(2) for index in order[row]]
    for wrong in (-1, "two", 1.5):
        wanted = {"outputs": [{"name": "y", "parameters": {"classification": wrong}}]}
        assert rest.infer("fixed", request(ROWS) | wanted).status == 400
    rest.close()


def test_a_large_output_is_ordered_beside_the_event_loop_and_within_the_budget(models: dict[str, Path]) -> None:
    rows = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    wanted = {"outputs": [{"name": "y", "parameters": {"classification": 64}}]}
    with running(jr_onnx(models["input"], "--max-total-mib", "1", "--max-body-mib", "1")) as process:
        rest = Rest(process.http_port)
        (output,) = rest.infer("input", request(rows) | wanted).json["outputs"]
        assert output["shape"] == [64, 64]
        many = np.tile(rows, (4, 1))  # 16384 elements that take 24 and 96 bytes each: more than the budget
        answer = rest.infer("input", request(many) | wanted)
        assert (answer.status, "too many bytes" in answer.error) == (503, True)
        assert rest.infer("input", request(rows) | wanted).status == 200
        rest.close()


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A repository whose model has labels."""
    source = perceptron(tmp_path / "plain.onnx")
    model = tmp_path / "model.onnx"
    rewrite(source, 0.05, output=model)
    labels = tmp_path / "names.txt"
    labels.write_text("cat\ndog\n\u00e9l\u00e9phant\n a b \n", encoding="utf-8")
    package_triton(model, tmp_path / "repository", TritonOptions(name="animals", labels=labels))
    return tmp_path / "repository"


def test_a_packages_labels_stand_in_the_classes_and_in_the_configuration(labelled: Path) -> None:
    wanted = {"outputs": [{"name": "y", "parameters": {"classification": 4}}]}
    with running(jr_onnx(labelled)) as process:
        rest = Rest(process.http_port)
        (output,) = rest.infer("animals", request(ROWS[:1]) | wanted).json["outputs"]
        names = ["cat", "dog", "\u00e9l\u00e9phant", " a b "]
        assert sorted(item.split(":", 1)[1] for item in output["data"]) == [
            f"{n}:{name}" for n, name in enumerate(names)
        ]
        config = rest.get("/v2/models/animals/config").json
        assert config["output"][0]["label_filename"] == "labels.txt"
        (labelled / "animals" / "labels.txt").write_text("other\n" * 4, encoding="utf-8")
        assert rest.ask("POST", "/v2/repository/models/animals/load", {}).status == 409
        assert rest.infer("animals", request(ROWS[:1]) | wanted).json["outputs"] == [output]
        rest.close()


def test_more_classes_than_can_be_made_at_a_time_are_refused(rest: Rest) -> None:
    shape = (64, 2000)
    ids = {"name": "ids", "shape": shape, "datatype": "INT64", "parameters": {"binary_data_size": 8 * 64 * 2000}}
    for count, status in ((10**9, 400), (MOST_CLASSES // 64 + 1, 400), (3, 200)):
        wish = {"inputs": [ids], "outputs": [{"name": "y", "parameters": {"classification": count}}]}
        answer = rest.binary("lookup", wish, bytes(8 * 64 * 2000))
        assert answer.status == status
    assert answer.json["outputs"][0]["shape"] == [64, 3]

"""config.pbtxt: golden texts, read back by Triton's own protobuf."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from jr_onnx.deploy.model import ModelFacts, TensorFacts
from jr_onnx.deploy.options import Batching, OpLibrary, Placement, TritonOptions, WarmUp, default_model_name
from jr_onnx.deploy.triton_config import config_text, interface_for
from jr_onnx.errors import InputError, ModelError, RefusalError
from jr_onnx.rows import Joining
from tests.deploy.builders import interpreter_with, run_script

GOLDEN = Path(__file__).parent / "golden"
PARSE = """
import json, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
texts = json.load(sys.stdin)
parsed = {name: text_format.Parse(text, model_config_pb2.ModelConfig()) for name, text in texts.items()}
as_json = {name: json_format.MessageToDict(config, preserving_proto_field_name=True) for name, config in parsed.items()}
json.dump(as_json, sys.stdout)
"""

IMAGE = TensorFacts("x", TensorProto.FLOAT, (-1, 3, 32, 32))
LOGITS = TensorFacts("y", TensorProto.FLOAT, (-1, 10))


def facts(inputs: tuple[TensorFacts, ...] = (IMAGE,), outputs: tuple[TensorFacts, ...] = (LOGITS,)) -> ModelFacts:
    return ModelFacts(
        ir_version=8,
        opset=17,
        inputs=inputs,
        outputs=outputs,
        external=(),
        custom_ops=(),
        fallbacks=(),
        draws_in_op=False,
        provenance=None,
    )


def may_join(shown: Sequence[TensorFacts]) -> Joining:
    return Joining(join=True, reason="they are independent")


def text(model: ModelFacts, options: TritonOptions, **extra: Any) -> str:
    return config_text(interface_for(model, options, may_join), options, **extra)


def cases() -> dict[str, str]:
    """Every feature of a configuration, by the name of its golden file."""
    odd = TensorFacts('a "b" \\ \N{SNOWMAN}\n\x07', TensorProto.FLOAT, (-1, 4))
    return {
        "plain": text(facts(), TritonOptions(name="plain")),
        "gpu": text(
            facts(),
            TritonOptions(
                name="gpu",
                batching=Batching(64, (16, 32), 250),
                placement=Placement("gpu", 2, (0, 1), "tensorrt", "FP16"),
                all_versions=True,
            ),
            labels_output="y",
            library="/models/gpu/libops.so",
        ),
        "cuda": text(facts(), TritonOptions(name="cuda", placement=Placement("gpu", accelerator="cuda"))),
        "no_batch": text(
            facts(
                (TensorFacts("x", TensorProto.DOUBLE, (1, 3, 32, 32)), TensorFacts("s", TensorProto.INT64, ())),
                (TensorFacts("y", TensorProto.BOOL, ()),),
            ),
            TritonOptions(name="no_batch", placement=Placement(threads=2)),
        ),
        "one_number_each": text(
            facts((TensorFacts("x", TensorProto.STRING, (-1,)),), (TensorFacts("y", TensorProto.UINT8, (-1,)),)),
            TritonOptions(name="one_number_each", batching=Batching(8)),
        ),
        "open_sizes": text(
            facts(
                (TensorFacts("x", TensorProto.FLOAT16, (-1, 3, -1, -1)), TensorFacts("t", TensorProto.INT32, (-1, -1)))
            ),
            TritonOptions(name="open_sizes", warm_up=WarmUp(shapes={"t": (7,)})),
        ),
        "no_warm_up": text(
            facts((TensorFacts("t", TensorProto.INT32, (-1, -1)),)),
            TritonOptions(name="no_warm_up", warm_up=WarmUp(enabled=False)),
        ),
        "odd_names": text(facts((odd,), (LOGITS,)), TritonOptions(name="odd_names", batching=Batching(1))),
    }


@pytest.mark.parametrize("name", sorted(cases()))
def test_the_text_is_the_golden_one(name: str) -> None:
    golden = GOLDEN / f"{name}.pbtxt"
    assert cases()[name] == golden.read_text(encoding="utf-8")


def test_every_golden_file_is_tested() -> None:
    assert {path.stem for path in GOLDEN.glob("*.pbtxt")} == set(cases())


@pytest.fixture(scope="module")
def parsed() -> Any:
    """The configurations as Triton's protobuf reads them, in a process of its own."""
    return run_script(interpreter_with("tritonclient"), PARSE, cases())


def test_triton_reads_the_plain_configuration(parsed: Any) -> None:
    config = parsed["plain"]
    assert config["platform"] == "onnxruntime_onnx"
    assert config["backend"] == "onnxruntime"
    assert config["max_batch_size"] == 32
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3", "32", "32"]}]
    assert config["output"] == [{"name": "y", "data_type": "TYPE_FP32", "dims": ["10"]}]
    assert config["instance_group"] == [{"count": 1, "kind": "KIND_CPU"}]
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": "500"}
    assert [sample["batch_size"] for sample in config["model_warmup"]] == [1, 32]


def test_triton_reads_everything_about_the_gpu(parsed: Any) -> None:
    config = parsed["gpu"]
    assert config["instance_group"] == [{"count": 2, "kind": "KIND_GPU", "gpus": [0, 1]}]
    assert config["dynamic_batching"]["preferred_batch_size"] == [16, 32]
    accelerator = {"name": "tensorrt", "parameters": {"precision_mode": "FP16"}}
    assert config["optimization"]["execution_accelerators"]["gpu_execution_accelerator"] == [accelerator]
    assert config["version_policy"] == {"all": {}}
    assert config["output"][0]["label_filename"] == "labels.txt"
    assert config["model_operations"]["op_library_filename"] == ["/models/gpu/libops.so"]
    assert parsed["cuda"]["optimization"]["execution_accelerators"]["gpu_execution_accelerator"] == [{"name": "cuda"}]


def test_triton_reads_scalars_as_the_backend_wants_them(parsed: Any) -> None:
    config = parsed["no_batch"]
    assert config.get("max_batch_size", 0) == 0
    assert "dynamic_batching" not in config
    assert [entry["dims"] for entry in config["input"]] == [["1", "3", "32", "32"], ["1"]]
    assert "reshape" not in config["input"][1]
    assert config["parameters"]["intra_op_thread_count"]["string_value"] == "2"
    assert parsed["one_number_each"]["input"][0] == {
        "name": "x",
        "data_type": "TYPE_STRING",
        "dims": ["1"],
        "reshape": {},
    }


def test_triton_reads_odd_names_as_they_are(parsed: Any) -> None:
    assert parsed["odd_names"]["input"][0]["name"] == 'a "b" \\ \N{SNOWMAN}\n\x07'


def test_triton_reads_warm_up_shapes_without_open_sizes(parsed: Any) -> None:
    for config in parsed.values():
        for sample in config.get("model_warmup", []):
            for value in sample["inputs"].values():
                assert value["zero_data"] is True
                assert all(int(size) >= 1 for size in value["dims"])
    shapes = {key: value["dims"] for key, value in parsed["open_sizes"]["model_warmup"][0]["inputs"].items()}
    assert shapes == {"x": ["3", "224", "224"], "t": ["7"]}
    assert "model_warmup" not in parsed["no_warm_up"]


def test_no_configuration_holds_a_queue_policy() -> None:
    for written in cases().values():
        assert "default_queue_policy" not in written


def test_a_fixed_first_dimension_means_no_batches() -> None:
    fixed = facts((TensorFacts("x", TensorProto.FLOAT, (1, 3)),))
    assert interface_for(fixed, TritonOptions(name="a"), may_join).max_batch == 0
    with pytest.raises(RefusalError, match="batches of 8 were asked for, but 'x' has the shape") as caught:
        interface_for(fixed, TritonOptions(name="a", batching=Batching(8)), may_join)
    assert "--max-batch 0" in caught.value.hint


def test_a_fixed_output_means_no_batches_either() -> None:
    fixed = facts(outputs=(TensorFacts("y", TensorProto.FLOAT, (1, 10)),))
    assert interface_for(fixed, TritonOptions(name="a"), may_join).max_batch == 0


def test_preferred_batches_beyond_the_largest_are_refused() -> None:
    with pytest.raises(InputError, match="expected at most 8"):
        interface_for(facts(), TritonOptions(name="a", batching=Batching(8, (16,))), may_join)


def test_requests_to_a_model_that_draws_its_kappa_are_not_joined() -> None:
    drawing = dataclasses.replace(facts(), draws_in_op=True)
    written = text(drawing, TritonOptions(name="a"))
    assert "max_batch_size: 32" in written  # a client may still send several images at once
    assert "dynamic_batching" not in written
    with pytest.raises(InputError, match="not joined, because the model draws its kappa"):
        interface_for(drawing, TritonOptions(name="a", batching=Batching(8, (4,))), may_join)


def test_a_largest_batch_of_one_leaves_nothing_to_join() -> None:
    assert "dynamic_batching" not in text(facts(), TritonOptions(name="a", batching=Batching(1)))
    for size in (0, 1):
        with pytest.raises(InputError, match=f"not joined, because the largest batch is {size}"):
            interface_for(facts(), TritonOptions(name="a", batching=Batching(size, (1,))), may_join)


def test_hidden_initializers_are_not_shown() -> None:
    model = facts((IMAGE, TensorFacts("w", TensorProto.BFLOAT16, None, optional=True)))
    assert [tensor.name for tensor in interface_for(model, TritonOptions(name="a"), may_join).inputs] == ["x"]


@pytest.mark.parametrize(
    "element_type", [TensorProto.BFLOAT16, TensorProto.COMPLEX64, TensorProto.FLOAT8E4M3FN, TensorProto.INT4]
)
def test_a_type_that_the_backend_cannot_carry_is_refused(element_type: int) -> None:
    name = TensorProto.DataType.Name(element_type).lower()
    with pytest.raises(ModelError, match=f"'x' is of type {name}"):
        interface_for(facts((TensorFacts("x", element_type, (-1, 3)),)), TritonOptions(name="a"), may_join)


def test_a_type_that_onnx_does_not_know_is_refused_by_number() -> None:
    with pytest.raises(ModelError, match="'x' is of type 123"):
        interface_for(facts((TensorFacts("x", 123, (-1, 3)),)), TritonOptions(name="a"), may_join)


def test_every_type_that_is_written_is_one_of_tritons() -> None:
    kinds = [value for value in TensorProto.DataType.values() if value]
    written = set()
    for kind in kinds:
        try:
            interface = interface_for(facts((TensorFacts("x", kind, (-1, 3)),)), TritonOptions(name="a"), may_join)
        except ModelError:
            continue
        written.add(interface.inputs[0].data_type)
    assert len(written) == 13
    script = (
        "import json, sys\nfrom tritonclient.grpc import model_config_pb2 as p\n"
        "names = json.load(sys.stdin)\njson.dump([n for n in names if n not in p.DataType.keys()], sys.stdout)"
    )
    assert run_script(interpreter_with("tritonclient"), script, sorted(written)) == []


def test_a_model_without_inputs_is_refused() -> None:
    hidden = TensorFacts("w", TensorProto.FLOAT, (3,), optional=True)
    for inputs in ((), (hidden,)):
        with pytest.raises(ModelError, match="the model takes no input"):
            interface_for(facts(inputs), TritonOptions(name="a"), may_join)


def test_an_unknown_or_empty_shape_is_refused() -> None:
    with pytest.raises(ModelError, match="the shape of 'y' is unknown"):
        interface_for(facts(outputs=(TensorFacts("y", TensorProto.FLOAT, None),)), TritonOptions(name="a"), may_join)
    with pytest.raises(ModelError, match="expected sizes of at least 1"):
        interface_for(facts(outputs=(TensorFacts("y", TensorProto.FLOAT, (-1, 0)),)), TritonOptions(name="a"), may_join)


@pytest.mark.parametrize("shape", [(3,), (3, 8, 8), (2, 0), (2, 3), (-1, 4)])
def test_a_warm_up_shape_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    model = facts((TensorFacts("x", TensorProto.FLOAT, (-1, -1, 4)),))
    with pytest.raises(InputError, match="the warm-up shape of 'x' is"):
        text(model, TritonOptions(name="a", warm_up=WarmUp(shapes={"x": shape})))


def test_an_input_of_open_size_needs_a_warm_up_shape() -> None:
    model = facts((TensorFacts("x", TensorProto.FLOAT, (-1, -1, 4)),))
    with pytest.raises(InputError, match="no warm-up shape is known for 'x'") as caught:
        text(model, TritonOptions(name="a"))
    assert "--warmup-shape x:1,4" in caught.value.hint


def test_a_warm_up_shape_for_no_input_is_refused() -> None:
    with pytest.raises(InputError, match="'z', which is not an input"):
        text(facts(), TritonOptions(name="a", warm_up=WarmUp(shapes={"z": (1,)})))


def test_a_batch_dimension_outside_batching_is_warmed_up_with_one() -> None:
    written = text(facts(), TritonOptions(name="a", batching=Batching(0)))
    assert "dims: [ 1, 3, 32, 32 ]" in written
    assert "batch_size: 1\n" in written


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a b", "a\n", "ü", "-x", "a" * 129, "a\\b", "$x"])
def test_a_name_that_is_no_safe_folder_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="the model name is"):
        TritonOptions(name=name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TritonOptions(name="a", version=0), "the version is 0"),
        (lambda: TritonOptions(name="a", version=2**31), "the version is 2147483648"),
        (lambda: TritonOptions(name="a", release="latest"), "expected year and month"),
        (lambda: TritonOptions(name="a", labels_output="y"), "an output for labels was named, but no labels"),
        (lambda: Batching(-1), "the largest batch is -1"),
        (lambda: Batching(delay_us=-1), "the batching delay in microseconds is -1"),
        (lambda: Batching(preferred=(0,)), "a preferred batch size is"),
        (lambda: Placement(instances=0), "the number of instances is 0"),
        (lambda: Placement(threads=0), "the number of threads is 0"),
        (lambda: Placement(gpus=(0,)), r"GPUs \[0\] were asked for a model on the CPU"),
        (lambda: Placement(accelerator="cuda"), "the accelerator 'cuda' was asked for a model on the CPU"),
        (lambda: Placement("gpu", gpus=(0, 0)), "expected different numbers"),
        (lambda: Placement("gpu", accelerator="cuda", precision="FP16"), "precision FP16 needs TensorRT"),
        (lambda: OpLibrary("models"), "expected an absolute path"),
        (lambda: OpLibrary("/models/../etc"), "expected an absolute path"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_the_default_name_is_that_of_the_file() -> None:
    assert default_model_name(Path("a/digits.jr.onnx")) == "digits"
    assert default_model_name(Path("digits_v2.onnx")) == "digits_v2"
    with pytest.raises(InputError, match="--name"):
        default_model_name(Path("my model.onnx"))

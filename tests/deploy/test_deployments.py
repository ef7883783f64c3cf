"""KServe and compose packages: what is written, checked against the specifications' own models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jr_onnx.deploy import (
    ComposeOptions,
    KServeOptions,
    OpLibrary,
    Placement,
    Publish,
    Resources,
    Scaling,
    TritonOptions,
    package_compose,
    package_kserve,
    package_triton,
    verify,
)
from jr_onnx.errors import InputError, IntegrityError, OutputError, RefusalError
from jr_onnx.rewriter import rewrite
from tests.deploy.builders import interpreter_with, run_script, tree

URI = "s3://bucket/models"
# Walks a document beside KServe's own classes: every field must be known, every value of the declared type.
VALIDATE = """
import json, re, sys
import kserve.models, kubernetes.client.models as kubernetes
SCALARS = {"str": str, "int": int, "float": (int, float), "bool": bool, "object": object}
problems = []
def find(name):
    return getattr(kserve.models, name, None) or getattr(kubernetes, name, None)
def walk(value, kind, where):
    inner = re.fullmatch(r"([Ll]ist|[Dd]ict)[(\\[](?:str, )?(.+)[)\\]]", kind)
    if inner and inner.group(1).lower() == "list":
        if not isinstance(value, list):
            return problems.append(f"{where}: no list")
        for index, item in enumerate(value):
            walk(item, inner.group(2), f"{where}[{index}]")
    elif inner:
        if not isinstance(value, dict):
            return problems.append(f"{where}: no mapping")
        for key, item in value.items():
            walk(item, inner.group(2), f"{where}.{key}")
    elif kind == "ResourceQuantity":
        if not re.fullmatch(r"[0-9.]+(m|Ki|Mi|Gi|Ti)?", value):
            problems.append(f"{where}: no quantity: {value}")
    elif kind in SCALARS:
        if not isinstance(value, SCALARS[kind]) or (kind == "int" and isinstance(value, bool)):
            problems.append(f"{where}: {value!r} is no {kind}")
    elif find(kind) is None:
        problems.append(f"{where}: the class {kind} is unknown")
    else:
        walk_class(value, find(kind), where)
def walk_class(value, cls, where):
    names = {json_name: name for name, json_name in cls.attribute_map.items()}
    for key, item in value.items():
        if key not in names:
            problems.append(f"{where}: {cls.__name__} has no field {key}")
        else:
            walk(item, cls.openapi_types[names[key]], f"{where}.{key}")
ROOTS = {"InferenceService": "V1beta1InferenceService", "ServingRuntime": "V1alpha1ServingRuntime"}
for document in json.load(sys.stdin):
    walk_class(document, find(ROOTS[document["kind"]]), document["kind"])
json.dump(problems, sys.stdout)
"""


def _documents(folder: Path) -> tuple[Any, Any]:
    texts = [(folder / name).read_text(encoding="utf-8") for name in ("inferenceservice.yaml", "servingruntime.yaml")]
    service, runtime = (yaml.safe_load(text) for text in texts)
    return service, runtime


def test_the_service_names_storage_runtime_and_version(repository: Path, tmp_path: Path) -> None:
    deployed = package_kserve(repository, tmp_path / "out", KServeOptions(storage_uri=URI))
    assert [path.name for path in deployed.files] == ["servingruntime.yaml", "inferenceservice.yaml"]
    service, runtime = _documents(tmp_path / "out")
    model = service["spec"]["predictor"]["model"]
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["metadata"]["name"] == "net"
    assert model["storageUri"] == URI
    assert model["runtimeVersion"] == "26.08-py3"
    assert model["runtime"] == runtime["metadata"]["name"] == "net-triton"
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    formats = [{key: entry[key] for key in ("name", "version")} for entry in runtime["spec"]["supportedModelFormats"]]
    assert model["modelFormat"] in formats


def test_the_container_is_not_root_and_has_probes_and_limits(repository: Path, tmp_path: Path) -> None:
    package_kserve(repository, tmp_path / "out", KServeOptions(storage_uri=URI, resources=Resources("500m", "2Gi")))
    service, runtime = _documents(tmp_path / "out")
    (container,) = runtime["spec"]["containers"]
    assert container["image"].endswith("/tritonserver:26.08-py3")
    assert container["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": 8080}
    assert container["ports"] == [{"name": "http1", "containerPort": 8080, "protocol": "TCP"}]
    assert "--model-repository=/mnt/models" in container["args"]
    limits = {"cpu": "500m", "memory": "2Gi"}
    assert container["resources"] == {"requests": limits, "limits": limits}
    assert service["spec"]["predictor"]["model"]["resources"] == container["resources"]


def test_scaling_and_places_are_those_asked_for(repository: Path, tmp_path: Path) -> None:
    options = KServeOptions(
        storage_uri="pvc://claim/models",
        name="my-service",
        namespace="production",
        release="26.04",
        transport="grpc",
        scaling=Scaling(0, 9, 32),
        service_account="reader",
    )
    with pytest.raises(RefusalError, match=r"packaged for Triton 26\.08, the deployment runs 26\.04"):
        package_kserve(repository, tmp_path / "out", options)
    package_triton(repository / "net/1/model.onnx", repository, TritonOptions(name="net", release="26.04", force=True))
    package_kserve(repository, tmp_path / "out", options)
    service, runtime = _documents(tmp_path / "out")
    predictor = service["spec"]["predictor"]
    assert [predictor[key] for key in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget")] == [
        0,
        9,
        "concurrency",
        32,
    ]
    assert predictor["serviceAccountName"] == "reader"
    assert predictor["model"]["runtimeVersion"] == "26.04-py3"
    assert predictor["model"]["protocolVersion"] == "grpc-v2"
    assert service["metadata"]["namespace"] == runtime["metadata"]["namespace"] == "production"
    (container,) = runtime["spec"]["containers"]
    assert container["ports"][0] == {"name": "h2c", "containerPort": 9000, "protocol": "TCP"}
    assert container["readinessProbe"]["grpc"] == {"port": 9000}


def test_a_gpu_is_asked_for_where_a_model_needs_one(gpu_repository: Path, tmp_path: Path) -> None:
    package_kserve(gpu_repository, tmp_path / "out", KServeOptions(storage_uri=URI))
    service, _ = _documents(tmp_path / "out")
    resources = service["spec"]["predictor"]["model"]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"
    with pytest.raises(RefusalError, match="runs on a GPU, the deployment has none"):
        package_kserve(gpu_repository, tmp_path / "none", KServeOptions(storage_uri=URI, gpus=0))


@pytest.mark.parametrize(
    "options",
    [
        KServeOptions(storage_uri=URI),
        KServeOptions(
            storage_uri=URI, gpus=2, transport="grpc", namespace="a", service_account="b", scaling=Scaling(0, 2, 1)
        ),
    ],
)
def test_kserves_own_models_know_every_field_and_type(repository: Path, tmp_path: Path, options: KServeOptions) -> None:
    package_kserve(repository, tmp_path / "out", options)
    documents = list(_documents(tmp_path / "out"))
    assert run_script(interpreter_with("kserve"), VALIDATE, documents) == []


def test_that_validation_would_find_a_wrong_field_and_a_wrong_type(repository: Path, tmp_path: Path) -> None:
    package_kserve(repository, tmp_path / "out", KServeOptions(storage_uri=URI))
    service, runtime = _documents(tmp_path / "out")
    service["spec"]["predictor"]["minReplica"] = 1
    service["spec"]["predictor"]["maxReplicas"] = "3"
    runtime["spec"]["containers"][0]["readinessProbe"]["httpGet"]["pth"] = "/"
    assert sorted(run_script(interpreter_with("kserve"), VALIDATE, [service, runtime])) == [
        "InferenceService.spec.predictor.maxReplicas: '3' is no int",
        "InferenceService.spec.predictor: V1beta1PredictorSpec has no field minReplica",
        "ServingRuntime.spec.containers[0].readinessProbe.httpGet: V1HTTPGetAction has no field pth",
    ]


def test_several_models_need_a_name_for_their_service(repository: Path, tmp_path: Path, model: Path) -> None:
    package_triton(model, repository, TritonOptions(name="other"))
    with pytest.raises(InputError, match=r"holds 2 models \(net, other\)"):
        package_kserve(repository, tmp_path / "out", KServeOptions(storage_uri=URI))
    package_kserve(repository, tmp_path / "out", KServeOptions(storage_uri=URI, name="both"))


def test_a_models_name_becomes_one_of_kubernetes(tmp_path: Path, model: Path) -> None:
    package_triton(model, tmp_path / "r", TritonOptions(name="Digits_CNN.v2"))
    package_kserve(tmp_path / "r", tmp_path / "out", KServeOptions(storage_uri=URI))
    assert _documents(tmp_path / "out")[0]["metadata"]["name"] == "digits-cnn-v2"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KServeOptions(storage_uri="models"), "the storage URI is 'models'"),
        (lambda: KServeOptions(storage_uri="s3://a b"), "the storage URI is"),
        (lambda: KServeOptions(storage_uri=URI, namespace="A"), "the namespace is 'A'"),
        (lambda: KServeOptions(storage_uri=URI, service_account="a\n"), "the service account is"),
        (lambda: KServeOptions(storage_uri=URI, gpus=-1), "the number of GPUs is -1"),
        (lambda: KServeOptions(storage_uri=URI, load_seconds=0), "the loading time in seconds is 0"),
        (lambda: Scaling(2, 1), "the replicas are 2 to 1"),
        (lambda: Scaling(0, 0), "the replicas are 0 to 0"),
        (lambda: Scaling(concurrency=0), "the target concurrency is 0"),
        (lambda: Resources(cpus="two"), "the CPU limit is 'two'"),
        (lambda: Resources(cpus="0"), "the CPU limit is '0'"),
        (lambda: Resources(memory="4G"), "the memory limit is '4G'"),
        (lambda: ComposeOptions(name="-x"), "the project name is"),
        (lambda: ComposeOptions(name=""), "the project name is"),
        (lambda: ComposeOptions(replicas=0), "the number of replicas is 0"),
        (lambda: ComposeOptions(replicas=17), "the number of replicas is 17"),
        (lambda: ComposeOptions(gpus=(0, 0)), "expected each once"),
        (lambda: ComposeOptions(load_seconds=0), "the loading time in seconds is 0"),
        (lambda: ComposeOptions(request_seconds=0), "the time for a request in seconds is 0"),
        (lambda: Publish("localhost"), "expected an IP address"),
        (lambda: Publish(http_port=0), "the ports are"),
        (lambda: Publish(http_port=8001), "the ports are"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_damaged_repository_is_not_deployed(repository: Path, tmp_path: Path) -> None:
    (repository / "net/1/model.onnx").unlink()
    for deploy in (_kserve, _compose):
        with pytest.raises(IntegrityError, match="is missing"):
            deploy(repository, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _kserve(repository: Path, target: Path, **options: Any) -> object:
    return package_kserve(repository, target, KServeOptions(storage_uri=URI, **options))


def _compose(repository: Path, target: Path, **options: Any) -> object:
    return package_compose(repository, target, ComposeOptions(**options))


@pytest.mark.parametrize("deploy", [_kserve, _compose])
def test_a_deployment_is_not_overwritten_unasked(repository: Path, tmp_path: Path, deploy: Any) -> None:
    target = tmp_path / "out"
    deploy(repository, target)
    before = tree(target)
    with pytest.raises(OutputError, match="already exists"):
        deploy(repository, target, name="changed")
    assert tree(target) == before
    deploy(repository, target, name="changed", force=True)
    assert tree(target) != before
    (package,) = verify(target)
    assert package.label == "changed"


@pytest.mark.parametrize("deploy", [_kserve, _compose])
def test_force_does_not_replace_what_is_no_such_package(repository: Path, tmp_path: Path, deploy: Any) -> None:
    target = tmp_path / "home"
    target.mkdir()
    (target / "thesis.tex").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="so --force does not replace it"):
        deploy(repository, target, force=True)
    assert tree(target) == {"thesis.tex": b""}


@pytest.mark.parametrize(("deploy", "path"), [(_kserve, "/mnt/models"), (_compose, "/models")])
def test_the_operator_library_must_lie_where_a_replica_sees_it(
    tmp_path: Path, model: Path, deploy: Any, path: str
) -> None:
    library = tmp_path / "libops.so"
    library.write_bytes(b"\x7fELF")
    custom = tmp_path / "custom.onnx"
    rewrite(model, 0.06, output=custom, lowering="custom")
    package_triton(custom, tmp_path / "wrong", TritonOptions(name="net", op_library=OpLibrary("/srv", library)))
    with pytest.raises(RefusalError, match="opens its operator library below /srv") as caught:
        deploy(tmp_path / "wrong", tmp_path / "out")
    assert f"--repository-path-on-server {path}" in caught.value.hint
    package_triton(custom, tmp_path / "right", TritonOptions(name="net", op_library=OpLibrary(path, library)))
    deploy(tmp_path / "right", tmp_path / "out")


@pytest.mark.parametrize("part", ["net", "net/1"])
def test_only_a_whole_repository_is_deployed(repository: Path, tmp_path: Path, part: str) -> None:
    with pytest.raises(InputError, match="is not a model repository"):
        _kserve(repository / part, tmp_path / "out")


def test_a_model_that_names_gpus_a_replica_lacks_is_refused(tmp_path: Path, model: Path) -> None:
    options = TritonOptions(name="net", placement=Placement("gpu", gpus=(0, 1)))
    package_triton(model, tmp_path / "r", options)
    with pytest.raises(RefusalError, match="names GPU 1, a replica sees 1"):
        _compose(tmp_path / "r", tmp_path / "out", gpus=(0, 1))
    _kserve(tmp_path / "r", tmp_path / "out", gpus=2)


def test_the_files_hold_no_yaml_anchors(repository: Path, tmp_path: Path) -> None:
    _compose(repository, tmp_path / "compose")
    _kserve(repository, tmp_path / "kserve")
    for path in (*(tmp_path / "compose").glob("*.yaml"), *(tmp_path / "kserve").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        assert "&id" not in text
        assert "*id" not in text

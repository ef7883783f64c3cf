"""What the server refuses to start with, each with one line that says what and why."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.deploy import TritonOptions, package_triton
from jr_onnx.errors import InputError, IntegrityError, ModelError
from jr_onnx.runtime.providers import require_providers
from jr_onnx.serve.catalogue import Catalogue
from jr_onnx.serve.opening import interface_of, open_session, read_checked
from jr_onnx.serve.options import Limits, Running
from jr_onnx.serve.private import read_privately
from jr_onnx.serve.start import on_usable_providers, secret_warnings
from tests.deploy.builders import make_keys
from tests.serve.support import GOOD, Rest
from tools.checks.serving.processes import ROOT, jr_onnx, running


def refused(*arguments: str | Path) -> tuple[int, str]:
    """Start a server that does not start, and return its exit code and what it said."""
    done = subprocess.run(
        [sys.executable, *jr_onnx(*arguments)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


def open_model(path: Path) -> None:
    """Do to a model file what the server does before it opens a session."""
    interface_of("net", "1", read_checked(read_privately(path.resolve())), Running(), Limits())


@pytest.fixture
def repository(tmp_path: Path, models: dict[str, Path]) -> Path:
    root = tmp_path / "repository"
    package_triton(models["fixed"], root, TritonOptions(name="net"))
    return root


def test_a_package_that_was_changed_is_refused(repository: Path) -> None:
    path = repository / "net" / "1" / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    code, said = refused(repository)
    assert (code, "does not match its manifest" in said) == (7, True)


def test_a_repository_without_manifests_is_refused(repository: Path) -> None:
    (repository / "net" / "1" / "jr_onnx.manifest").unlink()
    with pytest.raises(IntegrityError, match=r"holds no jr_onnx\.manifest"):
        Catalogue([str(repository)])


def test_an_unsigned_package_is_refused_where_a_key_is_given(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("model_signing", reason="model-signing is not installed")
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = tmp_path / "public.pem"
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(IntegrityError, match="sign"):
        Catalogue([str(repository)], key=key)
    with pytest.raises(IntegrityError, match="carries no signature"):
        Catalogue([str(repository / "net" / "1" / "model.onnx")], key=key)


def test_versions_are_served_and_a_package_is_verified_again_on_load(repository: Path, models: dict[str, Path]) -> None:
    package_triton(models["fixed"], repository, TritonOptions(name="net", version=2))
    with running(jr_onnx(repository)) as server:
        client = Rest(server.http_port)
        assert client.get("/v2/models/net").json["versions"] == ["2"], "the latest, unless --all-versions"
        assert client.infer("net", GOOD).json["model_version"] == "2"
        package_triton(models["drawn"], repository, TritonOptions(name="late", allow_fixed_kappa=True))
        assert client.infer("late", GOOD).status == 404
        assert client.ask("POST", "/v2/repository/models/late/load").status == 200
        assert client.get("/v2/models/late/ready").status == 200
        path = repository / "net" / "2" / "model.onnx"
        path.write_bytes(path.read_bytes() + b"\0")
        answer = client.ask("POST", "/v2/repository/models/net/load")
        assert (answer.status, "does not match its manifest" in answer.error) == (409, True)
        assert str(repository) not in answer.error, "where files lie is for the operator to know"
        assert str(repository) in server.log
        assert client.infer("net", GOOD).status == 200, "the loaded model stays"
        client.close()


def test_all_versions(repository: Path, models: dict[str, Path]) -> None:
    package_triton(models["fixed"], repository, TritonOptions(name="net", version=2))
    with running(jr_onnx(repository, "--all-versions")) as server:
        client = Rest(server.http_port)
        answers = [client.ask("POST", f"/v2/models/net/versions/{number}/infer", GOOD) for number in (1, 2)]
        assert [answer.json["model_version"] for answer in answers] == ["1", "2"]
        client.close()


def test_external_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    weight = numpy_helper.from_array(np.zeros(16, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../secret.bin"), ("length", "64")):
        weight.external_data.add(key=key, value=value)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 16]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"\.\./secret\.bin"):
        open_model(folder / "model.onnx")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"is not an ONNX model|expected an ONNX model"):
        open_model(tmp_path / "bad.onnx")


def test_invalid_names_are_refused(tmp_path: Path, models: dict[str, Path]) -> None:
    fixed = models["fixed"]
    for sources, says in (
        ([str(tmp_path / "none.onnx")], "there is no model file"),
        ([str(fixed), f"fixed={models['drawn']}"], "two models of the name 'fixed'"),
        ([f"a/b={fixed}"], "not a valid model name"),
        ([f"net={tmp_path}"], "gives a name to a repository"),
    ):
        with pytest.raises(InputError, match=says):
            Catalogue(sources)


def test_a_file_is_named_after_itself(models: dict[str, Path]) -> None:
    assert Catalogue([str(models["fixed"]), f"other={models['drawn']}"]).names() == ["fixed", "other"]


def test_a_bfloat16_model_is_refused(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ["N"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "b.onnx")
    with pytest.raises(ModelError, match="bfloat16, which the server cannot carry"):
        open_model(tmp_path / "b.onnx")


def test_a_port_that_is_taken_is_refused(models: dict[str, Path]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, said = refused(models["fixed"], "--http-port", port)
        assert (code, f"cannot listen on 127.0.0.1:{port} for HTTP" in said) == (2, True)


def test_the_server_is_reached_on_loopback_only_and_never_imports_torch(models: dict[str, Path]) -> None:
    with running(jr_onnx(models["fixed"])) as server:
        listening = set()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{server.process.pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                address, state = line.split()[1], line.split()[3]
                host, port = address.split(":")
                if state == "0A" and int(port, 16) in (server.http_port, server.grpc_port):
                    listening.add(host)
        assert listening <= {"0100007F", "0000000000000000FFFF00000100007F"}, "127.0.0.1, and the same in IPv6"
        assert listening
        maps = Path(f"/proc/{server.process.pid}/maps").read_text(encoding="utf-8")
        assert "onnxruntime" in maps
        assert "libtorch" not in maps


def test_a_package_below_another_models_folder_is_not_served_under_its_name(
    repository: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    catalogue = Catalogue([str(repository)])
    (repository / "fraud").mkdir()
    shutil.copytree(repository / "net", repository / "fraud" / "net")
    with pytest.raises(IntegrityError, match="expected directly below"):
        catalogue.find("fraud")
    with pytest.raises(IntegrityError, match="expected directly below the repository"):
        Catalogue([str(repository)])
    shutil.rmtree(repository / "fraud")
    with pytest.raises(IntegrityError, match="expected directly below"):
        Catalogue([str(repository / "net")])
    assert [entry.name for entry in catalogue.find("net")] == ["net"]


def test_an_older_signed_package_is_refused_by_date(tmp_path: Path, models: dict[str, Path]) -> None:
    pytest.importorskip("model_signing", reason="model-signing is not installed")
    private, public = make_keys(tmp_path / "keys")
    package_triton(models["fixed"], tmp_path / "signed", TritonOptions(name="net", sign_key=private))
    source = str(tmp_path / "signed")
    assert Catalogue([source], key=public, not_before=datetime(2026, 1, 1, tzinfo=UTC)).names() == ["net"]
    with pytest.raises(IntegrityError, match="expected not before 2999"):
        Catalogue([source], key=public, not_before=datetime(2999, 1, 1, tzinfo=UTC))


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(InputError, match=r"has no provider 'Nonsense' here, expected .*CPUExecutionProvider"):
        require_providers(["Nonsense", "CPUExecutionProvider"])
    require_providers(["CPUExecutionProvider"])


def test_a_provider_that_falls_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime lists CUDA on machines without a GPU and runs on the CPU in silence."""
    import onnxruntime

    cuda = "CUDAExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda, "CPUExecutionProvider"])
    with pytest.raises(InputError, match=f"the provider {cuda} is not usable here: "):
        require_providers([cuda])


def test_a_provider_that_does_not_work_is_left_out_where_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    from jr_onnx.runtime import providers

    def require(names: tuple[str, ...]) -> None:
        if "CUDAExecutionProvider" in names:
            raise InputError("the provider CUDAExecutionProvider is not usable here: no driver")

    monkeypatch.setattr(providers, "require_providers", require)
    said: list[str] = []
    running = on_usable_providers(Running(providers=("cuda", "cpu"), allow_fallback=True), said.append)
    assert running.providers == ("CPUExecutionProvider",)
    (warning,) = said
    assert warning.startswith("warning: the provider CUDAExecutionProvider is not usable here: no driver")
    assert on_usable_providers(Running(providers=("cpu",)), said.append).providers == ("CPUExecutionProvider",)


def test_a_session_on_another_provider_than_asked_for_is_refused(models: dict[str, Path]) -> None:
    model = read_privately(models["fixed"].resolve())
    with pytest.raises((InputError, ModelError), match=r"CPUExecutionProvider|Nonsense"):
        open_session(model, Running(providers=("Nonsense", "CPUExecutionProvider")))


@pytest.mark.parametrize(
    ("mode", "said"),
    [(0o600, []), (0o640, []), (0o644, ["can read"]), (0o660, ["can write"]), (0o666, ["can read", "can write"])],
)
def test_a_secret_that_others_can_read_is_named(tmp_path: Path, mode: int, said: list[str]) -> None:
    path = tmp_path / "token"
    path.write_text("a-long-token\n")
    path.chmod(mode)
    found = list(secret_warnings(path))
    assert len(found) == len(said)
    assert all(words in line and str(path) in line for words, line in zip(said, found, strict=True))


@pytest.mark.parametrize("option", ["--token-file", "--tls-cert"])
def test_a_pipe_in_the_place_of_a_secret_is_not_waited_for(
    models: dict[str, Path], tmp_path: Path, option: str
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    more = ("--tls-key", pipe) if option == "--tls-cert" else ()
    code, said = refused(models["fixed"], option, pipe, *more)
    assert code == 2
    assert "is not a regular file" in said

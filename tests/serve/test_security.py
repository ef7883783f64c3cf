"""Tokens and TLS, over both transports."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jr_onnx.errors import InputError
from jr_onnx.serve.faults import UnauthorizedError
from jr_onnx.serve.gate import Gate
from jr_onnx.serve.options import Address
from jr_onnx.serve.start import check_certificate
from tests.serve.support import GOOD, Rest
from tools.checks.serving.processes import ServerProcess, jr_onnx, running

TOKEN = "correct-horse-battery"
LIVE = "/inference.GRPCInferenceService/ServerLive"
METADATA = "/inference.GRPCInferenceService/ServerMetadata"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    x509 = pytest.importorskip("cryptography.x509", reason="cryptography is not installed")
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def guarded(certificate: tuple[Path, Path], models: dict[str, Path]) -> Iterator[ServerProcess]:
    cert, key = certificate
    token = cert.with_name("token")
    token.write_text(TOKEN + "\n", encoding="ascii")
    options = ("--tls-cert", cert, "--tls-key", key, "--token-file", token, "--no-model-control")
    with running(jr_onnx(models["fixed"], *options)) as server:
        yield server


@pytest.fixture(scope="module")
def trust(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


def test_rest_wants_the_token_and_speaks_tls(guarded: ServerProcess, trust: ssl.SSLContext) -> None:
    for token, status in ((None, 401), ("wrong-token", 401), (TOKEN, 200)):
        client = Rest(guarded.http_port, token, trust)
        for path in ("/v2", "/v2/models/fixed", "/metrics"):
            assert client.get(path).status == status
        answer = client.infer("fixed", GOOD)
        assert answer.status == status
        if status == 401:
            assert "token" in answer.error
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/v2/health/live").status == 200, "probes carry no token"
        client.close()
    with pytest.raises(ssl.SSLError):
        Rest(guarded.http_port, TOKEN, ssl.create_default_context()).get("/v2")


def test_models_stay_as_they_are_without_model_control(guarded: ServerProcess, trust: ssl.SSLContext) -> None:
    client = Rest(guarded.http_port, TOKEN, trust)
    for action in ("load", "unload"):
        answer = client.ask("POST", f"/v2/repository/models/fixed/{action}")
        assert (answer.status, "--model-control" in answer.error) == (403, True)
    assert client.infer("fixed", GOOD).status == 200
    client.close()


def test_grpc_wants_the_token_and_speaks_tls(guarded: ServerProcess, certificate: tuple[Path, Path]) -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

    def ask(method: str, token: str | None, *, secure: bool = True) -> Any:
        credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())
        channel = grpc.secure_channel(guarded.grpc, credentials) if secure else grpc.insecure_channel(guarded.grpc)
        with channel:
            metadata = [("authorization", f"Bearer {token}")] if token else []
            try:
                return channel.unary_unary(method)(b"", metadata=metadata, timeout=10)
            except grpc.RpcError as error:
                return error.code().name

    assert ask(METADATA, None) == "UNAUTHENTICATED"
    assert ask(METADATA, "wrong-token") == "UNAUTHENTICATED"
    assert b"jr-onnx" in ask(METADATA, TOKEN)
    assert ask(LIVE, None) == b"\x08\x01"
    assert ask(METADATA, TOKEN, secure=False) == "UNAVAILABLE"


@pytest.mark.parametrize("header", [None, b"", b"Basic abc", b"Bearer", b"Bearer ", b"Bearer " + TOKEN.encode() + b"x"])
def test_a_gate_lets_nothing_else_through(header: bytes | None) -> None:
    with pytest.raises(UnauthorizedError):
        Gate(TOKEN).check(header)


def test_a_gate_lets_the_token_through_in_any_case_of_the_scheme() -> None:
    for scheme in (b"Bearer ", b"bearer ", b"BEARER  "):
        Gate(TOKEN).check(scheme + TOKEN.encode())
    Gate(None).check(None)


@pytest.mark.parametrize("content", ["", "short", "two words here", "ümlaut-token"])
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="token"):
        Gate.from_file(path)


def test_half_a_tls_configuration_and_a_wrong_certificate_are_refused(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    with pytest.raises(InputError, match="TLS needs a certificate and its key"):
        Address(tls_cert=cert)
    with pytest.raises(InputError, match="cannot be used"):
        check_certificate(Address(tls_cert=key, tls_key=cert))


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert Address(host=host).is_loopback is loopback

"""Every request over REST gets the right answer, the bad ones a 4xx in the protocol's form."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jr_onnx.runtime.session import InferenceSession
from tests.serve.builders import TYPES
from tests.serve.support import GOOD, LENGTH, ROWS, Rest, changed, request, tensor
from tools.checks.serving.processes import ServerProcess

BINARY = {"name": "x", "shape": [2, 16], "datatype": "FP32", "parameters": {"binary_data_size": 128}}
RAW = ROWS.tobytes()

# What is wrong, the request's body, the status, and what the message says.
BAD: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 400, "is not JSON"),
    "truncated JSON": (json.dumps(GOOD).encode()[:-20], 400, "is not JSON"),
    "empty body": (b"", 400, "is not JSON"),
    "a list": (b"[]", 400, "expected an object"),
    "not UTF-8": (b'{"inputs": "\xff"}', 400, "is not JSON"),
    "deep": (b'{"inputs":' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "is not JSON"),
    "deep inputs": (b'{"inputs":[' + b"[" * 1000 + b"]" * 1000 + b"]}", 400, "expected an object"),
    "deep name": (b'{"inputs":[{"name":' + b"[" * 1000 + b"]" * 1000 + b"}]}", 400, "has no input"),
    "deep data": (json.dumps(changed(data="D")).replace('"D"', "[" * 1000 + "]" * 1000).encode(), 400, "input 'x'"),
    "no inputs": ({}, 400, "no list 'inputs'"),
    "inputs of another type": ({"inputs": {"x": 1}}, 400, "no list 'inputs'"),
    "an input that is a number": ({"inputs": [1]}, 400, "expected an object"),
    "unknown name": (changed(name="z"), 400, "has no input 'z', expected 'x'"),
    "name of another type": (changed(name=["x"]), 400, "has no input"),
    "extra input": ({"inputs": [*GOOD["inputs"], tensor(ROWS, "z")]}, 400, "has no input 'z'"),
    "input twice": ({"inputs": [*GOOD["inputs"], *GOOD["inputs"]]}, 400, "given twice"),
    "wrong datatype": (changed(datatype="FP64"), 400, "'FP64', expected 'FP32'"),
    "unknown datatype": (changed(datatype="COMPLEX"), 400, "'COMPLEX', expected 'FP32'"),
    "no datatype": (changed(datatype=None), 400, "None, expected 'FP32'"),
    "no shape": (changed(shape=None), 400, "expected a list of sizes"),
    "wrong shape": (changed(shape=[2, 17]), 400, "expected [-1, 16]"),
    "wrong rank": (changed(shape=[32]), 400, "expected [-1, 16]"),
    "negative size": (changed(shape=[-1, 16]), 400, "at least 1"),
    "zero size": (changed(shape=[0, 16], data=[]), 400, "at least 1"),
    "absurd size": (changed(shape=[2**62, 16]), 400, "expected [4611686018427387904, 16]"),
    "size beyond 64 bits": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1e30,16],"data":[]}]}', 400, "whole"),
    "a fraction as size": (changed(shape=[2.0, 16]), 400, "whole numbers"),
    "a truth value as size": (changed(shape=[True, 16]), 400, "whole numbers"),
    "a thousand sizes": (changed(shape=[1] * 1000), 400, "expected a list of sizes"),
    "too few elements": (changed(data=[1.0]), 400, "flat list of 32"),
    "too many elements": (changed(data=[1.0] * 33), 400, "flat list of 32"),
    "ragged": (changed(data=[[1.0], [1.0, 2.0]]), 400, "nested unevenly"),
    "nested otherwise": (changed(data=ROWS.reshape(16, 2).tolist()), 400, "flat list of 32"),
    "strings": (changed(data=["a"] * 32), 400, "expected FP32"),
    "null": (changed(data=[None] * 32), 400, "expected FP32"),
    "truth values": (changed(data=[True] * 32), 400, "expected FP32"),
    "beyond float32": (changed(data=[1e39] * 32), 400, "beyond the range"),
    "NaN": (json.dumps(changed(data=[float("nan")] * 32)).encode(), 400, "is not JSON"),
    "no data": (changed(data=None), 400, "one of them"),
    "data of another type": (changed(data="1,2"), 400, "expected a list"),
    "data and binary": (changed(parameters={"binary_data_size": 128}), 400, "one of them"),
    "parameters of another type": (changed(parameters=[1]), 400, "expected an object"),
    "shared memory": (changed(parameters={"shared_memory_region": "r"}), 400, "does not support"),
    "unknown output": ({**GOOD, "outputs": [{"name": "q"}]}, 400, "has no output 'q', expected 'y'"),
    "output twice": ({**GOOD, "outputs": [{"name": "y"}, {"name": "y"}]}, 400, "asked for twice"),
    "outputs of another type": ({**GOOD, "outputs": "y"}, 400, "expected a list"),
    "classification": ({**GOOD, "outputs": [{"name": "y", "parameters": {"classification": -3}}]}, 400, "number of"),
    "id of another type": ({**GOOD, "id": 7}, 400, "expected a string"),
    "binary_data of another type": ({**GOOD, "parameters": {"binary_data_output": "yes"}}, 400, "true or false"),
    "timeout of another type": ({**GOOD, "parameters": {"timeout": "1"}}, 400, "microseconds"),
    "too many rows": (request(np.zeros((65, 16), np.float32)), 400, "65 rows, expected at most 64"),
    "JSON too large": (b'{"inputs": [' + b" " * (1 << 20) + b"]}", 413, "binary"),
    "body too large": (b" " * ((4 << 20) + 1), 413, "at most 4194304"),
}

BAD_BINARY: dict[str, tuple[dict[str, Any], bytes, Any, str]] = {
    "too few bytes": ({"inputs": [BINARY]}, RAW[:-1], None, "127 bytes are left"),
    "bytes nobody claims": ({"inputs": [BINARY]}, RAW + b"x", None, "1 bytes that no input claims"),
    "size and shape differ": (
        {"inputs": [{**BINARY, "parameters": {"binary_data_size": 64}}]}, RAW, None, "64 bytes, expected 128",
    ),
    "negative size": ({"inputs": [{**BINARY, "parameters": {"binary_data_size": -1}}]}, RAW, None, "is -1"),
    "size of another type": ({"inputs": [{**BINARY, "parameters": {"binary_data_size": "128"}}]}, RAW, None, "'128'"),
    "header beyond the body": ({"inputs": [BINARY]}, RAW, 10**6, "were announced"),
    "header is not a number": ({"inputs": [BINARY]}, RAW, "-5", "inference-header-content-length"),
    "header in the middle": ({"inputs": [BINARY]}, RAW, 20, "is not JSON"),
    "NaN": ({"inputs": [BINARY]}, np.full(32, np.nan, np.float32).tobytes(), None, "holds NaN or an infinity"),
    "infinity": ({"inputs": [BINARY]}, np.full(32, np.inf, np.float32).tobytes(), None, "holds NaN or an infinity"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_is_refused_and_the_server_goes_on(rest: Rest, what: str) -> None:
    body, status, says = BAD[what]
    answer = rest.infer("fixed", body)
    assert answer.status == status, answer.body
    assert says in answer.error
    assert rest.infer("fixed", GOOD).status == 200


@pytest.mark.parametrize("what", BAD_BINARY)
def test_a_bad_binary_request_is_refused_and_the_server_goes_on(rest: Rest, what: str) -> None:
    head, tail, length, says = BAD_BINARY[what]
    answer = rest.binary("fixed", head, tail, length)
    assert answer.status == 400, answer.body
    assert says in answer.error
    assert rest.binary("fixed", {"inputs": [BINARY]}, RAW).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/nothing/infer", 404),
        ("POST", "/v2/models/fixed/versions/9/infer", 404),
        ("POST", "/v2/models//infer", 404),
        ("POST", "/v2/models/fixed/versions//infer", 404),
        ("GET", "/v2/models/nothing", 404),
        ("GET", "/v2/models/nothing/ready", 404),
        ("GET", "/v2/models/fixed/nonsense", 404),
        ("GET", "/v1/models/fixed:predict", 404),
        ("GET", "/etc/passwd", 404),
        ("GET", "/v2/repository/models/fixed", 404),
        ("GET", "/v2/models/fixed/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("DELETE", "/v2/models/fixed", 405),
        ("GET", "/v2/repository/models/fixed/unload", 405),
        ("POST", "/v2/repository/models/nothing/load", 404),
        ("POST", "/v2/repository/models/nothing/unload", 404),
        ("POST", "/v2/repository/models/..%2F..%2Fetc/load", 404),
    ],
)
def test_what_is_not_there_is_not_found(rest: Rest, method: str, path: str, status: int) -> None:
    answer = rest.ask(method, path, GOOD if method == "POST" else None)
    assert answer.status == status
    assert answer.error


def test_a_body_in_an_unknown_encoding_is_refused(rest: Rest) -> None:
    answer = rest.infer("fixed", b"\x1f\x8b", {"Content-Encoding": "br"})
    assert (answer.status, "expected gzip, deflate or plain" in answer.error) == (415, True)


def test_health_and_metadata(rest: Rest) -> None:
    assert rest.get("/v2/health/live").json == {"live": True}
    assert rest.get("/v2/health/ready").json == {"ready": True}
    assert rest.get("/v2/models/fixed/ready").json == {"name": "fixed", "ready": True}
    assert rest.get("/v2").json["name"] == "jr-onnx"
    assert "fixed" in rest.get("/v2/models").json["models"]
    assert rest.get("/v2/models/fixed/versions/1").json == {
        "name": "fixed",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }


def test_answers_are_those_of_the_session(rest: Rest, models: dict[str, Path]) -> None:
    (expected,) = InferenceSession(str(models["fixed"]), providers=["CPUExecutionProvider"]).run(None, {"x": ROWS})
    flat, nested = rest.infer("fixed", {**GOOD, "id": "a1"}), rest.infer("fixed", changed(data=ROWS.tolist()))
    assert flat.json["id"] == "a1"
    binary = rest.binary("fixed", {"inputs": [BINARY], "parameters": {"binary_data_output": True}}, RAW)
    raw = binary.body[int(binary.headers[LENGTH.lower()]) :]
    assert flat.output().shape == (2, 4)
    np.testing.assert_array_equal(flat.output(), nested.output())
    np.testing.assert_array_equal(flat.output(), np.frombuffer(raw, np.float32).reshape(2, 4))
    # The session here may use more threads; sums of 64 products of size 1 differ by some roundings of 2^-24.
    np.testing.assert_allclose(flat.output(), expected, atol=1e-4)


def test_every_type_comes_back_as_it_was_in_json(rest: Rest) -> None:
    inputs = [tensor(array, f"in_{name}", name) for name, (_, array) in TYPES.items()]
    answer = rest.infer("types", {"inputs": inputs})
    assert answer.status == 200, answer.body
    for output, sent in zip(answer.json["outputs"], inputs, strict=True):
        assert (output["datatype"], output["shape"]) == (sent["datatype"], sent["shape"])
        dtype = TYPES[sent["datatype"]][1].dtype
        assert np.array(output["data"], dtype).tolist() == np.array(sent["data"], dtype).tolist()


@pytest.mark.parametrize(
    ("name", "value"), [("INT8", 128), ("UINT8", -1), ("UINT64", -1), ("INT64", 2**63), ("INT32", 0.5)]
)
def test_a_number_out_of_range_is_refused(rest: Rest, name: str, value: float) -> None:
    inputs = [tensor(array, f"in_{key}", key) for key, (_, array) in TYPES.items()]
    next(item for item in inputs if item["datatype"] == name)["data"] = [value] * 3
    answer = rest.infer("types", {"inputs": inputs})
    assert (answer.status, f"in_{name}" in answer.error) == (400, True)


def test_batches_that_differ_are_refused(rest: Rest) -> None:
    inputs = [tensor(array, f"in_{key}", key) for key, (_, array) in TYPES.items()]
    inputs[0] = tensor(np.array([True]), "in_BOOL", "BOOL")
    assert "batches of [1, 3]" in rest.infer("types", {"inputs": inputs}).error


def test_a_request_that_the_model_cannot_compute_is_the_clients_fault(rest: Rest) -> None:
    answer = rest.infer("lookup", request(np.array([[9]]), "ids", "INT64"))
    assert (answer.status, "cannot compute this request" in answer.error) == (400, True)
    assert rest.infer("lookup", request(np.array([[3]]), "ids", "INT64")).output().tolist() == [[[6.0, 7.0]]]


def test_a_hidden_kappa_input_can_be_neither_seen_nor_set(rest: Rest) -> None:
    assert [item["name"] for item in rest.get("/v2/models/input").json["inputs"]] == ["x"]
    row = np.full((1, 64), 0.12, np.float32)
    answer = rest.infer("input", {"inputs": [tensor(row), tensor(np.zeros(1, np.float32), "kappa")]})
    assert (answer.status, answer.error) == (400, "model 'input' has no input 'kappa', expected 'x'")
    assert not rest.infer("input", request(row)).output().any(), "kappa is expected to stay at its default of 0.15"


def test_metrics_count_by_model_and_status(rest: Rest) -> None:
    def counted(status: int) -> float:
        label = f'jr_onnx_requests_total{{model="whole",status="{status}",transport="rest",version="1"}}'
        lines = rest.get("/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(label))

    good, bad = counted(200), counted(400)
    rest.infer("whole", GOOD)
    rest.infer("whole", changed(name="z"))
    assert (counted(200) - good, counted(400) - bad) == (1, 1)
    assert 'jr_onnx_run_seconds_count{model="whole"' in rest.get("/metrics").body.decode()
    assert "nothing" not in rest.get("/metrics").body.decode(), "names that clients invent must not become labels"


@pytest.mark.parametrize(
    "head",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/models/fixed/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"X-Long: " + b"a" * 100_000,
        b"GET /" + b"a" * 100_000,
    ],
)
def test_what_is_not_http_is_refused(server: ServerProcess, rest: Rest, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    assert rest.infer("fixed", GOOD).status == 200


def test_a_client_that_leaves_within_its_body_does_no_harm(server: ServerProcess, rest: Rest) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
            connection.sendall(b"POST /v2/models/fixed/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n{")
    # More was announced than the server has for all bodies together; it has been given back.
    assert rest.infer("fixed", GOOD).status == 200


def test_an_endless_chunked_body_is_refused(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=30) as connection:
        connection.sendall(b"POST /v2/models/fixed/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        answered = b""
        try:
            for _ in range(64):
                connection.sendall(chunk)
        except OSError:
            pass  # the server has closed, as it may
        try:
            answered = connection.recv(1000)
        except OSError:
            return
        assert answered == b"" or b" 413 " in answered

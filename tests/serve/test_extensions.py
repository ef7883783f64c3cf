"""The protocol's extensions over REST; `tests/serve/grpc_cases.py` and the protocol check ask the same over gRPC."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib

import pytest

from jr_onnx.serve.extensions.classification import MOST_CLASSES
from jr_onnx.serve.extensions.compression import expanded
from jr_onnx.serve.faults import TimedOutError
from tests.serve.support import GOOD, Rest


def test_the_configuration_of_a_model(rest: Rest) -> None:
    found = rest.get("/v2/models/fixed/config").json
    assert (found["name"], found["platform"], found["max_batch_size"] > 0) == ("fixed", "onnxruntime_onnx", True)
    assert found["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [16]}]
    assert found["output"] == [{"name": "y", "data_type": "TYPE_FP32", "dims": [4]}]
    assert rest.get("/v2/models/fixed/versions/1/config").json == found
    for path in ("/v2/models/nobody/config", "/v2/models/fixed/versions/9/config"):
        assert rest.get(path).status == 404


def test_statistics_count_what_the_model_did(rest: Rest) -> None:
    def stats(path: str) -> dict:
        return {row["name"]: row for row in rest.get(path).json["model_stats"]}["fixed"]

    before = stats("/v2/models/fixed/stats")
    assert rest.infer("fixed", GOOD).status == 200
    assert rest.infer("fixed", {"inputs": []}).status == 400
    after = stats("/v2/models/stats")
    rows = after["inference_count"] - before["inference_count"]
    assert (rows, after["execution_count"] - before["execution_count"]) == (GOOD["inputs"][0]["shape"][0], 1)
    for what in ("success", "fail", "queue", "compute_infer"):
        old, new = before["inference_stats"][what], after["inference_stats"][what]
        assert (new["count"] - old["count"], new["ns"] > old["ns"]) == (1, True), what
    sizes = [row["batch_size"] for row in after["batch_stats"]]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("path", ["/v2/trace/setting", "/v2/models/fixed/trace/setting", "/v2/logging"])
def test_settings_are_told_and_stay(rest: Rest, path: str) -> None:
    kept = rest.get(path).json
    assert rest.ask("POST", path, {}).json == kept
    name = next(iter(kept))
    assert rest.ask("POST", path, {name: kept[name]}).json == kept
    refused = rest.ask("POST", path, {name: "other"})
    assert (refused.status, f"setting {name} stays" in refused.error) == (501, True)
    unknown = rest.ask("POST", path, {"nonsense": "1"})
    assert (unknown.status, "there is no" in unknown.error) == (400, True)


@pytest.mark.parametrize("memory", ["systemsharedmemory", "cudasharedmemory"])
def test_shared_memory_is_refused_in_words(rest: Rest, memory: str) -> None:
    assert rest.get(f"/v2/{memory}/status").json == []
    refused = rest.ask("POST", f"/v2/{memory}/region/r/register", {"key": "/k", "byte_size": 8})
    assert (refused.status, "shared memory" in refused.error) == (501, True)
    assert rest.ask("POST", f"/v2/{memory}/unregister", {}).status == 200
    assert rest.get(f"/v2/{memory}/region/r/status").status == 400


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_bodies_and_answers(rest: Rest, encoding: str, pack: object) -> None:
    plain = rest.infer("fixed", GOOD).json
    body = pack(json.dumps(GOOD).encode())  # type: ignore[operator] # one of the two functions
    assert rest.infer("fixed", body, {"Content-Encoding": encoding}).json == plain
    for bad, words in ((body[:-3], "cut off"), (b"\x1f\x8bxxxxxxxxxxxx", "damaged"), (body + b"x", "follow")):
        answer = rest.infer("fixed", bad, {"Content-Encoding": encoding})
        assert (answer.status, words in answer.error) == (400, True)


def test_head_is_answered_like_get(rest: Rest) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/fixed/ready"):
        answer = rest.ask("HEAD", path, None)
        assert (answer.status, answer.body) == (200, b"")


def test_the_largest_elements_of_an_output(rest: Rest) -> None:
    plain = rest.infer("fixed", GOOD).json["outputs"][0]
    wish = {**GOOD, "outputs": [{"name": "y", "parameters": {"classification": 2}}]}
    found = rest.infer("fixed", wish).json["outputs"][0]
    rows, width = plain["shape"]
    assert (found["datatype"], found["shape"]) == ("BYTES", [rows, 2])
    for row in range(rows):
        values = plain["data"][row * width : (row + 1) * width]
        order = sorted(range(width), key=lambda index: -values[index])[:2]
        assert found["data"][2 * row : 2 * row + 2] == [f"{values[index]:f}:{index}" for index in order]


def test_more_classes_than_can_be_made_at_a_time_are_refused(rest: Rest) -> None:
    shape = (64, 2000)
    ids = {"name": "ids", "shape": shape, "datatype": "INT64", "parameters": {"binary_data_size": 8 * 64 * 2000}}
    for count, status in ((10**9, 400), (MOST_CLASSES // 64 + 1, 400), (3, 200)):
        wish = {"inputs": [ids], "outputs": [{"name": "y", "parameters": {"classification": count}}]}
        answer = rest.binary("lookup", wish, bytes(8 * 64 * 2000))
        assert answer.status == status
    assert answer.json["outputs"][0]["shape"] == [64, 3]


def test_an_expansion_ends_with_the_time_of_its_request() -> None:
    body = gzip.compress(bytes(1 << 20))
    with pytest.raises(TimedOutError):
        asyncio.run(expanded(bytes(body) + bytes(64 << 10), 1 << 21, lambda _: None, 0.0))

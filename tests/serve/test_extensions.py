"""The protocol's extensions over both transports: configuration, statistics, settings, index, shared memory."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from tests.serve.support import GOOD, Rest
from tools.checks.serving.processes import ServerProcess


def test_the_configuration_is_that_of_the_model(rest: Rest, extensions: dict[str, Any]) -> None:
    config = rest.get("/v2/models/fixed/config").json
    assert config == rest.get("/v2/models/fixed/versions/1/config").json
    assert (config["name"], config["platform"], config["max_batch_size"]) == ("fixed", "onnxruntime_onnx", 64)
    (entry,) = config["input"]
    assert (entry["name"], entry["data_type"], entry["dims"], entry["optional"]) == ("x", "TYPE_FP32", [16], False)
    status, message = extensions["extensions"]["config"]
    assert status == "OK"
    over_grpc = message["config"]
    assert over_grpc["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["16"]}]
    assert over_grpc["max_batch_size"] == 64
    assert "label_filename" not in over_grpc["output"][0]


def test_a_hidden_kappa_is_not_in_the_configuration(rest: Rest) -> None:
    assert [entry["name"] for entry in rest.get("/v2/models/input/config").json["input"]] == ["x"]


def test_statistics_count_requests_rows_and_runs(rest: Rest, extensions: dict[str, Any]) -> None:
    before = rest.get("/v2/models/fixed/stats").json["model_stats"][0]
    assert rest.infer("fixed", GOOD).status == 200
    assert rest.infer("fixed", {"inputs": []}).status == 400
    (after,) = rest.get("/v2/models/fixed/versions/1/stats").json["model_stats"]
    assert after["inference_count"] - before["inference_count"] == 2  # rows
    assert after["execution_count"] - before["execution_count"] == 1
    for name, count in (("success", 1), ("fail", 1), ("queue", 1), ("compute_infer", 1)):
        assert after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"] == count
    assert after["inference_stats"]["success"]["ns"] >= after["inference_stats"]["compute_infer"]["ns"] > 0
    assert {row["batch_size"] for row in after["batch_stats"]} >= {2}
    names = {row["name"] for row in rest.get("/v2/models/stats").json["model_stats"]}
    assert {"fixed", "drawn", "types"} <= names
    assert extensions["extensions"]["statistics"][1]["model_stats"][0]["name"] == "fixed"
    assert {row["name"] for row in extensions["extensions"]["statistics of all"][1]["model_stats"]} == names


@pytest.mark.parametrize("what", ["config", "stats", "trace/setting"])
def test_an_unknown_model_has_none_of_it(rest: Rest, what: str) -> None:
    answer = rest.get(f"/v2/models/nothing/{what}")
    assert (answer.status, "there is no model 'nothing'" in answer.error) == (404, True)
    assert rest.ask("DELETE", f"/v2/models/fixed/{what}").status == 405


def test_settings_are_told_and_stay_as_they_are(rest: Rest, extensions: dict[str, Any]) -> None:
    for path, same, other in (
        ("/v2/trace/setting", {"trace_level": ["OFF"]}, {"trace_level": ["TIMESTAMPS"]}),
        ("/v2/models/fixed/trace/setting", {"trace_rate": None}, {"trace_rate": "1"}),
        ("/v2/logging", {"log_verbose_level": 0}, {"log_verbose_level": 1}),
    ):
        kept = rest.get(path).json
        assert rest.ask("POST", path, same).json == kept
        assert rest.ask("POST", path, other).status == 501
        assert rest.ask("POST", path, {"nothing": 1}).status == 400
        assert rest.ask("POST", path, same, {"Origin": "https://evil.example"}).status == 403
    found = extensions["extensions"]
    assert found["trace"][1] == found["trace as it is"][1]
    assert found["trace"][1]["settings"]["trace_level"] == {"value": ["OFF"]}
    assert found["log"][1] == found["log as it is"][1]
    statuses = {name: found[name][0] for name in ("trace on", "log more", "log nothing", "trace of nothing")}
    assert statuses == {
        "trace on": "UNIMPLEMENTED",
        "log more": "UNIMPLEMENTED",
        "log nothing": "INVALID_ARGUMENT",
        "trace of nothing": "NOT_FOUND",
    }


@pytest.mark.parametrize("memory", ["systemsharedmemory", "cudasharedmemory"])
def test_shared_memory_is_refused_in_words(rest: Rest, memory: str) -> None:
    assert rest.get(f"/v2/{memory}/status").json == []
    answer = rest.get(f"/v2/{memory}/region/r/status")
    assert (answer.status, "unable to find shared memory region 'r'" in answer.error) == (404, True)
    answer = rest.ask("POST", f"/v2/{memory}/region/r/register", {"key": "/r", "byte_size": 8})
    assert (answer.status, "not supported" in answer.error) == (501, True)
    assert rest.ask("POST", f"/v2/{memory}/unregister", {}).status == 200
    answer = rest.infer("fixed", {"inputs": [GOOD["inputs"][0] | {"parameters": {"shared_memory_region": "r"}}]})
    assert (answer.status, "shared memory" in answer.error) == (400, True)


def test_the_same_over_grpc(extensions: dict[str, Any]) -> None:
    found = extensions["extensions"]
    statuses = {
        name: found[name][0]
        for name in ("memory", "memory of a region", "register", "register cuda", "unregister", "config of nothing")
    }
    assert statuses == {
        "memory": "OK",
        "memory of a region": "NOT_FOUND",
        "register": "UNIMPLEMENTED",
        "register cuda": "UNIMPLEMENTED",
        "unregister": "OK",
        "config of nothing": "NOT_FOUND",
    }
    assert found["ready nothing"] == ["OK", False]
    assert {"name": "fixed", "version": "1", "state": "READY"} in found["index"][1]["models"]


def test_compressed_messages_are_expanded_and_bombs_refused(
    rest: Rest, server: ServerProcess, extensions: dict[str, Any]
) -> None:
    expected = rest.infer("fixed", GOOD).output().ravel().tolist()
    found = extensions["compression"]
    assert found["gzip"] == found["deflate"] == ["OK", expected]
    for name in ("bomb", "bomb where no tensors are", "bomb in a stream"):
        assert found[name][0] == "RESOURCE_EXHAUSTED", found[name]
        assert "when it is expanded" in found[name][1]
    assert server.peak_bytes() < 600 << 20


def test_head_is_answered_like_get_without_a_body(rest: Rest) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/fixed/ready", "/v2/models/fixed/config"):
        answer = rest.ask("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")


def test_small_requests_may_be_compressed_too(rest: Rest) -> None:
    body = gzip.compress(b'{"ready": true}')
    assert rest.ask("POST", "/v2/repository/index", body, {"Content-Encoding": "gzip"}).status == 200


def test_a_model_that_is_not_loaded_may_be_unloaded_again(rest: Rest) -> None:
    for _ in range(2):
        assert rest.ask("POST", "/v2/repository/models/lookup/unload", {}).status == 200
    assert rest.ask("POST", "/v2/repository/models/nothing/unload", {}).status == 404
    assert rest.ask("POST", "/v2/repository/models/lookup/load", {}).status == 200


def test_bytes_are_taken_for_json_where_something_changes_and_text_is_not(rest: Rest) -> None:
    path = "/v2/repository/models/lookup/load"  # tritonclient.http.aio sends its JSON as plain bytes
    assert rest.ask("POST", path, b"{}", {"Content-Type": "application/octet-stream"}).status == 200
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert rest.ask("POST", path, b"{}", {"Content-Type": kind}).status == 415

"""Every public method of tritonclient's clients, asked for what it is there for and for what must be refused.

The server has `digits` in the versions 1 and 2, with labels, and `spare`; clients may load and unload. Whatever a case
changes it changes back, so that all four clients find the same server.
"""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from tools.checks.protocol.asker import Asker, described

MODEL: Final = "digits"
SPARE: Final = "spare"
NOTHING: Final = "nothing"
IMAGES: Final = np.random.default_rng(7).random((3, 1, 8, 8), dtype=np.float32)
_CONFIGURATION: Final = json.dumps(
    {
        "backend": "onnxruntime",
        "max_batch_size": 4,
        "input": [{"name": "input", "data_type": "TYPE_FP32", "dims": [1, 8, 8]}],
        "output": [{"name": "logits", "data_type": "TYPE_FP32", "dims": [10]}],
    }
)
ALL: Final = ("http", "grpc", "http.aio", "grpc.aio")


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        method: The client's method that the table lists it under.
        what: What is special about the call.
        ask: Makes it.
        clients: Which clients have it.
    """

    method: str
    what: str
    ask: Callable[[Asker], Any]
    clients: tuple[str, ...] = ALL


def cases() -> list[Case]:
    """Return all calls in the order of the table."""
    return [*_health(), *_models(), *_settings(), *_memory(), *_inference(), *_classes(), *_streams(), *_client()]


def _case(method: str, what: str, *arguments: Any, **options: Any) -> Case:
    return Case(method, what, lambda asker: asker.call(method, *arguments, **options))


def _health() -> Iterator[Case]:
    yield _case("is_server_live", "")
    yield _case("is_server_ready", "")
    yield _case("is_model_ready", "", MODEL)
    yield _case("is_model_ready", "version 1", MODEL, "1")
    yield _case("is_model_ready", "unknown model", NOTHING)
    yield _case("is_model_ready", "unknown version", MODEL, "9")
    yield _case("get_server_metadata", "")


def _models() -> Iterator[Case]:
    for method in ("get_model_metadata", "get_model_config", "get_inference_statistics"):
        yield _case(method, "", MODEL)
        yield _case(method, "version 1", MODEL, "1")
        yield _case(method, "unknown model", NOTHING)
        yield _case(method, "unknown version", MODEL, "9")
    yield _case("get_inference_statistics", "of all models")
    yield _case("get_model_repository_index", "")
    yield _case("load_model", "that is loaded", SPARE)
    yield _case("load_model", "unknown model", NOTHING)
    yield _case("load_model", "with a configuration", SPARE, config=_CONFIGURATION)
    yield _case("load_model", "with files", SPARE, config=_CONFIGURATION, files={"file:1/model.onnx": b"no"})
    yield _case("load_model", "again", SPARE)
    yield _case("unload_model", "", SPARE)
    yield _case("unload_model", "that is not loaded", SPARE)
    yield _case("unload_model", "unknown model", NOTHING)
    yield Case("get_model_repository_index", "after unloading", lambda asker: asker.call("get_model_repository_index"))
    yield Case("infer", "a model that was unloaded", lambda asker: _infer(asker, SPARE))
    yield _case("load_model", "that was unloaded", SPARE)
    yield _case("unload_model", "with its dependents", SPARE, unload_dependents=True)
    yield _case("load_model", "that was unloaded, once more", SPARE)


def _settings() -> Iterator[Case]:
    yield _case("get_trace_settings", "")
    yield _case("get_trace_settings", "of a model", MODEL)
    yield _case("get_trace_settings", "unknown model", NOTHING)
    yield _case("update_trace_settings", "as they are", settings={"trace_level": ["OFF"]})
    yield _case("update_trace_settings", "as they are, of a model", MODEL, settings={"trace_level": ["OFF"]})
    yield _case("update_trace_settings", "another rate", settings={"trace_rate": "10"})
    yield _case("update_trace_settings", "to the default", settings={"trace_rate": None})
    yield _case("update_trace_settings", "to the default, of a model", MODEL, settings={"trace_level": None})
    yield _case("update_trace_settings", "unknown setting", settings={"nothing": "1"})
    yield _case("update_trace_settings", "unknown model", NOTHING, settings={"trace_level": ["OFF"]})
    yield _case("get_log_settings", "")
    yield _case("update_log_settings", "as they are", settings={"log_error": True})
    yield _case("update_log_settings", "another level", settings={"log_verbose_level": 1})
    yield _case("update_log_settings", "back", settings={"log_verbose_level": 0})
    yield _case("update_log_settings", "a file", settings={"log_file": "/tmp/protocol-case.log"})  # noqa: S108 - refused
    yield _case("update_log_settings", "unknown setting", settings={"nothing": True})


def _memory() -> Iterator[Case]:
    handle = base64.b64encode(bytes(64))
    registered = {"system": ("region", "/nothing", 256), "cuda": ("region", handle, 0, 256)}
    for kind, arguments in registered.items():
        yield _case(f"get_{kind}_shared_memory_status", "")
        yield _case(f"get_{kind}_shared_memory_status", "of a region", NOTHING)
        yield _case(f"register_{kind}_shared_memory", "", *arguments)
        yield _case(f"unregister_{kind}_shared_memory", "all regions")
        yield _case(f"unregister_{kind}_shared_memory", "of a region", NOTHING)
    yield Case("infer", "an input in shared memory", _shared_input)
    yield Case("infer", "an output in shared memory", _shared_output)


def _tensor(asker: Asker, images: np.ndarray[Any, Any] = IMAGES, **options: Any) -> Any:
    return asker.input("input", images, **options)


def _infer(asker: Asker, model: str = MODEL, inputs: list[Any] | None = None, **options: Any) -> Any:
    return described(asker.call("infer", model, [_tensor(asker)] if inputs is None else inputs, **options))


def _shared_input(asker: Asker) -> Any:
    tensor = asker.library.InferInput("input", list(IMAGES.shape), "FP32")
    tensor.set_shared_memory(NOTHING, IMAGES.nbytes)
    return _infer(asker, inputs=[tensor])


def _shared_output(asker: Asker) -> Any:
    output = asker.output("logits")
    output.set_shared_memory(NOTHING, 1024)
    return _infer(asker, outputs=[output])


def _inference() -> Iterator[Case]:
    http, grpc = ("http", "http.aio"), ("grpc", "grpc.aio")
    yield Case("infer", "", _infer)
    yield Case("infer", "version 1", lambda asker: _infer(asker, model_version="1"))
    yield Case("infer", "JSON", lambda asker: _infer(asker, inputs=[_tensor(asker, binary_data=False)]), http)
    yield Case("infer", "JSON answer", _json_answer, http)
    yield Case(
        "infer", "chosen outputs, an id",
        lambda asker: _infer(asker, outputs=[asker.output("logits")], request_id="7"),
    )  # fmt: skip
    yield Case("infer", "one image", lambda asker: _infer(asker, inputs=[_tensor(asker, IMAGES[:1])]))
    for encoding in ("gzip", "deflate"):
        yield Case("infer", f"{encoding} body", _with("request_compression_algorithm", encoding), http)
        yield Case("infer", f"{encoding} answer", _with("response_compression_algorithm", encoding), http)
        yield Case("infer", f"{encoding} message", _with("compression_algorithm", encoding), grpc)
    yield Case("infer", "a timeout of 10 s", _with("timeout", 10_000_000))
    yield Case("infer", "a priority", _with("priority", 1))
    yield Case("infer", "a parameter of one's own", _with("parameters", {"mine": "yes"}))
    yield Case(
        "infer", "a sequence",
        lambda asker: _infer(asker, sequence_id=5, sequence_start=True, sequence_end=True),
    )  # fmt: skip
    yield Case("infer", "unknown model", lambda asker: _infer(asker, NOTHING))
    yield Case("infer", "unknown version", lambda asker: _infer(asker, model_version="9"))
    yield Case("infer", "unknown output", lambda asker: _infer(asker, outputs=[asker.output(NOTHING)]))
    yield Case("infer", "unknown input", lambda asker: _infer(asker, inputs=[asker.input(NOTHING, IMAGES)]))
    yield Case("infer", "no input", lambda asker: _infer(asker, inputs=[]))
    yield Case("infer", "another shape", lambda asker: _infer(asker, inputs=[_tensor(asker, IMAGES[:, :, :7])]))
    yield Case(
        "infer", "another type",
        lambda asker: _infer(asker, inputs=[asker.input("input", IMAGES.astype(np.float64), "FP64")]),
    )  # fmt: skip
    yield Case("async_infer", "", lambda asker: described(asker.later(MODEL, [_tensor(asker)])), ("http", "grpc"))
    yield Case("async_infer", "unknown model", lambda asker: asker.later(NOTHING, [_tensor(asker)]), ("http", "grpc"))
    yield Case("generate_request_body", "and parse_response_body", _by_hand, http)


def _with(name: str, value: Any) -> Callable[[Asker], Any]:
    return lambda asker: _infer(asker, **{name: value})


def _json_answer(asker: Asker) -> Any:
    return _infer(asker, outputs=[asker.output("logits", binary_data=False)])


def _by_hand(asker: Asker) -> Any:
    """Send what the client makes, and have it read the answer."""
    asker.called |= {"generate_request_body", "parse_response_body"}
    kind = asker.library.InferenceServerClient
    body, length = kind.generate_request_body([_tensor(asker)], outputs=[asker.output("logits")])
    request = urllib.request.Request(f"http://{asker.target}/v2/models/{MODEL}/infer", body)
    request.add_header("Inference-Header-Content-Length", str(length))
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - loopback
        size = int(answer.headers["Inference-Header-Content-Length"])
        return described(kind.parse_response_body(answer.read(), header_length=size))


def _classified(asker: Asker, *, count: int) -> Any:
    return _infer(asker, outputs=[asker.output("logits", class_count=count)])


def _classes() -> Iterator[Case]:
    for what, count in (("2 classes", 2), ("more classes than there are", 99)):
        yield Case("infer", what, partial(_classified, count=count))
    yield Case(
        "infer", "2 classes as JSON",
        lambda asker: _infer(asker, outputs=[asker.output("logits", class_count=2, binary_data=False)]),
        ("http", "http.aio"),
    )  # fmt: skip
    yield Case(
        "infer", "2 classes of a model without labels",
        lambda asker: _infer(asker, SPARE, outputs=[asker.output("logits", class_count=2)]),
    )  # fmt: skip


def _compressed_stream(asker: Asker, *, encoding: str) -> Any:
    return asker.stream([{"model_name": MODEL, "inputs": [_tensor(asker)]}], 1, encoding)


def _streams() -> Iterator[Case]:
    both = ("grpc", "grpc.aio")

    def request(asker: Asker, model: str = MODEL, **options: Any) -> dict[str, Any]:
        return {"model_name": model, "inputs": [_tensor(asker)], **options}

    yield Case(
        "async_stream_infer", "three requests",
        lambda asker: asker.stream([request(asker, request_id=str(number)) for number in range(3)], 3), both,
    )  # fmt: skip
    yield Case(
        "async_stream_infer", "an unknown model between two requests",
        lambda asker: asker.stream([request(asker), request(asker, NOTHING, request_id="a"), request(asker)], 3), both,
    )  # fmt: skip
    yield Case(
        "async_stream_infer", "an empty final response is requested",
        lambda asker: asker.stream([request(asker, enable_empty_final_response=True)], 1), both,
    )  # fmt: skip
    for encoding in ("gzip", "deflate"):
        yield Case("async_stream_infer", f"{encoding} messages", partial(_compressed_stream, encoding=encoding), both)


def _client() -> Iterator[Case]:
    yield Case("register_plugin", "and plugin, unregister_plugin", _plugged)


def _plugged(asker: Asker) -> Any:
    """Add a header to a request, as a plugin does; a server without a token does not mind."""
    asker.call("register_plugin", asker.auth.BasicAuth("somebody", "secret"))
    asker.call("plugin")
    try:
        return asker.call("is_server_live")
    finally:
        asker.call("unregister_plugin")

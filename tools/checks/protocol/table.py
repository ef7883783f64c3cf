"""What two servers answered, side by side, as the table of docs/triton.md; every difference has its reason."""

from __future__ import annotations

from typing import Any, Final

Row = dict[str, Any]
Key = tuple[str, str]

NOTES: Final[dict[str, str]] = {
    "get_server_metadata": "lists what is fully supported; Triton also lists sequences, shared memory, tracing",
    "get_model_config": "the largest batch is `--max-rows`; there is no warm-up and no memory pool",
    "get_inference_statistics": "warm-up is not counted; input and output are not timed separately from the run",
    "get_inference_statistics/unknown": "an unknown model or version is always 404 / NOT_FOUND",
    "load_model/unknown": "an unknown model is always 404 / NOT_FOUND",
    "load_model/configuration": "refused before loading: only models that the server was started with can be loaded",
    "unload_model/unknown": "an unknown name is reported as an error",
    "index/unloaded": "the version to load is determined when its package is verified",
    "trace/unknown model": "an unknown model is always 404 / NOT_FOUND",
    "trace/change": "tracing is not supported; sending the current value is accepted",
    "log/levels": "the log levels that the server was started with",
    "log/change": "log settings are fixed at start; sending the current value is accepted",
    "unknown setting": "Triton ignores it; here a setting without effect is refused",
    "memory": "shared memory is not supported: a client could name memory on the server's machine to read and write",
}
"""The reasons for differences."""

_WHY: Final[dict[Key, str]] = {
    ("get_server_metadata", ""): "get_server_metadata",
    ("get_model_config", ""): "get_model_config",
    ("get_model_config", "version 1"): "get_model_config",
    ("get_inference_statistics", ""): "get_inference_statistics",
    ("get_inference_statistics", "version 1"): "get_inference_statistics",
    ("get_inference_statistics", "of all models"): "get_inference_statistics",
    ("get_inference_statistics", "unknown model"): "get_inference_statistics/unknown",
    ("get_inference_statistics", "unknown version"): "get_inference_statistics/unknown",
    ("load_model", "unknown model"): "load_model/unknown",
    ("load_model", "with a configuration"): "load_model/configuration",
    ("load_model", "with files"): "load_model/configuration",
    ("unload_model", "unknown model"): "unload_model/unknown",
    ("get_model_repository_index", "after unloading"): "index/unloaded",
    ("get_trace_settings", "unknown model"): "trace/unknown model",
    ("update_trace_settings", "unknown model"): "trace/unknown model",
    ("update_trace_settings", "another rate"): "trace/change",
    ("update_trace_settings", "unknown setting"): "unknown setting",
    ("get_log_settings", ""): "log/levels",
    ("update_log_settings", "as they are"): "log/levels",
    ("update_log_settings", "back"): "log/levels",
    ("update_log_settings", "another level"): "log/change",
    ("update_log_settings", "unknown setting"): "unknown setting",
    ("register_system_shared_memory", ""): "memory",
    ("register_cuda_shared_memory", ""): "memory",
    ("infer", "an input in shared memory"): "memory",
    ("infer", "an output in shared memory"): "memory",
}
_HEAD: Final = (
    "| method | what is asked | HTTP | Triton | gRPC | Triton | why they differ |\n|---|---|---|---|---|---|---|\n"
)
_RELATIVE: Final = 1e-3
"""How far logits may be apart, as a part of the largest: two versions of ONNX Runtime add in other orders, which moves
logits by some 2^-24 times the number of terms; a wrong model or input moves them by far more."""


def by_key(rows: list[Row], client: str) -> dict[Key, Row]:
    """Return the rows of a client by method and what was asked."""
    return {(row["method"], row["what"]): row for row in rows if row["client"] == client}


def differs(ours: Row, theirs: Row) -> bool:
    """Whether two answers are more apart than two runs of one server would be."""
    if "refused" in ours or "refused" in theirs:
        return ours.get("refused") != theirs.get("refused")
    return not _alike(ours["answer"], theirs["answer"])


def _alike(one: Any, other: Any, name: str = "") -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key], key) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        if name == "data" and one and all(isinstance(item, float) for item in (*one, *other)):
            bound = _RELATIVE * max(map(abs, other))
            return len(one) == len(other) and all(abs(a - b) <= bound for a, b in zip(one, other, strict=True))
        return len(one) == len(other) and all(_alike(a, b, name) for a, b in zip(one, other, strict=True))
    return name == "message" or bool(one == other)  # what is wrong is said in other words


def shown(row: Row | None) -> str:
    """Return a cell of the table."""
    if row is None:
        return ""
    if "refused" in row:
        refusal = row["refused"]
        return f"refused ({refusal})"
    answer = row["answer"]
    if isinstance(answer, bool):
        return str(answer).lower()
    if isinstance(answer, list) and answer and all("answer" in item or "refused" in item for item in answer):
        return (
            f"{len(answer)} answer{'s' * (len(answer) > 1)}"
            if all("answer" in item for item in answer)
            else "answers and an error"
        )
    return "done" if answer is None else "answered"


def table(ours: list[Row], theirs: list[Row]) -> tuple[str, list[str]]:
    """Return the table, and what is wrong: a difference without a reason, or a reason without a difference."""
    columns = [by_key(rows, client) for client in ("http", "grpc") for rows in (ours, theirs)]
    problems = [*_aside(ours, "jr-onnx"), *_aside(theirs, "Triton")]
    lines = []
    for key in dict.fromkeys(key for column in columns for key in column):
        cells = [column.get(key) for column in columns]
        pairs = [(cells[0], cells[1]), (cells[2], cells[3])]
        apart = any(one is not None and other is not None and differs(one, other) for one, other in pairs)
        why = _WHY.get(key)
        if apart and why is None:
            problems.append(f"{key[0]} ({key[1]}): the answers differ without a reason: {pairs}"[:1500])
        if why is not None and not apart:
            problems.append(f"{key[0]} ({key[1]}): the answers do not differ, but there is a reason for it")
        note = NOTES[why] if why is not None else ""
        lines.append(f"| `{key[0]}` | {key[1]} | {' | '.join(map(shown, cells))} | {note} |")
    return _HEAD + "\n".join(lines) + "\n", problems


def _aside(rows: list[Row], server: str) -> list[str]:
    """Return where a client with asyncio is answered in another way than the one without."""
    return [
        f"{server}, {client}.aio: {key} is {shown(other[key])}, not {shown(plain[key])}"
        for client in ("http", "grpc")
        for plain, other in [(by_key(rows, client), by_key(rows, f"{client}.aio"))]
        for key in plain.keys() & other.keys()
        if shown(plain[key]) != shown(other[key])
    ]


def columns_of(text: str, *numbers: int) -> list[tuple[str, ...]]:
    """Return some columns of the table in a text."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return [tuple(row[number].strip() for number in numbers) for row in rows]

"""Ask an Open Inference Protocol v2 server, over HTTP or gRPC, and print the answers' distance from the expected.

    python tools/checks/protocol/oip_client.py --http 127.0.0.1:8000 --grpc 127.0.0.1:8001 cases.npz

`cases.npz` holds, for each case, arrays `<case>/in/<input>` and `<case>/out/<output>`; a case is named
`<model>@<version>`, optionally with `#<anything>` behind. Only `tritonclient` and NumPy are imported, so the same
file asks a Triton server, this project's own server, or any other.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]


class Case:
    """One request and what should come back."""

    def __init__(self, label: str, inputs: Arrays, outputs: Arrays) -> None:
        self.label = label
        self.model, _, self.version = label.partition("#")[0].partition("@")
        self.inputs = inputs
        self.outputs = outputs


def read_cases(path: str) -> list[Case]:
    """Read the cases of a file."""
    with np.load(path) as arrays:
        labels = sorted({name.split("/")[0] for name in arrays.files})
        return [
            Case(
                label,
                {name.split("/", 2)[2]: arrays[name] for name in arrays.files if name.startswith(f"{label}/in/")},
                {name.split("/", 2)[2]: arrays[name] for name in arrays.files if name.startswith(f"{label}/out/")},
            )
            for label in labels
        ]


def ask(library: Any, client: Any, case: Case) -> Arrays:
    """Send one request with `tritonclient.http` or `tritonclient.grpc`, and return the outputs."""
    inputs = []
    for name, array in case.inputs.items():
        tensor = library.InferInput(name, list(array.shape), _datatype(array))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    outputs = [library.InferRequestedOutput(name) for name in case.outputs]
    result = client.infer(case.model, inputs, model_version=case.version, outputs=outputs)
    return {name: result.as_numpy(name) for name in case.outputs}


def check(library: Any, client: Any, cases: Iterable[Case], threads: int) -> dict[str, float]:
    """Ask every case, several at a time, and return the largest difference of each; shapes must be equal."""
    listed = list(cases)

    def distance(case: Case) -> float:
        answer = ask(library, client, case)
        distances = [0.0]
        for name, expected in case.outputs.items():
            if answer[name].shape != expected.shape or answer[name].dtype != expected.dtype:
                return float("inf")
            distances.append(_distance(answer[name], expected))
        return float(np.max(distances))  # unlike max(), this keeps a NaN

    labels = [case.label for case in listed]
    if threads == 1:  # in this very thread: the HTTP client's sockets belong to the thread that made it
        return dict(zip(labels, map(distance, listed), strict=True))
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return dict(zip(labels, pool.map(distance, listed), strict=True))


def _distance(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Return the largest difference; equal infinities and NaN at the same places do not differ."""
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(found - expected))
    return float(np.max(gap, initial=0.0))  # unlike max(), this keeps a NaN


def statistics(channel: Any, cases: Iterable[Case]) -> dict[str, dict[str, int]]:
    """Return how many requests each model answered, in how many runs; fewer runs mean that requests were joined."""
    result = {}
    for model, version in sorted({(case.model, case.version) for case in cases}):
        row = channel.get_inference_statistics(model, version, as_json=True)["model_stats"][0]
        requests = int(row["inference_stats"]["success"]["count"])
        result[f"{model}@{version}"] = {"requests": requests, "runs": int(row["execution_count"])}
    return result


def main() -> int:
    """Ask over both transports and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases")
    parser.add_argument("--http", help="host:port of the HTTP endpoint")
    parser.add_argument("--grpc", help="host:port of the gRPC endpoint")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--statistics", action="store_true", help="ask Triton how many runs the requests took")
    options = parser.parse_args()
    cases = read_cases(options.cases)
    report: dict[str, Any] = {}
    if options.http:
        import tritonclient.http as http

        client = http.InferenceServerClient(options.http)
        report["http"] = {
            "ready": client.is_server_ready(),
            "differences": check(http, client, cases, threads=1),
            "metadata": {case.model: client.get_model_metadata(case.model) for case in cases},
        }
        client.close()
    if options.grpc:
        import tritonclient.grpc as grpc

        channel = grpc.InferenceServerClient(options.grpc)
        before = statistics(channel, cases) if options.statistics else {}
        report["grpc"] = {
            "ready": channel.is_server_ready(),
            "differences": check(grpc, channel, cases, threads=options.threads),
        }
        if options.statistics:
            after = statistics(channel, cases)
            # The warm-up counts as requests too, so only what came since is of interest.
            report["grpc"]["statistics"] = {
                case: {key: after[case][key] - before[case][key] for key in after[case]} for case in after
            }
        channel.close()
    json.dump(report, sys.stdout, indent=1)
    return 0


def _datatype(array: np.ndarray[Any, Any]) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return str(np_to_triton_dtype(array.dtype))


if __name__ == "__main__":
    sys.exit(main())

"""Measure `jr-onnx serve` against servers written with kserve or MLServer alone, and joined requests against single.

    python -m tools.bench.serve [--contests kserve,batching] [--rounds 5] [--seconds 4]
    python -m tools.bench.serve --contests mlserver --mlserver-python OTHER_ENVIRONMENT/bin/python

Both servers of a contest run at the same time and are loaded in turn, round by round, so that what else this machine
does hits both; ratios are medians over the rounds. The load comes from another process over loopback. All serve the
same retrofit with ONNX Runtime in one thread, and before anything is timed one answer of each is compared with the
other's. The exit code is 1 where a bar is missed, and 2 where nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jr_onnx.bench.environment import describe
from jr_onnx.bench.models import build
from tools.checks.serving.answers import DisagreementError, check_alike
from tools.checks.serving.peers import PeerError, mlserver_versions, stock_kserve, stock_mlserver
from tools.checks.serving.processes import ROOT, ServerProcess, jr_onnx, running
from tools.checks.serving.workload import PATH, Request, conv_model, write_model, write_requests

CONTESTS = ("kserve", "mlserver", "batching")
_HEADER = (
    "| contest | clients | first, requests/s (p50/p99 ms) | second | ratio (range) | p99/p50, first (range) | bar |"
)


@dataclass(frozen=True)
class Contest:
    """Two servers under the same load; the ratio is the first over the second.

    Attributes:
        title: Who competes, on what.
        requests: What the first is asked, and what the second is asked.
        clients: Connections at the same time.
        servers: The first and the second.
        least_ratio: The ratio to reach, if there is a bar.
        most_tail: What p99 over p50 of the first may be, if there is a bar.
    """

    title: str
    requests: tuple[Request, Request]
    clients: int
    servers: tuple[ServerProcess, ServerProcess]
    least_ratio: float | None = None
    most_tail: float | None = None


def load(server: ServerProcess, request: Request, clients: int, seconds: float) -> dict[str, float]:
    """Load a server and return requests per second and latencies.

    Raises:
        RuntimeError: A request failed.
    """
    target = server.http if request.transport == "http" else server.grpc
    words = [request.transport, target, PATH, str(request.file), str(request.header_length), str(clients), str(seconds)]
    done = subprocess.run(
        [sys.executable, "-m", "tools.checks.serving.load", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the load on {target} ended early: {done.stderr.strip()[-300:]}")
    result: dict[str, float] = json.loads(done.stdout)
    if result["failures"]:
        raise RuntimeError(f"{result['failures']} requests failed: {server.log[-1000:]}")
    return result


def measure(contest: Contest, rounds: int, seconds: float) -> dict[str, Any]:
    """Load both servers in turn and return medians, and the median and range of the ratios.

    Raises:
        DisagreementError: The servers do not answer alike.
        RuntimeError: A request failed.
    """
    pairs = list(zip(contest.servers, contest.requests, strict=True))
    check_alike(*pairs[0], *pairs[1])
    for server, request in pairs:
        load(server, request, contest.clients, min(1.0, seconds))
    results: list[list[dict[str, float]]] = [[], []]
    for number in range(rounds):
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            results[index].append(load(*pairs[index], contest.clients, seconds))
    ratios = [one["rps"] / other["rps"] for one, other in zip(*results, strict=True)]
    tails = [one["p99_ms"] / one["p50_ms"] for one in results[0]]
    median = [{key: statistics.median(row[key] for row in rows) for key in rows[0]} for rows in results]
    row = {
        "contest": contest.title,
        "clients": contest.clients,
        "first": median[0],
        "second": median[1],
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "p99_over_p50": statistics.median(tails),
        "p99_over_p50_range": [min(tails), max(tails)],
    }
    return {**row, "bars": judge(row, contest.least_ratio, contest.most_tail)}


def judge(row: dict[str, Any], least_ratio: float | None, most_tail: float | None) -> list[dict[str, Any]]:
    """Say of each bar whether the median reaches it."""
    bars = []
    if least_ratio is not None:
        bars.append({"bar": f"ratio >= {least_ratio:g}", "met": row["ratio"] >= least_ratio})
    if most_tail is not None:
        bars.append({"bar": f"p99 <= {most_tail:g} p50", "met": row["p99_over_p50"] <= most_tail})
    return bars


def _ours(stack: ExitStack, model: Path, *options: str) -> ServerProcess:
    return stack.enter_context(running(jr_onnx(f"model={model}", "--threads", "1", *options)))


def _kserve(stack: ExitStack, folder: Path) -> Iterator[Contest]:
    small = write_model(conv_model(32), folder / "small.onnx")
    requests = write_requests(small, folder)
    pair = (_ours(stack, small), stack.enter_context(stock_kserve(small)))
    both = {kind: (request, request) for kind, request in requests.items()}
    yield Contest("jr-onnx / stock kserve, 3x32x32, REST binary", both["binary"], 16, pair, 3.0, 4.0)
    yield Contest("jr-onnx / stock kserve, 3x32x32, REST JSON", both["json"], 16, pair)
    yield Contest("jr-onnx / stock kserve, 3x32x32, gRPC", both["grpc"], 16, pair)
    large = write_model(conv_model(224), folder / "large.onnx")
    binary = write_requests(large, folder)["binary"]
    pair = (_ours(stack, large), stack.enter_context(stock_kserve(large)))
    yield Contest("jr-onnx / stock kserve, 3x224x224, REST binary", (binary, binary), 16, pair, 25.0)


def _mlserver(stack: ExitStack, folder: Path, python: str) -> Iterator[Contest]:
    model = write_model(conv_model(32), folder / "small.onnx")
    requests = write_requests(model, folder)
    binary, text, message = (requests[kind] for kind in ("binary", "json", "grpc"))
    pair = (_ours(stack, model), stack.enter_context(stock_mlserver(model, python)))
    title = "jr-onnx / stock MLServer, 3x32x32"
    yield Contest(f"{title}, REST binary against its REST JSON", (binary, text), 16, pair, 2.0, 4.0)
    yield Contest(f"{title}, REST JSON", (text, text), 16, pair)
    yield Contest(f"{title}, gRPC", (message, message), 16, pair)


def _batching(stack: ExitStack, folder: Path) -> Iterator[Contest]:
    for name, title, least in (("mlp", "MLP 784-2048-2048-10", 1.5), ("wide_resnet", "WideResNet", 0.95)):
        model = write_model(build(name), folder / f"{name}.onnx")
        request = write_requests(model, folder)["binary"]
        pair = (_ours(stack, model), _ours(stack, model, "--max-batch", "0"))
        yield Contest(f"joined / single, {title}, REST binary", (request, request), 32, pair, least)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table, or JSON."""
    options = _options(arguments)
    before = os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    groups: dict[str, Callable[[ExitStack, Path], Iterator[Contest]]] = {
        "kserve": _kserve,
        "mlserver": partial(_mlserver, python=options.mlserver_python),
        "batching": _batching,
    }
    try:
        peer = mlserver_versions(options.mlserver_python) if "mlserver" in options.contests else ""
        if not options.json:
            print(f"{_HEADER}\n|{'---|' * 7}", flush=True)
        for name in options.contests:
            with TemporaryDirectory(prefix="jr-onnx-bench-") as folder, ExitStack() as stack:
                for contest in groups[name](stack, Path(folder)):
                    rows.append(measure(contest, options.rounds, options.seconds))
                    if not options.json:
                        print(line_of(rows[-1]), flush=True)
    except (DisagreementError, PeerError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    environment = describe(before)
    if options.json:
        print(json.dumps({"environment": environment.to_json(), "peer": peer, "contests": rows}, indent=1))
    else:
        machine = f"{environment.date}, {environment.cpu}, {environment.cores} cores"
        versions = "; ".join(filter(None, (f"onnxruntime {environment.onnxruntime}", peer and f"peer: {peer}")))
        print(f"\n{machine}, {versions}; load {before:.1f} to {os.getloadavg()[0]:.1f}")
    missed = [f"{row['contest']}: {bar['bar']}" for row in rows for bar in row["bars"] if not bar["met"]]
    for what in missed:
        print(f"the bar is missed: {what}", file=sys.stderr)
    return 1 if missed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contests", default="kserve,batching", metavar="NAME,...", help=", ".join(CONTESTS))
    parser.add_argument(
        "--mlserver-python", metavar="PATH", help="interpreter of an environment with mlserver and onnxruntime"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in the place of the table")
    options = parser.parse_args(arguments)
    options.contests = [name for name in options.contests.split(",") if name]
    unknown = sorted(set(options.contests) - set(CONTESTS))
    if unknown or not options.contests:
        parser.error(f"--contests: expected some of {', '.join(CONTESTS)}, got {', '.join(unknown) or 'none'}")
    if "mlserver" in options.contests and options.mlserver_python is None:
        parser.error("the contest mlserver needs --mlserver-python PATH, a Python with mlserver and onnxruntime")
    if options.rounds < 1 or options.seconds <= 0:
        parser.error(f"expected at least one round of some length, got {options.rounds} of {options.seconds:g} s")
    return options


def line_of(row: dict[str, Any]) -> str:
    """Return a contest's line of the table."""
    sides = [f"{side['rps']:.0f} ({side['p50_ms']:.2f}/{side['p99_ms']:.2f})" for side in (row["first"], row["second"])]
    ratio = f"{row['ratio']:.2f} ({row['ratio_range'][0]:.2f}-{row['ratio_range'][1]:.2f})"
    tail = f"{row['p99_over_p50']:.1f} ({row['p99_over_p50_range'][0]:.1f}-{row['p99_over_p50_range'][1]:.1f})"
    bars = ", ".join(f"{bar['bar']}: {'met' if bar['met'] else 'missed'}" for bar in row["bars"]) or "none"
    return f"| {row['contest']} | {row['clients']} | {sides[0]} | {sides[1]} | {ratio} | {tail} | {bars} |"


if __name__ == "__main__":
    sys.exit(main())

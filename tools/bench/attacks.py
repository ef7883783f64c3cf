"""Time the paper's attacks against Foolbox, torchattacks and a literal transcription, at equal success.

    python -m tools.bench.attacks --network lenet_like --weights FILE --data mnist:DIR --limit 200 \
        --peers-python VENV/bin/python

Every implementation runs in a process of its own, with the same weights, images and number of threads, and all take
turns in every round. Each first chooses its best batch size. The figures are medians over the rounds, and the ratio
to the fastest other implementation, by the clock and by processor time (which a busy machine disturbs less). Peers
that cannot be started are named, not skipped silently.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from jr_onnx.data import load
from tools.bench.attack_peers.worker import IMPLEMENTATIONS

ROOT = Path(__file__).resolve().parents[2]
PEERS = ("foolbox", "torchattacks")
_SAME_SUCCESS = 0.005
"""Shares of images that differ by less count as equal: another summation decides single images at a boundary."""


@dataclass
class Worker:
    """A running implementation."""

    name: str
    process: subprocess.Popen[str]
    attacks: tuple[str, ...] = ()
    batch: dict[str, int] = field(default_factory=dict)

    def order(self, attack: str, batch: int) -> dict[str, float]:
        """Send one order and wait for the answer."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError(f"{self.name} has no pipes")
        self.process.stdin.write(json.dumps({"attack": attack, "batch": batch}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            lines = self.process.communicate()[1].strip().splitlines()
            raise RuntimeError(f"{self.name} ended during {attack}: {lines[-1] if lines else 'no message'}")
        answer: dict[str, float] = json.loads(line)
        return answer


def start(name: str, python: str, config: Path, threads: int) -> Worker | None:
    """Start an implementation; None if it does not come up."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        [python, "-W", "ignore", "-m", "tools.bench.attack_peers.worker", name, str(config)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        message = process.communicate()[1].strip().splitlines()
        print(f"{name} did not start: {message[-1] if message else 'no message'}", file=sys.stderr)
        return None
    return Worker(name, process, tuple(json.loads(line)["attacks"]))


def choose_batches(workers: list[Worker], attacks: list[str], sizes: list[int]) -> None:
    """Let every implementation find its fastest batch size for every attack; this is the warm-up too."""
    for worker in workers:
        for attack in attacks:
            if attack in worker.attacks:
                timed = {size: worker.order(attack, size)["seconds"] for size in sizes}
                worker.batch[attack] = min(timed, key=lambda size: timed[size])


def compare(workers: list[Worker], attack: str, rounds: int) -> dict[str, Any]:
    """Let the implementations take turns; return their medians."""
    able = [worker for worker in workers if attack in worker.attacks]
    answers: dict[str, list[dict[str, float]]] = {worker.name: [] for worker in able}
    for number in range(rounds):
        for worker in able if number % 2 == 0 else reversed(able):
            answers[worker.name].append(worker.order(attack, worker.batch[attack]))
    rows = {}
    for worker in able:
        found = answers[worker.name]
        medians = {key: statistics.median(answer[key] for answer in found) for key in ("seconds", "cpu_seconds")}
        rows[worker.name] = {**found[-1], **medians, "batch": worker.batch[attack]}
    others = {name: row["seconds"] for name, row in rows.items() if name != "ours"}
    fastest = min(others, key=lambda name: others[name])
    pairs = list(zip(answers[fastest], answers["ours"], strict=True))
    ratios = {
        key: statistics.median(other[key] / own[key] for other, own in pairs) for key in ("seconds", "cpu_seconds")
    }
    result: dict[str, Any] = {
        "attack": attack,
        "rows": rows,
        "fastest_other": fastest,
        "ratio": ratios["seconds"],
        "ratios": ratios,
    }
    return {
        **result,
        "as_strong": rows["ours"]["robust"] <= min(row["robust"] for row in rows.values()) + _SAME_SUCCESS,
    }


def judge(results: list[dict[str, Any]], least: float) -> bool:
    """Print for every attack whether it is fast enough, at equal or better success; return whether all are."""
    good = True
    for result in results:
        met = result["ratio"] >= least and result["as_strong"]
        good &= met
        weaker = "" if result["as_strong"] else ", and finds fewer adversarials than another"
        print(f"{result['attack']}: {result['ratio']:.2f}x, bar {least:g}x: {'met' if met else 'missed'}{weaker}")
    return good


def show(results: list[dict[str, Any]]) -> None:
    """Print a table."""
    table = Table(title="median seconds; ratio to the fastest other implementation, same round")
    for column in ("attack", "by", "batch", "s", "cpu s", "still correct", "mean relative", "ratio", "cpu ratio"):
        table.add_column(column)
    for result in results:
        for name, row in result["rows"].items():
            ratios = ("", "")
            if name == "ours":
                wall, cpu = result["ratios"]["seconds"], result["ratios"]["cpu_seconds"]
                ratios = (f"{wall:.2f}x {result['fastest_other']}", f"{cpu:.2f}x")
            times = (f"{row['seconds']:.2f}", f"{row['cpu_seconds']:.2f}")
            found = (f"{row['robust']:.2%}", f"{row['relative']:.2%}")
            table.add_row(result["attack"], name, str(row["batch"]), *times, *found, *ratios)
    Console().print(table)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="lenet_like", help="a network of models.registry")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True, help="as jr-onnx takes it, for instance mnist:DIR")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="of pgd and deepfool; the paper: 40 MNIST, 7 CIFAR-10")
    parser.add_argument("--trust-region-steps", type=int, default=1000)
    parser.add_argument("--eps", type=float, default=0.01, help="step of pgd, in normalised units")
    parser.add_argument("--attacks", default="pgd,deepfool-linf,deepfool-l2,trust-region")
    parser.add_argument("--batch-sizes", default="64,256", help="to choose from; --limit is the largest")
    parser.add_argument("--peers-python", help="interpreter of an environment with torch, foolbox, torchattacks, numpy")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--least", type=float, help="exit with 1 if an attack is not this much faster")
    parser.add_argument("-o", "--output", type=Path, help="write the figures here too")
    return parser.parse_args()


def main() -> int:
    """Run the comparison."""
    options = arguments()
    data = load(options.data, limit=options.limit)
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "data.npz"
        np.savez(pixels, pixels=data.images, labels=data.labels)
        config = Path(folder) / "config.json"
        values = {
            "network": options.network,
            "weights": str(options.weights.resolve()),
            "data": str(pixels),
            "threads": options.threads,
            "steps": options.steps,
            "trust_region_steps": options.trust_region_steps,
            "eps": options.eps,
        }
        config.write_text(json.dumps(values), encoding="utf-8")
        pythons = {name: sys.executable for name in IMPLEMENTATIONS if name not in PEERS}
        if options.peers_python:
            pythons.update(dict.fromkeys(options.peers.split(","), options.peers_python))
        started = [start(name, python, config, options.threads) for name, python in pythons.items()]
        workers = [worker for worker in started if worker is not None]
        try:
            attacks = options.attacks.split(",")
            sizes = sorted({min(int(s), len(data)) for s in options.batch_sizes.split(",")})
            results = []
            for attack in attacks:
                choose_batches(workers, [attack], sizes)
                results.append(compare(workers, attack, options.rounds))
                show(results[-1:])  # at once, so that an interrupted run has shown what it measured
        finally:
            for worker in workers:
                worker.process.terminate()
                worker.process.wait()
    if options.output:
        options.output.write_text(json.dumps({"settings": values, "results": results}, indent=2), encoding="utf-8")
    return 0 if options.least is None or judge(results, options.least) else 1


if __name__ == "__main__":
    sys.exit(main())

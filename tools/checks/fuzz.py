"""Try the rewriter on random legal models, or every command on damaged files; stop at nothing but the count.

    python -m tools.checks.fuzz models --count 100000       each model rewritten, restored, compared with a reference
    python -m tools.checks.fuzz commands --count 100000     each command with damaged models, data, results and packages

The work is done in batches, each in a process of its own with limits on time and memory, so that a crash or a hang is
one bad case with a name and not the end of the run. Exits with 1 if there was a bad case; each is printed with what
repeats it. The models are those of tests/rewriter/legal.py, the commands those of tests/cli/fuzz_worker.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS_IN_BATCH, COMMANDS_IN_BATCH = 500, 500
BATCH_SECONDS = 3600


@dataclass
class Found:
    """What a batch, or all of them, came to."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)


def run_worker(words: list[str]) -> tuple[int, str, str]:
    """Run a worker; return its exit code, output and complaint."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            capture_output=True, text=True, check=False, cwd=ROOT, timeout=BATCH_SECONDS, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, "", f"no end within {BATCH_SECONDS} s"
    return done.returncode, done.stdout, done.stderr


def models(number: int, count: int, seed: int) -> Found:
    """Try a batch of legal models."""
    start = seed * 1_000_000 + number
    code, said, complaint = run_worker(["tests.rewriter.legal", str(count), str(start)])
    if code == 0:
        return Found(Counter(json.loads(said.splitlines()[-1])))
    again = f"python -m tests.rewriter.legal {count} {start}"
    return Found(Counter({"bad batches": 1}), [f"{again}: exit {code}\n{complaint[-4000:]}"])


def commands(number: int, count: int, seed: int, corpus: Path, folder: Path) -> Found:
    """Try a batch of commands; behind a bad case the batch goes on."""
    found = Found()
    scratch = folder / f"batch{number}"
    first, end = number * COMMANDS_IN_BATCH, number * COMMANDS_IN_BATCH + count
    while first < end:
        words = ["tests.cli.fuzz_worker", str(corpus), str(scratch), str(seed), str(first), str(end - first)]
        code, said, complaint = run_worker(words)
        answers = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        if code == 0:
            found.counts.update(answers[-1])
            break
        if not (scratch / "case.json").exists():
            raise SystemExit(f"the worker failed before its first case: {complaint[-1500:]}")
        case = json.loads((scratch / "case.json").read_text(encoding="utf-8"))
        found.counts.update({"before a bad case": case["number"] - first, "bad": 1})
        found.bad.append(json.dumps(answers[-1] if answers else {**case, "exit": code, "said": complaint[-1500:]}))
        first = case["number"] + 1
    return found


def batches(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield number and size of every batch."""
    for number, first in enumerate(range(0, count, size)):
        yield number, min(size, count - first)


def main() -> None:
    """Run the batches and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("models", "commands"))
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further batch after so long")
    arguments = parser.parse_args()
    began = time.monotonic()
    total = Found()
    with tempfile.TemporaryDirectory(prefix="jr-fuzz-") as name, ThreadPoolExecutor(arguments.workers) as pool:
        folder, corpus = Path(name), Path(name) / "corpus"
        if arguments.what == "commands":
            subprocess.run(
                [sys.executable, "-c", "import sys; from pathlib import Path; from tests.cli.corpus import build\n"
                 "build(Path(sys.argv[1]))", str(corpus)], check=True, cwd=ROOT, capture_output=True,
            )  # fmt: skip
        size = MODELS_IN_BATCH if arguments.what == "models" else COMMANDS_IN_BATCH
        work: Callable[[int, int], Found] = (
            (lambda number, count: models(number, count, arguments.seed))
            if arguments.what == "models"
            else (lambda number, count: commands(number, count, arguments.seed, corpus, folder))
        )

        def attempt(batch: tuple[int, int]) -> Found:
            return work(*batch) if (time.monotonic() - began) / 60 < arguments.minutes else Found()

        for found in pool.map(attempt, batches(arguments.count, size)):
            total.counts.update(found.counts)
            total.bad += found.bad
            for bad in found.bad:
                print(bad, flush=True)
            print(f"{(time.monotonic() - began) / 60:.1f} min: {dict(total.counts)}", file=sys.stderr, flush=True)
    print(f"{arguments.what}, seed {arguments.seed}: {dict(sorted(total.counts.items()))}; {len(total.bad)} bad")
    sys.exit(1 if total.bad else 0)


if __name__ == "__main__":
    main()

"""How long a session takes to open and how much memory it needs: measured in a process of its own.

In the benchmark's process all variants are open together and share allocators, so they cannot be measured one by one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jr_onnx.bench.running import Feed, runner
from jr_onnx.bench.variants import PROVIDERS, Variant
from jr_onnx.errors import JrError
from jr_onnx.runtime.providers import require_providers

_OPENINGS = 4
_TIMEOUT_S = 600


@dataclass(frozen=True)
class Footprint:
    """What a fresh process found.

    Attributes:
        open_ms: Least time of the processor of four openings; the first of a process also loads code.
        memory_bytes: Peak memory of the first opening and one run, beyond what the imports took.
    """

    open_ms: float
    memory_bytes: int


def footprint(variant: Variant, provider: str, threads: int, feed: Feed, folder: Path) -> Footprint:
    """Measure a variant in a fresh process.

    Raises:
        JrError: The process failed.
    """
    inputs = folder / "inputs.npz"
    np.savez(inputs, *feed.values())  # not by name: an input may have the name of a parameter of savez
    spec = {
        "name": variant.name,
        "kind": variant.kind,
        "path": str(variant.path),
        "folder": str(variant.folder) if variant.folder is not None else None,
        "provider": provider,
        "options": variant.options,
        "threads": threads,
        "inputs": str(inputs),
        "names": list(feed),
    }
    done = subprocess.run(
        [sys.executable, "-m", "jr_onnx.bench.footprint"],
        input=json.dumps(spec), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise JrError(f"measuring the memory of {variant.name} failed: {last[0]}")
    return Footprint(**json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    """Measure what the JSON on stdin asks for, and print the footprint as JSON."""
    import jr_onnx.runtime.session  # noqa: F401 - imports are not the session's memory

    spec = json.load(sys.stdin)
    folder = Path(spec["folder"]) if spec["folder"] is not None else None
    variant = Variant(spec["name"], spec["kind"], Path(spec["path"]), folder, spec["options"])
    with np.load(spec["inputs"]) as stored:
        feed = {name: stored[f"arr_{index}"] for index, name in enumerate(spec["names"])}
    require_providers(PROVIDERS[spec["provider"]])  # looking for a provider takes memory too, once in a process
    before = _memory("VmRSS")
    session = variant.open(spec["provider"], spec["threads"])
    runner(session, feed, spec["provider"])()
    memory = _memory("VmHWM") - before
    del session
    best = float("inf")
    for _ in range(_OPENINGS):
        start = time.process_time()
        session = variant.open(spec["provider"], spec["threads"])
        best = min(best, (time.process_time() - start) * 1000)
        del session
    sys.stdout.write(json.dumps(asdict(Footprint(best, memory))) + "\n")


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise JrError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()

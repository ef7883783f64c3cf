"""Send `jr-onnx serve` every barrage there is: its memory stays bounded, health answers, no accepted request is lost.

    python -m tools.checks.barrage --each 10 --seconds 300

Everything goes over loopback. First one barrage after the other (`tools/checks/serving/barrages.py`) is sent by a
process of its own, while health is asked over both transports, each time over a new connection. Then valid load, whose
answers are compared, and all barrages together. The bars: the peak of resident memory is at most `--max-total-mib` plus
300 MiB, the slowest answer to a health check takes 0.5 s, no answer is wrong, none is missing, and the server counts as
many answers as accepted requests when it is asked to stop. On a busy machine latencies depend on the other work too.

Exits with 1 and says what was wrong, or prints the figures.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import TensorProto, helper

from tools.checks.load import Crowd
from tools.checks.serving.barrages import BARRAGES
from tools.checks.serving.clients import CUT_OFF
from tools.checks.serving.known import Tally, known_answers, write_models
from tools.checks.serving.processes import ROOT, ServerProcess, jr_onnx, running

_TOTAL_MIB = 256
_SPARE_MIB = 300
_HEALTH_S = 0.5
_CLIENTS = 4
_STOPPED = re.compile(r"stopped: (\d+) requests accepted, (\d+) answered")
_OPTIONS = ("--max-total-mib", str(_TOTAL_MIB), "--threads", "1")


@dataclass
class Figures:
    """What was measured during a barrage.

    Attributes:
        peak_mib: Peak of resident memory.
        worst_s: The slowest answer to a health check.
        checks: How many were answered.
        missing: What was said instead of an answer.
    """

    peak_mib: int
    worst_s: float
    checks: int
    missing: list[str]

    def faults(self) -> list[str]:
        """Return which bars were missed."""
        result = list(self.missing[:3])
        if self.peak_mib > _TOTAL_MIB + _SPARE_MIB:
            result.append(f"memory {self.peak_mib} MiB, expected at most {_TOTAL_MIB + _SPARE_MIB}")
        if self.worst_s > _HEALTH_S:
            result.append(f"a health check took {self.worst_s:.2f} s, expected at most {_HEALTH_S:g}")
        if not self.checks:
            result.append("no health check was answered")
        return result


def under(server: ServerProcess, names: Sequence[str], seconds: float) -> Figures:
    """Send barrages for so long, and measure."""
    words = (str(server.http_port), str(server.grpc_port), str(seconds))
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    words_of_health = [sys.executable, "-m", "tools.checks.serving.health", *words]
    health = subprocess.Popen(words_of_health, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    # They are polite to the server's processor, which on another machine they would not take away.
    program = ["nice", "-n", "15", sys.executable, "-m", "tools.checks.serving.barrages"]
    senders = [subprocess.Popen([*program, name, *words], cwd=ROOT) for name in names]
    try:
        end = time.monotonic() + seconds + 5
        for sender in senders:
            sender.wait(max(0.1, end - time.monotonic()) + 30)
    finally:
        for sender in senders:
            if sender.poll() is None:
                sender.kill()
            sender.wait()
    said, _ = health.communicate(timeout=60)
    return Figures(server.peak_bytes() >> 20, **json.loads(said))


def write_echo(path: Path) -> Path:
    """Write a model whose output is its input, so that requests decide how large answers are."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "M"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "echo", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def mixed(server: ServerProcess, folder: Path, seconds: float, names: Sequence[str], tally: Tally) -> Figures:
    """Send valid load and barrages together, stop the server in their midst, and judge the answers."""
    known = known_answers(folder / "net.onnx", folder / "fixed.jr.onnx")
    crowd = Crowd(server, known, _CLIENTS, tally, asks_badly=False)
    figures = under(server, names, seconds)
    crowd.stopping.set()
    if tally.total(f"REST: {CUT_OFF}"):
        tally.fail(f"{tally.total(f'REST: {CUT_OFF}')} connections were closed before an answer")
    code = server.terminate()
    crowd.join()
    match = _STOPPED.search(server.log)
    if code != 0 or match is None or match[1] != match[2]:
        tally.fail(f"the server exited with code {code} and said: {server.log[-300:]}")
    return figures


def main() -> int:
    """Run the test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=float, default=10.0, help="seconds of each barrage; 0 leaves them out")
    parser.add_argument("--seconds", type=float, default=300.0, help="seconds of all together; 0 leaves that out")
    parser.add_argument("--only", choices=sorted(BARRAGES), nargs="+", default=list(BARRAGES))
    options = parser.parse_args()
    wrong: list[str] = []
    with TemporaryDirectory(prefix="jr-onnx-barrage-") as name:
        folder = Path(name)
        write_models(folder)
        models = (folder / "fixed.jr.onnx", folder / "drawn.jr.onnx", write_echo(folder / "echo.onnx"))
        for barrage in options.only if options.each else ():
            with running(jr_onnx(*models, *_OPTIONS)) as server:
                wrong += _report(barrage, under(server, [barrage], options.each))
        if options.seconds:
            tally = Tally()
            with running(jr_onnx(*models, *_OPTIONS)) as server:
                wrong += _report("all together", mixed(server, folder, options.seconds, options.only, tally))
            for key, count in sorted(tally.counts.items()):
                print(f"{count:>9}  {key}")
            wrong += tally.wrong
    for what in wrong[:20]:
        print(f"WRONG: {what}")
    print("passed" if not wrong else f"FAILED: {len(wrong)} things were wrong")
    return 1 if wrong else 0


def _report(what: str, figures: Figures) -> list[str]:
    print(
        f"{what:>15}: peak {figures.peak_mib:>4} MiB, slowest of {figures.checks} health checks "
        f"{figures.worst_s * 1e3:.0f} ms",
        flush=True,
    )
    return [f"{what}: {fault}" for fault in figures.faults()]


if __name__ == "__main__":
    sys.exit(main())

"""Load `jr-onnx serve` for minutes, compare every answer, watch memory, stop it under load, kill it, start it again.

    python -m tools.checks.load --seconds 300

Half of the clients ask over REST, half over gRPC. Good requests bring batches of several sizes to a fixed retrofit and
to one that draws its kappa. An answer of the fixed one must be that of the session in this process, up to rounding as
`jr-onnx verify` derives it; an answer of the drawn one must be explained by a single kappa of its range. Bad requests
must be refused with the status that says what is wrong with them. At the end SIGTERM comes while requests go on: the
clients must have as many answers as the server says it accepted. Then another server is killed with SIGKILL under the
same load, and must answer again on the same ports within 5 s, the process's start included.

Exits with 1 and says what was wrong, or prints the counts.
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.checks.serving.clients import COMPARED, DRAWN, REFUSED, Client, RestClient
from tools.checks.serving.known import Known, Tally, known_answers, write_models
from tools.checks.serving.processes import ServerProcess, jr_onnx, running

_STOPPED = re.compile(r"stopped: (\d+) requests accepted, (\d+) answered")
_KINDS = (COMPARED, DRAWN, REFUSED)
_FEWEST = 20
"""Of each kind over each transport in a test of any length; fewer mean that nothing was tested."""

_SERVERS_FAULT = ("REST: status 5", "gRPC: status UNKNOWN", "gRPC: status INTERNAL")
_GROWTH_BYTES = 48 << 20
"""Memory that may be added after the first fifth of the time: allocators settle, a leak does not."""

RETURN_S = 5.0
"""Within which a killed server must answer again."""

_BEFORE_KILL_S = 2.0
_OPTIONS = ("--max-body-mib", "2", "--max-json-mib", "1")


class Crowd:
    """The clients of one server, every other over gRPC."""

    def __init__(
        self, server: ServerProcess, known: Known, clients: int, tally: Tally, *, asks_badly: bool = True
    ) -> None:
        from tools.checks.serving.grpc_clients import GrpcClient  # a process that imports it can never import kserve

        self._stop = threading.Event()
        self.stopping = threading.Event()
        kinds: tuple[tuple[type[Client], str], ...] = ((RestClient, server.http), (GrpcClient, server.grpc))
        self._threads = [
            kind(number, target, known, tally, self._stop, self.stopping, asks_badly=asks_badly)
            for number, (kind, target) in ((number, kinds[number % 2]) for number in range(clients))
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Let every client finish its request, and wait for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def load(server: ServerProcess, known: Known, clients: int, seconds: float, tally: Tally) -> list[int]:
    """Load the server, note its memory every second, and stop it while requests go on."""
    crowd = Crowd(server, known, clients, tally)
    memory = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.process.poll() is None:
        time.sleep(1.0)
        memory.append(server.memory_bytes())
    crowd.stopping.set()
    code = server.terminate()
    crowd.join()
    if code != 0:
        tally.fail(f"the server exited with code {code}: {server.log[-2000:]}")
    return memory


def judge(log: str, memory: list[int], tally: Tally) -> None:
    """Note what is wrong about memory, and about requests that were lost."""
    settled = memory[len(memory) // 5]
    if memory[-1] - settled > _GROWTH_BYTES:
        tally.fail(f"memory grew from {settled >> 20} to {memory[-1] >> 20} MiB")
    for transport in ("REST", "gRPC"):
        for kind in _KINDS:
            count = tally.counts[f"{transport}: {kind}"]
            if count < _FEWEST:
                tally.fail(f"only {count} times over {transport}: {kind}")
    match = _STOPPED.search(log)
    answered = tally.total("REST: status ") + tally.total("gRPC: status ")
    if match is None or not int(match[1]) == int(match[2]) == answered:
        tally.fail(f"the clients have {answered} answers, the server says: {log[-300:]}")
    for start in _SERVERS_FAULT:
        if tally.total(start):
            tally.fail(f"{tally.total(start)} requests got {start}...")


def kill_and_return(models: Iterable[Path], known: Known, clients: int, tally: Tally) -> float:
    """Kill a server under load, start it again on the same ports, and return the seconds until both of them answer."""
    models = list(models)
    with running(jr_onnx(*models, *_OPTIONS)) as server:
        crowd = Crowd(server, known, clients, Tally())  # what is cut off here is nobody's fault
        time.sleep(_BEFORE_KILL_S)
        ports = ("--http-port", str(server.http_port), "--grpc-port", str(server.grpc_port))
        crowd.stopping.set()
        server.process.kill()
        server.process.wait()
        started = time.monotonic()
        with running(jr_onnx(*models, *_OPTIONS, *ports)) as again:
            check_answers(again, known, tally)
            taken = time.monotonic() - started
            crowd.join()
    if taken > RETURN_S:
        tally.fail(f"a killed server answered again after {taken:.1f} s, expected {RETURN_S:g} s at most")
    return taken


def check_answers(server: ServerProcess, known: Known, tally: Tally) -> None:
    """Ask for one good answer over each transport."""
    from tools.checks.serving.grpc_clients import GrpcClient

    for kind, target in ((RestClient, server.http), (GrpcClient, server.grpc)):
        mine = Tally()
        client = kind(0, target, known, mine, threading.Event(), threading.Event())
        good: Callable[[], None] = client.asks()[0]
        client.attempt(good)
        client.close()
        for what in mine.wrong:
            tally.fail(f"after the return: {what}")
        if mine.counts[f"{client.transport}: {COMPARED}"] != 1:
            tally.fail(f"after the return: no answer over {client.transport}: {dict(mine.counts)}")


def main() -> int:
    """Run the test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--clients", type=int, default=12)
    options = parser.parse_args()
    if options.clients < 2 or options.seconds <= 0:
        parser.error(f"expected two clients at least and some seconds, got {options.clients} and {options.seconds:g}")
    tally = Tally()
    with TemporaryDirectory(prefix="jr-onnx-load-") as name:
        folder = Path(name)
        known = known_answers(write_models(folder), folder / "fixed.jr.onnx")
        models = (folder / "fixed.jr.onnx", folder / "drawn.jr.onnx")
        with running(jr_onnx(*models, *_OPTIONS)) as server:
            memory = load(server, known, options.clients, options.seconds, tally)
            judge(server.log, memory, tally)
        returned = kill_and_return(models, known, options.clients, tally)
    for key, count in sorted(tally.counts.items()):
        print(f"{count:>9}  {key}")
    print(f"memory: {memory[len(memory) // 5] >> 20} MiB after a fifth of the time, {memory[-1] >> 20} MiB at the end")
    print(
        f"answers again {returned:.1f} s after kill -9: {'met' if returned <= RETURN_S else 'missed'} ({RETURN_S:g} s)"
    )
    for what in tally.wrong[:20]:
        print(f"WRONG: {what}")
    print("passed" if not tally.wrong else f"FAILED: {len(tally.wrong)} things were wrong")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

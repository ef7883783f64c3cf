"""Run the load balancer that `jr-onnx package compose` configures, before two real tritonservers.

    sudo python -m tools.checks.balancer [--haproxy /usr/sbin/haproxy] [--environment FOLDER]

Docker's part is played here: the two servers listen on 127.0.0.2 and 127.0.0.3, and a name server on 127.0.0.11:53,
where Docker has its own, answers `triton` with the addresses (that port needs root). `haproxy.cfg` is used as
written, but that it listens on 127.0.0.1 instead of on every address, which would collide with the servers.

What is checked: both replicas share the requests over HTTP and gRPC; after `kill -9` of one no answer is lost or
wrong; a replica that is started again gets requests again; with none left the health page says so. The environment
and the server are those of `tools/checks/triton/run.py`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from jr_onnx.deploy import ComposeOptions, TritonOptions, package_compose, package_triton
from jr_onnx.deploy.haproxy import GRPC_PORT, HTTP_PORT, NAME_SERVER, STATUS_PORT
from tools.checks.triton.cases import MODELS
from tools.checks.triton.server import DEFAULT_FOLDER, ROOT, Environment, Server, make_backends, make_environment

ADDRESSES = ("127.0.0.2", "127.0.0.3")
REQUESTS = 40
SETTLE_SECONDS = 8.0
"""Longer than three failed checks at two seconds, or one name look-up and one good check."""

# Both sessions are of ONNX Runtime on this machine; see `Cases.bound` in tools/checks/triton/cases.py for the size
# of such differences (2e-5 on these models).
_BOUND = 1e-4


def main() -> int:
    """Run the steps and print a line for each; the exit code is 0 only if every one holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--python", default="python3.10")
    parser.add_argument("--haproxy", default=shutil.which("haproxy") or "/usr/sbin/haproxy")
    options = parser.parse_args()
    environment = make_environment(options.environment, options.python)
    with tempfile.TemporaryDirectory(prefix="check-balancer-") as name:
        work = Path(name)
        stage = Stage(environment, work, options.haproxy)
        try:
            stage.start()
            failures = stage.play()
        finally:
            stage.close()
    print("\n".join(failures) or "every check holds")
    return 1 if failures else 0


class Stage:
    """Two servers, a name server and the balancer."""

    def __init__(self, environment: Environment, work: Path, haproxy: str) -> None:
        self.environment = environment
        self.work = work
        self.haproxy = haproxy
        self.failures: list[str] = []
        self.servers: dict[str, Server] = {}
        self.balancer: subprocess.Popen[bytes] | None = None
        source = MODELS / "digits_cnn.onnx"
        package_triton(source, work / "repository", TritonOptions(name="digits"))
        package_compose(work / "repository", work / "deployment", ComposeOptions())
        self.cases = _write_cases(source, work / "cases.npz")
        self.backends = make_backends(environment, work / "backends")

    def start(self) -> None:
        """Start the servers, the name server and the balancer."""
        for address in ADDRESSES:
            self.servers[address] = self._start(address)
        for server in self.servers.values():
            server.wait_until_ready()
        serve_names("triton", ADDRESSES)
        written = (self.work / "deployment" / "haproxy.cfg").read_text(encoding="utf-8")
        narrowed = self.work / "haproxy.cfg"
        narrowed.write_text(re.sub(r"(?m)^( +bind ):", r"\g<1>127.0.0.1:", written), encoding="utf-8")
        with (self.work / "haproxy.log").open("w", encoding="utf-8") as log:
            command = [self.haproxy, "-f", str(narrowed)]
            self.balancer = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def play(self) -> list[str]:
        """Go through the steps, and return what does not hold."""
        time.sleep(SETTLE_SECONDS)
        self.expect("two replicas", healthy=True, grown=2)
        self.servers[ADDRESSES[0]].process.kill()
        self.expect("right after kill -9 of one", healthy=True, grown=1)
        time.sleep(SETTLE_SECONDS)
        self.expect("one replica", healthy=True, grown=1)
        self.servers[ADDRESSES[0]] = self._start(ADDRESSES[0])
        self.servers[ADDRESSES[0]].wait_until_ready()
        time.sleep(SETTLE_SECONDS)
        self.expect("replica started again", healthy=True, grown=2)
        for server in self.servers.values():
            server.stop()
        time.sleep(SETTLE_SECONDS)
        self.expect("none left", healthy=False, grown=0)
        return self.failures

    def expect(self, step: str, *, healthy: bool, grown: int) -> None:
        """Ask for the health page, send the requests, and see how many replicas answered them."""
        status = _get(f"http://127.0.0.1:{STATUS_PORT}/healthz")[0]
        if (status == 200) != healthy:
            self.failures.append(f"{step}: the health page answers {status}")
        before = _answered()
        right = self._ask(step) if healthy else {}
        shares = {key: value - before.get(key, 0) for key, value in _answered().items() if value > before.get(key, 0)}
        for backend in ("triton_http", "triton_grpc"):
            count = sum(key[0] == backend for key in shares)
            if count != grown:
                self.failures.append(f"{step}: {count} replicas of {backend} answered, expected {grown}")
        print(f"{step}: health {status}, right answers {right}, shares {sorted(shares.values())}")

    def close(self) -> None:
        """End everything that was started."""
        if self.balancer is not None:
            self.balancer.terminate()
            self.balancer.wait(timeout=30)
        for server in self.servers.values():
            server.stop()

    def _ask(self, step: str) -> dict[str, int]:
        command = [
            str(self.environment.python),
            str(ROOT / "tools" / "checks" / "protocol" / "oip_client.py"),
            str(self.cases),
        ]
        command += ["--http", f"127.0.0.1:{HTTP_PORT}", "--grpc", f"127.0.0.1:{GRPC_PORT}", "--threads", "8"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            self.failures.append(f"{step}: {done.stderr.strip().splitlines()[-1]}")
            return {}
        report: dict[str, Any] = json.loads(done.stdout)
        right = {name: sum(value <= _BOUND for value in report[name]["differences"].values()) for name in report}
        if any(count != REQUESTS for count in right.values()):
            self.failures.append(f"{step}: {right} right answers, expected {REQUESTS} each")
        return right

    def _start(self, address: str) -> Server:
        return Server(
            self.environment,
            self.backends,
            self.work / "repository",
            http=HTTP_PORT,
            grpc=GRPC_PORT,
            address=address,
            log=self.work / f"{address}.log",
        )


def serve_names(name: str, addresses: tuple[str, ...]) -> None:
    """Answer every question for an IPv4 address of one name, in a thread that ends with the process."""
    host, port = NAME_SERVER.split(":")
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((host, int(port)))
    threading.Thread(target=_answer_names, args=(listener, name, addresses), daemon=True).start()


def _answer_names(listener: socket.socket, name: str, addresses: tuple[str, ...]) -> None:
    wanted = bytes([len(name)]) + name.encode("ascii") + b"\0"
    while True:
        query, sender = listener.recvfrom(4096)
        end = query.index(b"\0", 12) + 5
        (kind,) = struct.unpack("!H", query[end - 4 : end - 2])
        found = addresses if kind == 1 and query[12 : end - 4] == wanted else ()
        answer = query[:2] + b"\x81\x80" + struct.pack("!HHHH", 1, len(found), 0, 0) + query[12:end]
        for address in found:  # a pointer to the name, type A, class IN, 5 seconds, 4 bytes
            answer += b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton(address)
        listener.sendto(answer, sender)


def _write_cases(model: Path, path: Path) -> Path:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    generator = np.random.default_rng(3)
    for number in range(REQUESTS):
        x = generator.random((1, 1, 8, 8), dtype=np.float32)
        arrays[f"digits@1#{number}/in/input"] = x
        arrays[f"digits@1#{number}/out/logits"] = session.run(None, {"input": x})[0]
    np.savez(path, allow_pickle=False, **arrays)
    return path


def _answered() -> dict[tuple[str, str], int]:
    """Return how many good answers each replica has given, by the balancer's own count."""
    text = _get(f"http://127.0.0.1:{STATUS_PORT}/metrics")[1]
    pattern = r'haproxy_server_http_responses_total\{proxy="(\w+)",server="([\w-]+)",code="2xx"\} (\d+)'
    return {(proxy, server): int(count) for proxy, server, count in re.findall(pattern, text) if int(count)}


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - an address of ours
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


if __name__ == "__main__":
    sys.exit(main())

"""Load a packaged repository into a real tritonserver, ask it, and show that broken packages are rejected.

    python tools/check_triton.py [--environment FOLDER] [--python python3.10] [--report FILE]

The server is the one bundled with nvidia-pytriton (Triton 24.10), in an environment of its own that is made on the
first run (about 470 MB from PyPI). It runs on loopback only: that release has known security faults. Its ONNX Runtime
backend is not on PyPI, so `tools/triton_backend` stands in under the same name; everything else (configuration,
warm-up, batching, labels, protocol) is Triton's own.

What is checked: (1) the repository that `jr-onnx package triton` wrote is loaded unchanged, (2) the answers over HTTP
and gRPC equal those of ONNX Runtime in this process within the bound of `_BOUND`, (3) each of the broken packages
makes tritonserver leave with an error that names the fault, and `jr-onnx verify-package` finds it as well.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jr_onnx.deploy import verify
from jr_onnx.errors import JrError
from tools.triton_cases import build_repository
from tools.triton_faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ("nvidia-pytriton==0.7.0", "onnxruntime==1.23.2", "tritonclient[http,grpc]==2.73.0")
READY_SECONDS = 60.0
# The environment's ONNX Runtime is another version than this process's, so products are summed in another order. The
# digits classifiers have at most 1152 terms a sum and logits below 64: 1152 * 2^-24 * 64 < 0.005.
_BOUND = 0.005


@dataclass(frozen=True)
class Environment:
    """The environment that holds tritonserver."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def query(self, expression: str) -> str:
        """Evaluate an expression there."""
        command = [str(self.python), "-c", f"import sys, sysconfig; print({expression})"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    """Run all checks and print what was found; the exit code is 0 only if every one holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, default=ROOT / "out" / "triton-environment")
    parser.add_argument("--python", default="python3.10", help="interpreter for it: 3.10 to 3.12, with libpython")
    parser.add_argument("--report", type=Path, help="write the findings as JSON")
    options = parser.parse_args()
    environment = make_environment(options.environment, options.python)
    with tempfile.TemporaryDirectory(prefix="check-triton-") as name:
        work = Path(name)
        backends = make_backends(environment, work / "backends")
        cases = build_repository(work / "repository", work)
        findings: dict[str, Any] = {
            "loaded": check_loaded(environment, backends, work / "repository", cases),
            "rejected": [check_fault(environment, backends, work, fault) for fault in FAULTS],
        }
    failures = list(findings["loaded"]["failures"])
    failures += [f"{row['fault']}: {row['problem']}" for row in findings["rejected"] if row["problem"]]
    if options.report:
        options.report.write_text(json.dumps(findings, indent=1) + "\n", encoding="utf-8")
    for row in findings["rejected"]:
        print(f"{row['fault']:28} {row['message']}")
    for transport, rows in findings["loaded"]["differences"].items():
        print(f"{transport}: {len(rows)} requests, largest difference {max(rows.values())}")
    for case, row in findings["loaded"]["statistics"].items():
        print(f"{case}: {row['requests']} requests in {row['runs']} runs")
    print("\n".join(failures) or "every check holds")
    return 1 if failures else 0


def make_environment(folder: Path, python: str) -> Environment:
    """Create the environment unless a complete one is there."""
    environment = Environment(folder)
    marker = folder / "complete"
    if not marker.exists():
        if shutil.which(python) is None:
            raise SystemExit(f"no interpreter {python!r} here: name one of Python 3.10 to 3.12 with --python")
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(environment.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *REQUIREMENTS], check=True)
        marker.write_text("\n".join(REQUIREMENTS) + "\n", encoding="utf-8")
    library = environment.query("sysconfig.get_config_var('LDLIBRARY')")
    if not library.startswith("libpython") or ".so" not in library:
        raise SystemExit(f"{python} was built without a shared libpython, which tritonserver's Python back end needs")
    return environment


def make_backends(environment: Environment, folder: Path) -> Path:
    """Lay out a backend directory: Triton's Python backend, and the stand-in named onnxruntime."""
    server = _server_folder(environment)
    python_backend = folder / "python"
    shutil.copytree(server / "backends" / "python", python_backend)
    version = environment.query("'%d.%d' % sys.version_info[:2]")
    shutil.copytree(server / "python_backend_stubs" / version, python_backend, dirs_exist_ok=True)
    stand_in = folder / "onnxruntime"
    stand_in.mkdir()
    shutil.copy(ROOT / "tools" / "triton_backend" / "model.py", stand_in / "model.py")
    return folder


def check_loaded(environment: Environment, backends: Path, repository: Path, cases: Path) -> dict[str, Any]:
    """Start the server on the untouched repository, ask it, and compare."""
    before = {package.label: package.manifest for package in verify(repository)}
    http, grpc = _free_port(), _free_port()
    server = _start(environment, backends, repository, http, grpc)
    try:
        log = _wait_until_ready(server, http)
        command = [str(environment.python), str(ROOT / "tools" / "oip_client.py"), str(cases)]
        command += ["--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}", "--threads", "8", "--statistics"]
        answer = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        report = json.loads(answer.stdout) if answer.returncode == 0 else {}
    finally:
        server.terminate()
        log = server.communicate(timeout=60)[0]
    failures = [] if report else [f"the client failed: {(answer.stderr or log)[-2000:]}"]
    differences = {transport: report[transport]["differences"] for transport in report}
    for transport, rows in differences.items():
        failures += [f"{transport} {case}: differs by {value}" for case, value in rows.items() if not value <= _BOUND]
    statistics = report.get("grpc", {}).get("statistics", {})
    if not any(row["runs"] < row["requests"] for case, row in statistics.items() if case.startswith("digits@")):
        failures.append(f"the server joined no requests: {statistics}")
    if {package.label: package.manifest for package in verify(repository)} != before:
        failures.append("the server changed the repository")
    return {
        "differences": differences,
        "statistics": statistics,
        "failures": failures,
        "exit_code": server.returncode,
    }


def check_fault(environment: Environment, backends: Path, work: Path, fault: Fault) -> dict[str, Any]:
    """Break a copy of the repository, and require that the server leaves and says why, and that we notice too."""
    copy = work / "broken"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(work / "repository", copy)
    for folder in copy.iterdir():
        if folder.name != "digits":
            shutil.rmtree(folder)
    fault.apply(copy / "digits")
    server = _start(environment, backends, copy, _free_port(), _free_port())
    problem = ""
    try:
        log = server.communicate(timeout=READY_SECONDS)[0]
    except subprocess.TimeoutExpired:
        server.kill()
        log, problem = server.communicate()[0], "the server took it"
    line = _explain(log, fault)
    if not problem and server.returncode == 0:
        problem = "the server left without an error"
    if not problem and not line:
        problem = f"no message matches {fault.pattern.pattern!r}: {log[-1500:]}"
    try:
        verify(copy)
        problem = problem or "verify-package does not notice"
    except JrError:
        pass
    return {"fault": fault.name, "exit_code": server.returncode, "message": line, "problem": problem}


def _explain(log: str, fault: Fault) -> str:
    """Return the part of the server's log that names the fault, without time stamps and source lines."""
    for line in log.splitlines():
        found = fault.pattern.search(line) if line.startswith(("E", "[libprotobuf ERROR")) else None
        if found:
            text = line[max(0, found.start() - 160) : found.end() + 120]
            return text.partition("] ")[2] or text
    return ""


def _server_folder(environment: Environment) -> Path:
    return Path(environment.query("sysconfig.get_path('purelib')")) / "pytriton" / "tritonserver"


def _start(environment: Environment, backends: Path, repository: Path, http: int, grpc: int) -> subprocess.Popen[str]:
    site_packages = environment.query("sysconfig.get_path('purelib')")
    libraries = [environment.query("sysconfig.get_config_var('LIBDIR')"), f"{site_packages}/nvidia_pytriton.libs"]
    command = [
        str(_server_folder(environment) / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        "--disable-auto-complete-config",
        "--http-address=127.0.0.1",
        f"--http-port={http}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc}",
        "--allow-metrics=false",
        "--exit-timeout-secs=10",
    ]
    settings = {
        "PATH": f"{environment.folder / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": ":".join(libraries),
        "JR_ONNX_SITE_PACKAGES": site_packages,
    }
    return subprocess.Popen(
        command, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _wait_until_ready(server: subprocess.Popen[str], port: int) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1) as answer:
                if answer.status == 200:
                    return ""
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    server.terminate()
    log = server.communicate()[0]
    errors = [line for line in log.splitlines() if line.startswith(("E", "[libprotobuf ERROR"))]
    raise SystemExit("tritonserver does not become ready:\n" + "\n".join(errors))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())

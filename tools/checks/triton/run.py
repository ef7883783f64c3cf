"""Load a packaged repository into a real tritonserver, ask it, and show that broken packages are rejected.

    python -m tools.checks.triton [--environment FOLDER] [--python python3.10] [--report FILE]

What is checked: (1) the repository that `jr-onnx package triton` wrote is loaded unchanged, (2) the answers over HTTP
and gRPC agree with those of ONNX Runtime in this process, (3) Triton joined requests into batches, (4) each of the
broken packages makes tritonserver leave with an error that names the fault, and `jr-onnx verify-package` finds it as
well. `tools/checks/triton/server.py` says which server this is, `docs/triton.md` what was found.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from jr_onnx.deploy import verify
from jr_onnx.errors import JrError
from tools.checks.triton.cases import DRAWN, Cases, build_repository
from tools.checks.triton.faults import FAULTS, Fault
from tools.checks.triton.server import (
    DEFAULT_FOLDER,
    READY_SECONDS,
    ROOT,
    Environment,
    Server,
    make_backends,
    make_environment,
)
from tools.ports import free_ports


def main() -> int:
    """Run all checks and print what was found; the exit code is 0 only if every one holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--python", default="python3.10", help="interpreter for it: 3.10 to 3.12, with libpython")
    parser.add_argument("--report", type=Path, help="write the findings as JSON")
    options = parser.parse_args()
    environment = make_environment(options.environment, options.python)
    with tempfile.TemporaryDirectory(prefix="check-triton-") as name:
        work = Path(name)
        backends = make_backends(environment, work / "backends")
        cases = build_repository(work / "repository", work)
        findings: dict[str, Any] = {
            "loaded": check_loaded(environment, backends, work, cases),
            "rejected": [check_fault(environment, backends, work, fault) for fault in FAULTS],
        }
    failures = list(findings["loaded"]["failures"])
    failures += [f"{row['fault']}: {row['problem']}" for row in findings["rejected"] if row["problem"]]
    if options.report:
        options.report.write_text(json.dumps(findings, indent=1) + "\n", encoding="utf-8")
    for row in findings["rejected"]:
        print(f"{row['fault']:28} {row['message']}")
    for transport, rows in findings["loaded"]["differences"].items():
        print(f"{transport}: {len(rows)} requests, largest difference {max(rows.values())}, bound {cases.bound}")
    for case, row in findings["loaded"]["statistics"].items():
        print(f"{case}: {row['requests']} requests in {row['runs']} runs")
    print("\n".join(failures) or "every check holds")
    return 1 if failures else 0


def check_loaded(environment: Environment, backends: Path, work: Path, cases: Cases) -> dict[str, Any]:
    """Start the server on the untouched repository, ask it, and compare."""
    repository = work / "repository"
    before = {package.label: package.manifest for package in verify(repository)}
    server, http, grpc = _start(environment, backends, repository, work)
    try:
        server.wait_until_ready()
        command = [
            str(environment.python),
            str(ROOT / "tools" / "checks" / "protocol" / "oip_client.py"),
            str(cases.path),
        ]
        command += ["--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}", "--threads", "8", "--statistics"]
        answer = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    finally:
        exit_code = server.stop()
    report = json.loads(answer.stdout) if answer.returncode == 0 else {}
    failures = [] if report else [f"the client failed: {answer.stderr[-2000:]}"]
    failures += [] if exit_code == 0 else [f"the server left with {exit_code} when asked to stop"]
    differences = {transport: report[transport]["differences"] for transport in report}
    for transport, rows in differences.items():
        drawn = [rows.pop(case) for case in list(rows) if case.startswith(f"{DRAWN}@")]
        # Two draws may well give one answer, where no pre-activation lies between them; all eight do not.
        if drawn and len(set(drawn)) < 3:
            failures.append(f"{transport}: the operator hardly draws another kappa: {drawn}")
        wrong = {case: value for case, value in rows.items() if not value <= cases.bound}
        failures += [f"{transport} {case}: differs by {value}" for case, value in wrong.items()]
    statistics = report.get("grpc", {}).get("statistics", {})
    if not any(row["runs"] < row["requests"] for case, row in statistics.items() if case.startswith("digits@")):
        failures.append(f"the server joined no requests: {statistics}")
    if any(row["runs"] < row["requests"] for case, row in statistics.items() if case.startswith(f"{DRAWN}@")):
        failures.append(f"requests shared a draw of kappa: {statistics}")
    if {package.label: package.manifest for package in verify(repository)} != before:
        failures.append("the server changed the repository")
    return {"differences": differences, "bound": cases.bound, "statistics": statistics, "failures": failures}


def check_fault(environment: Environment, backends: Path, work: Path, fault: Fault) -> dict[str, Any]:
    """Break a copy of the repository, and require that the server leaves and says why, and that we notice too."""
    copy = work / "broken"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    shutil.copytree(work / "repository" / "digits", copy / "digits")
    fault.apply(copy / "digits")
    server, _, _ = _start(environment, backends, copy, work)
    problem = ""
    try:
        exit_code = server.process.wait(timeout=READY_SECONDS)
    except subprocess.TimeoutExpired:
        exit_code, problem = server.stop(), "the server took it"
    message = _explain(server.errors(), fault)
    if not problem and exit_code == 0:
        problem = "the server left without an error"
    if not problem and not message:
        problem = f"no error matches {fault.pattern.pattern!r}: {server.errors()}"
    try:
        verify(copy)
        problem = problem or "verify-package does not notice"
    except JrError:
        pass
    return {"fault": fault.name, "exit_code": exit_code, "message": message, "problem": problem}


def _start(environment: Environment, backends: Path, repository: Path, work: Path) -> tuple[Server, int, int]:
    http, grpc = free_ports(2)
    log = work / "tritonserver.log"
    server = Server(environment, backends, repository, http=http, grpc=grpc, address="127.0.0.1", log=log)
    return server, http, grpc


def _explain(errors: list[str], fault: Fault) -> str:
    """Return the part of the server's errors that names the fault, without time stamps and source lines."""
    for line in errors:
        found = fault.pattern.search(line)
        if found:
            text = line[max(0, found.start() - 160) : found.end() + 120]
            return text.partition("] ")[2] or text
    return ""


if __name__ == "__main__":
    sys.exit(main())

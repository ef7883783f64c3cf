"""Call every public method of tritonclient's clients on this server and on a real tritonserver, side by side.

    python -m tools.checks.protocol [--environment FOLDER] [--python python3.10] [--write]
    python -m tools.checks.protocol --ours

The first asks both servers, over HTTP and gRPC, and wants the table of docs/triton.md to come out again; every
difference needs a reason in `tools/checks/protocol/table.py`. `--write` writes the table. `--ours` asks this server
alone and compares its columns. `tools/checks/triton/server.py` says which tritonserver that is and what it needs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from jr_onnx.deploy import TritonOptions, package_triton
from jr_onnx.rewriter import rewrite
from tools.checks.protocol.table import columns_of, table
from tools.checks.serving.processes import jr_onnx, running
from tools.checks.triton.server import DEFAULT_FOLDER, ROOT, Server, make_backends, make_environment
from tools.ports import free_ports

PAGE = ROOT / "docs" / "triton.md"
_SOURCE = ROOT / "models" / "exported" / "digits_cnn.onnx"
_MARK = "<!-- up to the end of the page: python -m tools.checks.protocol --write -->\n"
_OURS = (0, 1, 2, 4)  # the columns that this server alone decides
_CONTROL = ("--model-control-mode=explicit", "--load-model=*")


def main() -> int:
    """Ask, compare, print what is wrong; the exit code is 0 only if nothing is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--python", default="python3.10", help="interpreter for it: 3.10 to 3.12, with libpython")
    parser.add_argument("--ours", action="store_true", help="ask this server alone")
    parser.add_argument("--write", action="store_true", help="write the table into docs/triton.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="check-protocol-") as name:
        work = Path(name)
        make_repository(work)
        ours = ask_ours(work)
        theirs = None if options.ours else ask_triton(work, options.environment, options.python)
    missing = {client: names for client, names in ours["not_called"].items() if names}
    problems = [f"{client}: not called: {', '.join(names)}" for client, names in missing.items()]
    before, _, on_page = PAGE.read_text(encoding="utf-8").partition(_MARK)
    if theirs is None:
        text, _ = table(ours["rows"], [])
        found, expected = columns_of(text, *_OURS), columns_of(on_page, *_OURS)
        problems += [f"now {row}, not as in {PAGE.name}" for row in found if row not in expected]
        problems += [f"{PAGE.name} has {row}, which is not so now" for row in expected if row not in found]
    else:
        text, more = table(ours["rows"], theirs["rows"])
        problems += more
        if options.write:
            PAGE.write_text(f"{before}{_MARK}\n{text}", encoding="utf-8")
        elif text != on_page.lstrip():
            problems.append(f"the table is not that of {PAGE.name}: write it with --write, and look at what differs")
    print("\n".join(problems) or f"every call is answered as {PAGE.name} says")
    return 1 if problems else 0


def make_repository(work: Path) -> None:
    """Package two versions of a model with labels, and another without."""
    labels = work / "labels.txt"
    labels.write_text("".join(f"digit {number}\n" for number in range(10)), encoding="utf-8")
    for name, version in (("digits", 1), ("digits", 2), ("spare", 1)):
        model = work / f"{name}{version}.onnx"
        rewrite(_SOURCE, 0.06 * version, output=model)
        with_labels = labels if name == "digits" else None
        options = TritonOptions(name=name, version=version, labels=with_labels, all_versions=True)
        package_triton(model, work / "repository", options)


def ask_ours(work: Path) -> dict[str, Any]:
    """Ask this server."""
    with running(jr_onnx(work / "repository", "--all-versions")) as server:
        return _ask(server.http, server.grpc)


def ask_triton(work: Path, folder: Path, python: str) -> dict[str, Any]:
    """Ask tritonserver."""
    environment = make_environment(folder, python)
    backends = make_backends(environment, work / "backends")
    http, grpc = free_ports(2)
    server = Server(
        environment, backends, work / "repository",
        http=http, grpc=grpc, address="127.0.0.1", log=work / "tritonserver.log", options=_CONTROL,
    )  # fmt: skip
    try:
        server.wait_until_ready()
        return _ask(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
    finally:
        server.stop()


def _ask(http: str, grpc: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tools.checks.protocol.client", "--http", http, "--grpc", grpc]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"the client failed: {done.stderr[-2000:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


if __name__ == "__main__":
    sys.exit(main())

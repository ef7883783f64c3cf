"""Call every public method of tritonclient's clients, and print what came of it as JSON.

    python -m tools.checks.protocol.client --http 127.0.0.1:8000 --grpc 127.0.0.1:8001

A process of its own, because `tritonclient.grpc` and kserve cannot be imported in one.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from typing import Any

from tools.checks.protocol.asker import CLIENTS, Asker, outcome
from tools.checks.protocol.cases import cases


def asked(client: str, target: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Ask everything with one client; return the rows, and the names of the methods that were not called."""
    asker = Asker(client, target)
    rows = [
        {"client": client, "method": case.method, "what": case.what, **outcome(partial(case.ask, asker))}
        for case in cases()
        if client in case.clients
    ]
    asker.close()
    return rows, sorted(asker.methods() - asker.called)


def main() -> int:
    """Ask with all four clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http", required=True, help="host:port")
    parser.add_argument("--grpc", required=True, help="host:port")
    options = parser.parse_args()
    report: dict[str, Any] = {"rows": [], "not_called": {}}
    for client in CLIENTS:
        rows, missing = asked(client, options.grpc if client.startswith("grpc") else options.http)
        report["rows"] += rows
        report["not_called"][client] = missing
    json.dump(report, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())

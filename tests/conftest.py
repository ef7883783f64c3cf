"""Shared fixtures: where the development data lies, and the count of skips at the end of a run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.development import DataFolder

if importlib.util.find_spec("hypothesis") is not None:  # a machine for `pytest -m gpu` may lack it
    from hypothesis import HealthCheck, settings

    # No test is timed: a machine that does other work as well must not fail one.
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent

_NEEDS_TORCH = re.compile(
    r"^(?:(?:import|from) (?:torch|scipy|sklearn|models|tools\.training|"
    r"jr_onnx\.(?:attack|detect|harden|reproduce|torchnet|tune)|"
    r"tests\.(?:attack|harden|results|torchnet))\b|def import_record_modules)",
    re.MULTILINE,
)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what imports torch where torch is not installed, so that `pytest -m gpu` runs there."""
    if collection_path.suffix != ".py" or importlib.util.find_spec("torch") is not None:
        return None
    return True if _NEEDS_TORCH.search(collection_path.read_text(encoding="utf-8")) else None


@pytest.fixture(scope="session")
def data_dir() -> DataFolder:
    """The folder of development data."""
    return DataFolder()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skips by reason, so that nobody mistakes a skip for a pass."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        reasons[reason] = reasons.get(reason, 0) + 1
    terminalreporter.write_line(f"skipped: {sum(reasons.values())}")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"  {count} x {reason}")

"""Every module has a test of its name, or tests/README.md says where its behaviour is tested."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "jr_onnx"
_WITHOUT_BEHAVIOUR = ("__init__.py", "__main__.py", "_version.py")


def _table() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", (TESTS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {module: re.findall(r"`([^`]+)`", tests) for module, tests in rows}


def _modules() -> set[str]:
    return {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name not in _WITHOUT_BEHAVIOUR}


def _has_test_of_its_name(module: str) -> bool:
    path = Path(module)
    return (TESTS / path.parent / f"test_{path.name}").is_file()


def test_every_module_is_tested_by_name_or_by_the_table() -> None:
    table = _table()
    assert [item for item in sorted(_modules()) if not _has_test_of_its_name(item) and item not in table] == []


def test_the_table_names_what_exists_and_nothing_else() -> None:
    for module, tests in _table().items():
        assert module in _modules(), f"tests/README.md names {module}, which is not there"
        assert not _has_test_of_its_name(module), f"{module} has a test of its name and needs no row"
        assert tests, module
        for test in tests:
            assert (TESTS / test).is_file(), f"tests/README.md names {test}, which is not there"

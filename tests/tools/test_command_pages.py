"""docs/commands is what the help of the command line says."""

from __future__ import annotations

from pathlib import Path

import yaml

from jr_onnx.errors import EXIT_CODES
from tests.cli.commands import LEAVES
from tools.command_pages import FOLDER, pages

ROOT = Path(__file__).resolve().parents[2]


def test_the_pages_are_current() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")} == pages(), (
        "run python -m tools.command_pages --write"
    )


def test_every_command_has_a_page_in_the_index_and_in_the_site() -> None:
    index = pages()["README.md"]
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = next(entry["Commands"] for entry in nav if isinstance(entry, dict) and "Commands" in entry)
    names = [f"{name.replace(' ', '-')}.md" for name in LEAVES]
    assert listed == ["commands/README.md", *(f"commands/{name}" for name in names)]
    assert all(f"]({name})" in index for name in names)


def test_the_exit_codes_are_in_the_index() -> None:
    index = pages()["README.md"]
    assert all(f"| {code} | {meaning} |" in index for code, meaning in EXIT_CODES.items())


def test_paragraphs_of_the_help_are_prose() -> None:
    assert not [line for page in pages().values() for line in page.splitlines() if line.startswith("    ")]


def test_a_row_has_name_meaning_and_default() -> None:
    rows = pages()["attack.md"].splitlines()
    assert "| <code>--norm [linf&#124;l2&#124;l1]</code> | Norm of the budget. | <code>linf</code> |" in rows
    assert (
        "| <code>-o, --output PATH</code> | Folder for the results; an interrupted run resumes. | MODEL.attack |"
        in rows
    )
    steps = "Steps of the paper's PGD and DeepFool (40 for MNIST, 7 for CIFAR-10). (x>=1)"
    assert f"| <code>--paper-steps N</code> | {steps} | <code>40</code> |" in rows
    assert not any("--out " in row for row in rows), "an old spelling is on the page"

"""What README.md and the pages of docs/ show is true: commands run and print what is shown, and links lead somewhere.

A `console` block holds commands after "$ " and lines of their output; a line "..." stands for lines left out, and a
line that ends in "..." for the rest of that line. A block that cannot run here is preceded by
`<!-- not run: REASON -->`.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import onnx
import pytest
import yaml

from jr_onnx.cli.app import COMMANDS, app, run
from tests.cli.conftest import autoencoder

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"(?P<mark><!-- not run: (?P<reason>.+?) -->\n)?```console\n(?P<body>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Step:
    command: str
    printed: tuple[str, ...]


def steps(body: str) -> list[Step]:
    found: list[Step] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:], ()))
        elif found:
            found[-1] = Step(found[-1].command, (*found[-1].printed, line))
    return found


PAGES = ["README.md", *sorted(f"docs/{path.relative_to(ROOT / 'docs')}" for path in (ROOT / "docs").rglob("*.md"))]
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
WITH_COMMANDS = [page for page, text in TEXTS.items() if any(not block["mark"] for block in _BLOCK.finditer(text))]
CARDS = [f"models/cards/{path.name}" for path in sorted((ROOT / "models" / "cards").glob("*.md"))]
LINKING = [*PAGES, "ARCHITECTURE.md", "CONTRIBUTING.md", *CARDS]
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def squeeze(text: str) -> str:
    return " ".join(text.split())


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def test_the_readme_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    assert any(re.search(rf"jr-onnx {name}\b", text) for text in TEXTS.values())


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_run_and_print_what_is_shown(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks of a page run in their order in one folder; model.onnx is the digits classifier, sae.onnx small."""
    shutil.copy(ROOT / "models" / "exported" / "digits_cnn.onnx", tmp_path / "model.onnx")
    onnx.save(autoencoder(), tmp_path / "sae.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795730400")  # the time of the packages that are shown
    for block in _BLOCK.finditer(TEXTS[page]):
        for step in [] if block["mark"] else steps(block["body"]):
            check_step(step, capsys.readouterr)


def test_the_readme_and_the_page_on_rewriting_show_commands() -> None:
    assert {"README.md", "docs/rewrite.md"} <= set(WITH_COMMANDS)


@pytest.mark.parametrize("page", LINKING)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in _LINK.finditer(re.sub(r"`[^`\n]*`", "", without_blocks(text))):
        if re.match(r"[a-z]+:", link["target"]):
            continue
        file, _, anchor = link["target"].partition("#")
        path = (ROOT / page).parent.joinpath(file).resolve() if file else ROOT / page
        assert path.exists(), f"{page}: {link[0]}"
        if page.startswith("docs/"):
            assert path.is_relative_to(ROOT / "docs"), f"{page}: {link[0]} leaves the site"
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{page}: {link[0]} has no such part"


def command_options() -> dict[str, set[str]]:
    """Options by command ("package triton" for a nested one), hidden ones left out: docs show the current spelling."""

    def walk(words: str, command: click.Command) -> Iterator[tuple[str, set[str]]]:
        options = [item for item in command.params if isinstance(item, click.Option) and not item.hidden]
        yield words, {"--help", *(name for item in options for name in (*item.opts, *item.secondary_opts))}
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                child = command.get_command(click.Context(command), name)
                assert child is not None
                yield from walk(f"{words} {name}".strip(), child)

    return dict(walk("", app))


OPTIONS = command_options()
OF_OTHER_PROGRAMS = {"--index-url", "--scale", "--signature", "--public_key"}


def test_commands_in_the_documentation_have_their_options() -> None:
    """A `jr-onnx COMMAND ...` in a block of code or in a line has only options of that command."""
    wrong = []
    for page, text in TEXTS.items():
        for shown in re.findall(r"^(?:    |\$ )jr-onnx (.+)$|`jr-onnx ([^`]+)`", text, re.MULTILINE):
            words = (shown[0] or shown[1]).partition("#")[0].split()
            name = max((one for one in OPTIONS if words[: len(one.split())] == one.split()), key=len)
            wrong += [
                f"{page}: jr-onnx {name} has no {word}"
                for word in words
                if word.startswith("--") and word not in OPTIONS[name]
            ]
    assert not wrong, "\n".join(wrong)


def test_options_that_pages_mention_exist() -> None:
    known = set().union(*OPTIONS.values(), OF_OTHER_PROGRAMS)
    for path in [*(ROOT / "tools").rglob("*.py"), ROOT / "jr_onnx" / "serve" / "options.py"]:
        known |= set(re.findall(r"[\"'](--[a-z][a-z-]+)[\"'/]", path.read_text(encoding="utf-8")))
    wrong = [
        f"{page}: {option}"
        for page, text in TEXTS.items()
        for option in re.findall(r"(?<![\w`<-])`?(--[a-z][a-z_-]+)", text)
        if option not in known
    ]
    assert not wrong, "\n".join(wrong)


NOT_IN_A_CHECKOUT = {"jr_onnx/lib/build.json", "jr_onnx/cli/NAME.py"}  # built, and a pattern


def test_programs_and_files_that_pages_mention_exist() -> None:
    wrong = []
    for page in [*LINKING, "Makefile"]:
        text = (ROOT / page).read_text(encoding="utf-8")
        for module in re.findall(r"python -m ((?:tools|tests)[\w.]*\w)", text):
            path = ROOT / module.replace(".", "/")
            if not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file():
                wrong.append(f"{page}: python -m {module}")
        files = set(re.findall(r"(?<![\w/.])(?:jr_onnx|tools|tests|ops|models|docs)/[\w./-]*\w", text))
        wrong += [f"{page}: {file}" for file in sorted(files - NOT_IN_A_CHECKOUT) if not (ROOT / file).exists()]
    assert not wrong, "\n".join(wrong)


def test_the_glossary_has_the_words_that_are_used() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (?!meaning)", TEXTS["docs/glossary.md"], re.MULTILINE)
    words = [word for row in rows for word in row.strip().split(", ")]
    assert len(words) > 20
    others = " ".join(text for page, text in TEXTS.items() if page != "docs/glossary.md").lower()
    assert [word for word in words if word.lower() not in others] == []
    assert rows == sorted(rows, key=str.lower), "in alphabetical order"


def test_every_page_is_in_the_site_and_in_the_index() -> None:
    def pages(entry: object) -> list[str]:
        children = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else None
        return [str(entry)] if children is None else [page for child in children for page in pages(child)]

    nav = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(f"docs/{page}" for page in nav) == sorted(set(PAGES) - {"README.md"})
    index = TEXTS["docs/README.md"]
    assert [page for page in nav if "/" not in page and page != "README.md" and f"({page})" not in index] == []


def check_step(step: Step, captured: Callable[[], object]) -> None:
    words = shlex.split(step.command, comments=True)
    assert words[0] == "jr-onnx", f"this test runs only jr-onnx, found: {step.command}"
    captured()
    code = run(words[1:])
    result = captured()
    out, err = result.out, result.err  # type: ignore[attr-defined]
    assert code == 0, f"$ {step.command}\n{out}{err}"
    printed = [squeeze(line) for line in (out + err).splitlines()]
    for line in filter(None, map(squeeze, step.printed)):
        shown = line.removesuffix(" ...")
        there = line == "..." or line in printed or (shown != line and any(one.startswith(shown) for one in printed))
        assert there, f"$ {step.command}\nexpected: {line}\nprinted:\n{out}{err}"


def test_what_it_says_to_install_is_what_the_tests_run_with() -> None:
    pinned = dict(
        re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [line[2:] for line in README.splitlines() if line.startswith("$ pip install")]
    assert len(lines) == 2
    for line in lines:
        for name, version in re.findall(r"(\w+)==(\S+)", line):
            assert pinned[name] == version, line
        for extras in re.findall(r"'\.\[(.+?)\]'", line):
            assert "-c constraints.txt" in line
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), line
    assert any("torch==" in line and line.endswith("/whl/cpu") for line in lines), "the CPU build is not the default"

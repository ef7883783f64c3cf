"""What the README shows is true: its commands run, and print what it says they print.

A `console` block holds commands after "$ " and lines of their output; a line "..." stands for lines left out. A block
that cannot run here is preceded by `<!-- not run: REASON -->`, which this test lists.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from jr_onnx.cli.app import COMMANDS, run

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


RUN = [step for block in _BLOCK.finditer(README) if not block["mark"] for step in steps(block["body"])]
NOT_RUN = [block["reason"] for block in _BLOCK.finditer(README) if block["mark"]]


def squeeze(text: str) -> str:
    return " ".join(text.split())


def test_the_readme_shows_commands() -> None:
    assert len(RUN) >= 4
    assert all(NOT_RUN)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    assert re.search(rf"jr-onnx {name}\b", README), f"the README does not mention jr-onnx {name}"


def test_the_commands_run_and_print_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks run in their order in one folder that holds the digits classifier as model.onnx."""
    shutil.copy(ROOT / "models" / "exported" / "digits_cnn.onnx", tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795730400")  # the time of the packages that are shown
    for step in RUN:
        check_step(step, capsys.readouterr)


def check_step(step: Step, captured: Callable[[], object]) -> None:
    words = shlex.split(step.command, comments=True)
    assert words[0] == "jr-onnx", f"this test runs only jr-onnx, found: {step.command}"
    captured()
    code = run(words[1:])
    result = captured()
    out, err = result.out, result.err  # type: ignore[attr-defined]
    assert code == 0, f"$ {step.command}\n{out}{err}"
    printed = [squeeze(line) for line in (out + err).splitlines()]
    for line in step.printed:
        if line.strip() not in ("", "..."):
            assert squeeze(line) in printed, f"$ {step.command}\nexpected: {line}\nprinted:\n{out}{err}"


def test_what_it_says_to_install_is_what_the_tests_run_with() -> None:
    pinned = dict(
        re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [line[2:] for line in README.splitlines() if line.startswith("$ pip install")]
    assert len(lines) >= 3
    for line in lines:
        for name, version in re.findall(r"(\w+)==(\S+)", line):
            assert pinned[name] == version, line
        for extras in re.findall(r"'\.\[(.+?)\]'", line):
            assert "-c constraints.txt" in line
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), line
    assert any("torch==" in line and line.endswith("/whl/cpu") for line in lines), "the CPU build is not the default"

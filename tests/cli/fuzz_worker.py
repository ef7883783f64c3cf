"""Run commands with damaged files and odd options, within limits of memory and time.

    python -m tests.cli.fuzz_worker CORPUS SCRATCH SEED FIRST COUNT [COMMAND...]

Case number n of a seed is the same in every run. Prints how often each exit code came, as JSON; exits with 1 on the
first bad answer: an internal error (70), memory beyond the limit, more or less than one line of complaint, a hang.
What a case was stands in SCRATCH/case.json while it runs, so that a crash has a name too.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import click

from jr_onnx import errors
from jr_onnx.cli.app import COMMANDS, app, run
from jr_onnx.verifier.inputs import InputsError
from tests.cli.mutants import mutate

MEMORY_BYTES = 8 << 30
SECONDS_PER_CASE = 60
# What the package's errors say, and 74 for the disk's; 70 is a defect, 71 memory beyond the limit.
ALLOWED = {0, 74, InputsError.exit_code}
ALLOWED |= {
    kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.JrError)
}
ALLOWED -= {errors.ContractError.exit_code}
# How often a command comes; `serve` has tests of its own, for it does not come back.
WEIGHTS = {
    "rewrite": 12, "inspect": 3, "fuse": 4, "restore": 4, "verify": 4, "optimize": 4, "bench": 1, "package triton": 4,
    "package kserve": 2, "package compose": 2, "verify-package": 4, "attack": 2, "detect": 1, "tune": 1, "report": 8,
    "harden": 1, "reproduce": 1,
}  # fmt: skip
# Given always: what keeps a run short. A later word of the same option wins.
CHEAP = {
    "verify": ("--samples", "2", "--reference-samples", "1"),
    "bench": ("--rounds", "1", "--batch", "1", "--threads", "1"),
    "attack": ("--suite", "paper", "--limit", "2", "--paper-steps", "1", "--trust-steps", "1"),
    "detect": ("--limit", "4", "--steps", "1", "--reference", "4"),
    "harden": ("--limit", "8", "--epochs", "1", "--steps", "1", "--evaluate", "0"),
    "reproduce": ("--limit", "2", "--trust-limit", "1", "--adaptive-limit", "1", "--attacks", "pgd"),
    "tune": ("--limit", "2", "--steps", "1", "--passes", "1", "--grid", "0,0.1"),
}
COSTLY = {
    "--samples", "--reference-samples", "--rounds", "--limit", "--paper-steps", "--trust-steps", "--steps",
    "--reference", "--neighbours", "--grid", "--transfer-from", "--torch", "--weights", "--suite", "--threads",
    "--footprint", "--profile", "--batch", "--batch-size", "--chunk", "--epochs", "--evaluate", "--trust-limit",
    "--adaptive-limit", "--attacks", "--passes",
}  # fmt: skip
TEXTS = (
    "", "x", "\udcff", "a" * 5000, "../..", "0", "1,2", "x=1,3", "nan", "-", "[", "a{99999999999}", "éè", "x=y=z", ".*",
)  # fmt: skip
NUMBERS = ("0", "1", "-1", "2", "7", "17", "25", "2147483648", "9223372036854775808", "x", "")
REALS = ("0", "0.1", "0.06", "nan", "inf", "-1", "1e308", "1e-300", "x", "")


class Case:
    """One case: files are damaged as they are asked for, and the words of a command are put together."""

    def __init__(self, corpus: Path, scratch: Path, dice: random.Random) -> None:
        self.corpus, self.scratch, self.dice = corpus, scratch, dice

    def words(self, only: list[str]) -> list[str]:
        """Return the words of a command line."""
        names = [name for name in WEIGHTS if not only or name.split()[0] in only]
        name = self.dice.choices(names, [WEIGHTS[item] for item in names])[0]
        command, context = _command(name)
        words = [*name.split(), *CHEAP.get(name, ())]
        arguments = [item for item in command.params if isinstance(item, click.Argument)]
        options = [item for item in command.params if isinstance(item, click.Option)]
        del context
        for option in options:
            usual = option.required or option.opts[-1] in ("--output", "--kappa", "--force")
            if option.opts[-1] in COSTLY or self.dice.random() > (0.8 if usual else 0.08):
                continue
            words.append(option.opts[0])
            if not option.is_flag:
                words += [self._value(name, option) for _ in range(option.nargs)]
        for argument in arguments:
            if argument.required or self.dice.randrange(3) == 0:
                words.append(self._input(name))
        return words

    def _value(self, command: str, option: click.Option) -> str:
        kind, name, dice = option.type, option.opts[-1], self.dice
        if isinstance(kind, click.Choice):
            return dice.choice(
                [*map(str, kind.choices), "odd"] if dice.randrange(9) == 0 else [*map(str, kind.choices)]
            )
        if name in ("--output", "--out", "--plot", "--evaluation") or (name == "--kappa-map" and command == "tune"):
            return self._output()
        if isinstance(kind, click.Path):
            return self._file(dice.choice(("maps", "data", "classifiers", "packages")))
        if name in ("--table", "--figure"):
            return dice.choice(("1a", "2", "3", "4a", "7", *TEXTS))
        if name == "--data":
            return dice.choice(("npz:", "npz:", "folder:", "mnist:", "cifar10:", "")) + self._file("data")
        if isinstance(kind, click.types.IntParamType):
            return dice.choice(NUMBERS)
        if isinstance(kind, click.types.FloatParamType):
            return dice.choice(REALS)
        return dice.choice((*TEXTS, *NUMBERS, *REALS))

    def _input(self, command: str) -> str:
        if self.dice.randrange(20) == 0:
            return self._odd_path()
        if command == "report":
            return self._tree("results")
        if command in ("verify-package", "package kserve", "package compose"):
            return self._tree("packages")
        plain = command in ("rewrite", "inspect", "fuse", "restore", "verify", "optimize", "package triton")
        return self._file("models" if plain and self.dice.randrange(3) else "classifiers")

    def _file(self, kind: str) -> str:
        """Return a copy of a file of the corpus, mostly damaged."""
        dice = self.dice
        if dice.randrange(15) == 0:
            return self._odd_path()
        paths = sorted(path for path in (self.corpus / kind).rglob("*") if path.is_file())
        source = dice.choice(paths)
        data = source.read_bytes()
        if dice.randrange(4):
            data = mutate(data, dice.choice(paths).read_bytes(), source.name, dice)
        target = self.scratch / f"{sum(1 for _ in self.scratch.iterdir())}-{source.name}"
        target.write_bytes(data)
        return str(target)

    def _tree(self, kind: str) -> str:
        """Return a copy of a folder of the corpus with one or two of its files damaged."""
        dice = self.dice
        source = dice.choice(sorted((self.corpus / kind).iterdir()))
        target = self.scratch / f"{sum(1 for _ in self.scratch.iterdir())}-{source.name}"
        shutil.copytree(source, target)
        paths = sorted(path for path in target.rglob("*") if path.is_file())
        for _ in range(dice.choice((0, 1, 1, 2))):
            path = dice.choice(paths)
            kind_of_damage = dice.randrange(8)
            if kind_of_damage == 0 and path.is_file():
                path.unlink()
            elif kind_of_damage == 1 and path.is_file():
                path.rename(path.with_name(dice.choice(("odd", "n" * 200, "\udcff.json"))))
            elif kind_of_damage == 2 and path.is_file():
                path.unlink()
                path.mkdir()
            elif path.is_file():
                path.write_bytes(mutate(path.read_bytes(), dice.choice(paths[:1]).name.encode(), path.name, dice))
        return str(target)

    def _odd_path(self) -> str:
        pipe = self.scratch / "pipe"
        if not pipe.exists():
            os.mkfifo(pipe)
        empty = self.scratch / "empty"
        empty.touch()
        names = ("missing", "n" * 300, "\udcff", "", ".", "pipe", "empty", "missing/below", "empty/below")
        return self.dice.choice([str(self.scratch / name) if name else "" for name in names])

    def _output(self) -> str:
        if self.dice.randrange(12) == 0:
            return self._odd_path()
        return str(self.scratch / self.dice.choice(("out", "out.onnx", "out.json", "out.png", "out.html", "new/out")))


def _command(name: str) -> tuple[click.Command, click.Context]:
    context = click.Context(app)
    command: Any = app
    for word in name.split():
        command = command.get_command(context, word)
    return command, context


def answer(words: list[str]) -> tuple[int, str]:
    """Run a command; return its exit code and what it said on stderr."""
    text = io.StringIO()
    signal.signal(signal.SIGALRM, Patience())
    signal.alarm(SECONDS_PER_CASE)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(text), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = run(words)
    finally:
        signal.alarm(0)
    return code, text.getvalue()


def is_clean(code: int, said: str) -> bool:
    """Tell whether an answer is one that a person can use."""
    complaints = [line for line in said.splitlines() if line.startswith(("jr-onnx:", "Error:"))]
    told = code in (0, 1, 3) or len(complaints) == 1
    return code in ALLOWED and told and "Traceback" not in said


class Patience:
    """Ends the process if a command takes too long; the time that it waits for a processor does not count."""

    def __init__(self) -> None:
        self._waited_s = _waited_s()

    def __call__(self, *_: object) -> None:
        """Answer the alarm."""
        before, self._waited_s = self._waited_s, _waited_s()
        if self._waited_s - before < SECONDS_PER_CASE / 2:
            raise SystemExit("a command took too long")
        signal.alarm(SECONDS_PER_CASE)


def _waited_s() -> float:
    """Return for how long this process was ready to run and did not (proc(5), `schedstat`)."""
    return int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[1]) * 1e-9


def main() -> None:
    """Try the cases."""
    corpus, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    seed, first, count = map(int, sys.argv[3:6])
    assert set(COMMANDS) - {"serve", "package", "doctor"} <= {name.split()[0] for name in WEIGHTS}
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    scratch.mkdir(parents=True, exist_ok=True)
    codes: Counter[str] = Counter()
    for number in range(first, first + count):
        work = scratch / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        os.chdir(work)
        case: dict[str, object] = {"seed": seed, "number": number}
        (scratch / "case.json").write_text(json.dumps(case))
        case["words"] = words = Case(corpus, work, random.Random(f"{seed} {number}")).words(sys.argv[6:])
        (scratch / "case.json").write_text(json.dumps(case))
        code, said = answer(words)
        codes[str(code)] += 1
        if not is_clean(code, said):
            sys.stdout.write(json.dumps({**case, "code": code, "said": said[-1500:]}) + "\n")
            sys.exit(1)
    (scratch / "case.json").unlink()
    sys.stdout.write(json.dumps(codes) + "\n")


if __name__ == "__main__":
    main()

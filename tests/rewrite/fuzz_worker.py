"""Mutate model files and run commands on them, within limits of memory and time; exit 1 with the first bad answer.

python fuzz_worker.py MEMORY_BYTES SECONDS_PER_FILE SEED COUNT FOLDER FILE...
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import resource
import signal
import sys
from pathlib import Path

import onnx

from jr_onnx.cli.app import run

COMMANDS = (
    ["rewrite", "--kappa", "0.06"],
    ["rewrite", "--kappa", "0.06", "--lowering", "custom"],
    ["rewrite", "--kappa", "0.06", "--kappa-input", "k"],
    ["rewrite", "--random", "0.1", "0.2"],
    ["rewrite", "--kappa", "0.1", "--replace"],
    ["restore"],
    ["inspect"],
)
ALLOWED = (0, 2, 3, 4)
_OPERATORS = ("Relu", "Clip", "Max", "If", "Loop", "Scan", "Constant", "Identity", "FusedConv", "QuantizeLinear")


def edit(data: bytes, dice: random.Random) -> bytes:
    """Change the parsed model, so that what comes out parses again."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    nodes, values = graph.node, [*graph.input, *graph.output, *graph.value_info]
    for _ in range(dice.choice((1, 1, 2, 5))):
        kind = dice.randrange(12)
        node = dice.choice(nodes) if nodes else graph.node.add()
        other = dice.choice(nodes) if nodes else node
        if kind == 0:
            node.op_type = dice.choice(_OPERATORS)
        elif kind == 1 and node.input:
            node.input[dice.randrange(len(node.input))] = dice.choice([*other.input, *other.output, "", "nowhere"])
        elif kind == 2 and node.output:
            node.output[dice.randrange(len(node.output))] = dice.choice([*other.input, *other.output, "", "new"])
        elif kind == 3:
            nodes.add().CopyFrom(node)
        elif kind == 4:
            nodes.remove(node)
        elif kind == 5 and model.opset_import:
            dice.choice(model.opset_import).version = dice.choice((-1, 0, 1, 6, 7, 9, 12, 13, 25, 99, 2**62))
        elif kind == 6:
            model.ir_version = dice.choice((0, 2, 3, 4, 8, 10, 99))
        elif kind == 7 and values:
            dice.choice(values).type.tensor_type.elem_type = dice.choice((0, 1, 7, 10, 11, 16, 23, 999))
        elif kind == 8 and graph.initializer:
            dice.choice(graph.initializer).dims.append(dice.choice((0, -1, 2**40, 2**62)))
        elif kind == 9 and node.attribute:
            dice.choice(node.attribute).type = dice.randrange(15)
        elif kind == 10:
            node.domain = dice.choice(("", "ai.onnx", "com.microsoft", "com.microsoft.nchwc", "pkg", "jr_onnx"))
        elif kind == 11:
            node.name = dice.choice(("", other.name, "x" * 5000, "a/b.c#2"))
    return model.SerializeToString()


def mutate(data: bytes, other: bytes, dice: random.Random) -> bytes:
    if dice.randrange(3):
        return edit(data, dice)
    mutant = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8))):
        kind = dice.choice((0, 0, 0, 0, 0, 1, 2, 3, 4, 5))
        at = dice.randrange(len(mutant)) if mutant else 0
        if kind == 0 and mutant:
            mutant[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del mutant[at:]
        elif kind == 2:
            del mutant[at : at + dice.randrange(1, 64)]
        elif kind == 3:
            mutant[at:at] = other[(start := dice.randrange(len(other))) : start + dice.randrange(1, 200)]
        elif kind == 4 and mutant:
            mutant[at : at + 1] = dice.choice((b"\xff" * 9 + b"\x01", b"\x00", b"\x7f", b"\x80\x80\x80\x80\x08"))
        elif mutant:
            end = at + dice.randrange(1, 200)
            mutant[at:at] = mutant[at:end]
    return bytes(mutant)


def hang(*_: object) -> None:
    raise SystemExit("a command took too long")


def main() -> None:
    memory, seconds, seed, count = map(int, sys.argv[1:5])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.signal(signal.SIGALRM, hang)
    folder, paths = Path(sys.argv[5]), [Path(name) for name in sys.argv[6:]]
    dice = random.Random(seed)
    sources = [path.read_bytes() for path in paths]
    target, output = folder / "mutant.onnx", folder / "out.onnx"
    codes: dict[str, int] = {}
    for number in range(count):
        index = dice.randrange(len(sources))
        target.write_bytes(mutate(sources[index], dice.choice(sources), dice))
        command, *options = dice.choice(COMMANDS)
        words = [command, str(target), *options, *([] if command == "inspect" else ["-o", str(output), "--force"])]
        text = io.StringIO()
        signal.alarm(seconds)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(text):
            code = run(words)
        signal.alarm(0)
        codes[str(code)] = codes.get(str(code), 0) + 1
        lines = [line for line in text.getvalue().splitlines() if line.startswith("jr-onnx:")]
        if code not in ALLOWED or "Traceback" in text.getvalue() or (code not in (0, 3) and len(lines) != 1):
            kept = folder / f"bad-{seed}-{number}.onnx"
            kept.write_bytes(target.read_bytes())
            answer = {"source": paths[index].name, "kept": str(kept), "words": words, "code": code}
            sys.stdout.write(json.dumps({**answer, "error": text.getvalue()[-2000:]}) + "\n")
            sys.exit(1)
    sys.stdout.write(json.dumps(codes) + "\n")


if __name__ == "__main__":
    main()

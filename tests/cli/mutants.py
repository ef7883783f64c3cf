"""Damage files at random: models and JSON edited as such, and anything flipped, cut or stuffed."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import onnx
from google.protobuf.message import DecodeError

_OPERATORS = (
    "Relu",
    "Clip",
    "Max",
    "If",
    "Loop",
    "Scan",
    "Constant",
    "Identity",
    "FusedConv",
    "QuantizeLinear",
    "PRelu",
)
_ODD_TEXT = ("", "x" * 5000, "a/b.c#2", "\ud800", "\x1b[2J", "../up", "nan", "%s{0}", "é" * 90)
_ODD_NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308, True)
_ODD_VALUES: tuple[Any, ...] = (None, [], {}, "", "nan", "inf", [[]], {"": 0}, *_ODD_TEXT, *_ODD_NUMBERS)


def mutate(data: bytes, other: bytes, name: str, dice: random.Random) -> bytes:
    """Return damaged bytes; what kind of file it is decides how.

    Args:
        data: The file's content.
        other: Content of another file, pieces of which may be put in.
        name: The file's name; its ending says what it is.
        dice: The random numbers.
    """
    if dice.randrange(3):
        with contextlib.suppress(ValueError, DecodeError):  # a file that is damaged already
            if name.endswith(".onnx"):
                return _edit_model(data, dice)
            if name.endswith(".json"):
                return _edit_json(data, dice)
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
        elif kind == 3 and other:
            mutant[at:at] = other[(start := dice.randrange(len(other))) : start + dice.randrange(1, 200)]
        elif kind == 4 and mutant:
            mutant[at : at + 1] = dice.choice((b"\xff" * 9 + b"\x01", b"\x00", b"\x7f", b"\x80\x80\x80\x80\x08"))
        elif mutant:
            end = at + dice.randrange(1, 200)
            mutant[at:at] = mutant[at:end]
    return bytes(mutant)


def _edit_json(data: bytes, dice: random.Random) -> bytes:
    """Change values of a JSON document, so that it stays one."""
    content: Any = json.loads(data)
    for _ in range(dice.choice((1, 1, 2, 5))):
        place, holder = content, None
        key: Any = None
        while isinstance(place, dict | list) and place and (holder is None or dice.randrange(4)):
            key = dice.choice(list(place)) if isinstance(place, dict) else dice.randrange(len(place))
            holder, place = place, place[key]
        if holder is None:
            return json.dumps(dice.choice(_ODD_VALUES)).encode()
        kind = dice.randrange(4)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[dice.choice(_ODD_TEXT)] = place
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, place)
        elif isinstance(place, int | float) and not isinstance(place, bool) and dice.randrange(2):
            holder[key] = dice.choice((place + 1, -place, place * 10))
        else:
            holder[key] = dice.choice(_ODD_VALUES)
    return json.dumps(content).encode()


def _edit_model(data: bytes, dice: random.Random) -> bytes:
    """Change the parsed model, so that what comes out parses again."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    nodes, values = graph.node, [*graph.input, *graph.output, *graph.value_info]
    for _ in range(dice.choice((1, 1, 2, 5))):
        kind = dice.randrange(16)
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
            dice.choice(values).type.tensor_type.elem_type = dice.choice((0, 1, 7, 10, 11, 16, 23, 999, -(2**31)))
        elif kind == 8 and graph.initializer:
            dice.choice(graph.initializer).dims.append(dice.choice((0, -1, 2**40, 2**62)))
        elif kind == 9 and node.attribute:
            dice.choice(node.attribute).type = dice.randrange(15)
        elif kind == 10:
            node.domain = dice.choice(("", "ai.onnx", "com.microsoft", "com.microsoft.nchwc", "pkg", "jr_onnx"))
        elif kind == 11:
            node.name = dice.choice(("", other.name, "x" * 5000, "a/b.c#2"))
        elif kind == 12 and graph.initializer:
            tensor = dice.choice(graph.initializer)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            place = dice.choice(("", "gone.bin", "../up.bin", "/dev/zero", "n" * 300, ".", "model.onnx"))
            tensor.external_data.add(key="location", value=place)
            tensor.external_data.add(key="offset", value=dice.choice(("0", "-1", "9" * 5000, "x")))
        elif kind == 13 and values:
            dice.choice(values).type.tensor_type.shape.dim.add(dim_value=dice.choice((0, -1, 2**62, 3)))
        elif kind == 14 and model.metadata_props:
            entry = dice.choice(model.metadata_props)
            try:
                entry.value = _edit_json(entry.value.encode(), dice).decode()
            except ValueError:
                entry.value = "{"
        elif kind == 15:
            function = model.functions.add(domain=node.domain or "pkg", name=node.op_type)
            function.input.extend(node.input)
            function.output.extend(node.output)
            function.node.add().CopyFrom(node)
    return model.SerializeToString()

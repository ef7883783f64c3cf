"""Every record class of the package survives JSON; what is no such record is refused with the place and the reason."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import re
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

import jr_onnx
from jr_onnx.errors import InputError, JrError
from jr_onnx.records import Record, dumps, load_file, loads

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    float: st.one_of(st.floats(allow_nan=False), st.floats(0.001, 10.0), st.just(math.inf)),
    int: st.integers(1 - 2**63, 2**63 - 1) | st.integers(0, 8),
    bool: st.booleans(),
    str: st.text(max_size=8) | st.sampled_from(["nan", "inf", "conv1/relu"]),
    type(None): st.none(),
}


def import_record_modules() -> None:
    """Import the modules that define records, and only those: some of the others import torch."""
    package = Path(jr_onnx.__file__).parent
    for path in sorted(package.rglob("*.py")):
        if re.search(r"^class \w+\(.*Record\)", path.read_text(encoding="utf-8"), re.MULTILINE):
            importlib.import_module(".".join(("jr_onnx", *path.relative_to(package).with_suffix("").parts)))


def record_classes(root: type[Record] = Record) -> Iterator[type[Record]]:
    for child in root.__subclasses__():
        # `slots=True` makes a second class of the same name; the module holds the one that counts.
        if vars(sys.modules[child.__module__]).get(child.__name__) is child and child.__module__.startswith("jr_onnx."):
            yield child
        yield from record_classes(child)


import_record_modules()
CLASSES = sorted(set(record_classes()), key=lambda kind: (kind.__module__, kind.__name__))


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for any type that a record's field may have."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in SCALARS:
        return SCALARS[kind]
    if origin in (types.UnionType, typing.Union):
        return st.one_of([values(part) for part in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return st.tuples(*[values(part) for part in arguments])
    if origin in (tuple, list):
        items = st.lists(values(arguments[0]), max_size=2)
        return items.map(tuple) if origin is tuple else items
    if origin is dict:
        assert arguments[0] is str, f"a record's dict has string keys, found {arguments[0]}"
        return st.dictionaries(st.text(max_size=4), values(arguments[1]), max_size=2)
    if dataclasses.is_dataclass(kind):
        return records(kind)
    raise AssertionError(f"no strategy for {kind}; a record should hold plain data")


@st.composite
def records(draw: st.DrawFn, kind: Any) -> Any:
    hints = typing.get_type_hints(kind)
    parts = [part for part in dataclasses.fields(kind) if part.init]
    # A record of many bounded numbers refuses nearly every random one: most fields keep their defaults.
    kept = [part.name for part in parts if part.default is not dataclasses.MISSING and draw(st.integers(0, 9)) < 8]
    arguments = {part.name: draw(values(hints[part.name])) for part in parts if part.name not in kept}
    try:
        return kind(**arguments)
    except JrError:  # the record refuses this combination, as it should
        reject()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], max_examples=20)
@given(data=st.data())
def test_every_record_survives_json(kind: type[Record], data: st.DataObject) -> None:
    record = data.draw(records(kind))
    text = dumps(record)
    assert json.loads(text)["schema"] == kind.SCHEMA
    copy = loads(kind, text)
    assert copy == record
    assert dumps(copy) == text


def test_the_walk_finds_the_records_it_should() -> None:
    names = {kind.__name__ for kind in CLASSES}
    assert {"KappaPlan", "RandomKappa", "Provenance", "SiteRecord", "SiteTable", "RewriteResult"} <= names


def test_schemas_are_named_versioned_and_unique() -> None:
    schemas = [kind.SCHEMA for kind in CLASSES]
    assert len(set(schemas)) == len(schemas)
    for schema in schemas:
        assert re.fullmatch(r"jr_onnx\.[a-z_0-9]+/[1-9][0-9]*", schema), schema


@dataclass(frozen=True, slots=True)
class Inner(Record):
    SCHEMA: ClassVar[str] = "test.inner/1"
    name: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Outer(Record):
    SCHEMA: ClassVar[str] = "test.outer/2"
    count: int
    kind: Literal["a", "b"] = "a"
    maybe: float | None = None
    inners: tuple[Inner, ...] = ()
    pair: tuple[int, str] = (0, "")
    table: dict[str, Inner] = field(default_factory=dict)
    flag: bool = False
    numbers: list[float] = field(default_factory=list)


def outer(**changes: Any) -> dict[str, Any]:
    return {"schema": "test.outer/2", "count": 1, **changes}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "a test.outer/2 record is a JSON object, found list"),
        (None, "a JSON object, found NoneType"),
        ({"count": 1}, "found a record of schema None, expected 'test.outer/2'"),
        (outer(schema="test.outer/1"), "schema 'test.outer/1', expected 'test.outer/2'"),
        (outer(extra=1), "test.outer/2: unknown field 'extra'"),
        ({"schema": "test.outer/2"}, "the field 'count' is missing"),
        (outer(count=1.5), "test.outer/2.count: found 1.5, expected int"),
        (outer(count=True), "test.outer/2.count: found True, expected int"),
        (outer(count="1"), "test.outer/2.count: found '1', expected int"),
        (outer(flag=1), "test.outer/2.flag: found 1, expected bool"),
        (outer(kind="c"), r"test.outer/2.kind: found 'c', expected one of \['a', 'b'\]"),
        (outer(kind=["a"]), r"test.outer/2.kind: found \['a'\], expected one of"),
        (outer(maybe="high"), "test.outer/2.maybe: found 'high', expected float"),
        (outer(maybe=True), "test.outer/2.maybe: found True, expected float"),
        (outer(maybe=10**400), "test.outer/2.maybe: .*expected float"),
        (outer(inners={}), "test.outer/2.inners: found dict, expected a list"),
        (outer(inners=[{"name": 1}]), r"test.outer/2.inners\[0\].name: found 1, expected str"),
        (outer(inners=[{}]), r"test.outer/2.inners\[0\]: the field 'name' is missing"),
        (outer(inners=[3]), r"test.outer/2.inners\[0\]: found int, expected an object"),
        (outer(pair=[1]), "test.outer/2.pair: found 1 items, expected 2"),
        (outer(pair=[1, 2]), r"test.outer/2.pair\[1\]: found 2, expected str"),
        (outer(table=[]), "test.outer/2.table: found list, expected an object"),
        (outer(table={"x": {"name": None}}), "test.outer/2.table.x.name: found None, expected str"),
        (outer(numbers=["nan", "one"]), r"test.outer/2.numbers\[1\]: found 'one', expected float"),
    ],
)
def test_what_is_no_such_record_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Outer.from_json(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a test.outer/2 record"),
        ("{", "not a test.outer/2 record"),
        ("[" * 100_000, "not a test.outer/2 record"),
        ('{"schema": "test.outer/2", "count": ' + "9" * 5000 + "}", "not a test.outer/2 record"),
        ('{"schema": "test.outer/2", "count": 1, "count": 2}', "'count' twice"),
        ('{"schema": "test.outer/2", "count": 1, "maybe": NaN}', "NaN"),
    ],
)
def test_what_is_no_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        loads(Outer, text)


def test_non_finite_floats_travel_as_strings() -> None:
    record = Outer(1, maybe=math.inf, numbers=[math.nan, -math.inf, -0.0])
    assert json.loads(dumps(record))["numbers"] == ["nan", "-inf", -0.0]
    copy = loads(Outer, dumps(record))
    assert copy.maybe == math.inf
    assert math.isnan(copy.numbers[0])
    assert copy.numbers[1] == -math.inf
    assert math.copysign(1, copy.numbers[2]) == -1


def test_numpy_scalars_become_plain_numbers() -> None:
    record = Outer(np.int64(3), maybe=np.float32(0.5), flag=np.bool_(True))  # type: ignore[arg-type]
    assert loads(Outer, dumps(record)) == Outer(3, maybe=0.5, flag=True)


def test_an_integer_is_welcome_where_a_float_is_expected() -> None:
    assert isinstance(Outer.from_json(outer(maybe=2)).maybe, float)


def test_what_cannot_be_saved_is_an_error_at_saving() -> None:
    with pytest.raises(TypeError, match="a record cannot hold complex"):
        dumps(Outer(1, maybe=1j))  # type: ignore[arg-type]


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(dumps(Outer(7)), encoding="utf-8")
    assert load_file(Outer, path) == Outer(7)
    with pytest.raises(InputError, match=r"cannot read .*missing\.json"):
        load_file(Outer, tmp_path / "missing.json")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot read"):
        load_file(Outer, path)


def test_a_name_that_is_no_text_is_spelled_out() -> None:
    text = dumps(KappaMapName("net\udcff.onnx"))
    assert text.encode()
    assert loads(KappaMapName, text).name == "net\\udcff.onnx"


@dataclass(frozen=True, slots=True)
class KappaMapName(Record):
    SCHEMA: ClassVar[str] = "test.name/1"
    name: str

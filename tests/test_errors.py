"""The tree of errors: one line each, one exit code each, and they survive a process boundary."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator

import pytest

import jr_onnx.serve.faults  # noqa: F401 - its errors are in the tree, whichever test is run first
from jr_onnx import errors
from jr_onnx.errors import (
    JrError,
    MissingExtraError,
    ModelError,
    RefusalError,
    UnsupportedOpsError,
    blaming,
    one_line,
    require,
)


def tree(root: type[JrError] = JrError) -> Iterator[type[JrError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


@pytest.mark.parametrize("kind", sorted(tree(), key=lambda kind: kind.__name__))
def test_every_error_survives_pickling_with_its_hint(kind: type[JrError]) -> None:
    error = kind("the thing is wrong", hint="Do this")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.message, copy.hint, str(copy)) == (error.message, error.hint, str(error))


def test_unsupported_ops_survive_pickling() -> None:
    error = UnsupportedOpsError("the model holds operators", hint="Use another", ops=("Foo", "Bar"))
    assert pickle.loads(pickle.dumps(error)).ops == ("Foo", "Bar")


@pytest.mark.parametrize("kind", sorted(tree(), key=lambda kind: kind.__name__))
def test_every_error_has_an_exit_code_and_a_status_of_its_own_range(kind: type[JrError]) -> None:
    assert 1 <= kind.exit_code <= 125
    assert 400 <= kind.http_status <= 599
    assert kind.__doc__


def test_message_and_hint_join_to_one_sentence_each() -> None:
    assert str(JrError("it broke", hint="Mend it")) == "it broke. Mend it"
    assert str(JrError("it broke.", hint="Mend it")) == "it broke. Mend it"
    assert str(JrError("it broke")) == "it broke"


def test_bad_input_is_the_callers_fault_and_a_broken_contract_is_ours() -> None:
    assert ModelError("x").http_status == 400
    assert ModelError("x").exit_code == 2
    assert errors.NoSiteError("x").exit_code == 3
    assert errors.ContractError("x").http_status == 500


def test_require_returns_the_module() -> None:
    assert require("json", "cpu") is sys.modules["json"]
    assert require("json.decoder", "cpu") is sys.modules["json.decoder"]


def test_require_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"'no_such_module_here'.*pip install 'jr-onnx\[serve\]'"):
        require("no_such_module_here", "serve")
    with pytest.raises(MissingExtraError, match=r"no_such_module_here\.inner"):
        require("no_such_module_here.inner", "serve")


def test_require_does_not_hide_a_broken_dependency(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path
    (folder / "jr_test_broken.py").write_text("import a_module_that_is_not_there\n")  # type: ignore[operator]
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        require("jr_test_broken", "cpu")


def test_blaming_makes_one_line_of_whatever_a_library_raises() -> None:
    with (
        pytest.raises(ModelError, match=r"^cannot do it: 'a b'\. Try again$") as caught,
        blaming("cannot do it", ModelError, hint="Try again"),
    ):
        raise KeyError("a b")
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(RefusalError), blaming("cannot do it"):
        raise RefusalError("no")
    with pytest.raises(MemoryError), blaming("cannot do it"):
        raise MemoryError


def test_a_line_is_short_and_cannot_move_a_terminal_s_cursor() -> None:
    assert one_line(ValueError("a\n  b\x1b[2J\tc")) == one_line("a\n  b\x1b[2J\tc") == "a b [2J c"
    assert one_line(ValueError()) == "ValueError"
    assert one_line("x" * 20, 10) == "xxxxxxx..."
    assert one_line("x" * 10, 10) == "x" * 10

"""No public signature of the package says Any: a type checker sees what each function takes and returns."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "jr_onnx"


def is_public(name: str) -> bool:
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def says_any(node: ast.expr | None) -> bool:
    """Whether an annotation, or one in quotation marks, holds `Any` at any depth."""
    for part in ast.walk(node) if node is not None else ():
        if (
            isinstance(part, ast.Name | ast.Attribute)
            and (part.id if isinstance(part, ast.Name) else part.attr) == "Any"
        ):
            return True
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.isprintable():
            try:
                quoted = ast.parse(part.value, mode="eval").body
            except SyntaxError:
                continue
            if says_any(quoted):
                return True
    return False


def annotations(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[int, str, ast.expr | None]]:
    """Yield line, name and type of what a module or a class declares in public, of aliases what they stand for."""
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if is_public(node.name):
                given = node.args
                for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
                    if argument is not None:
                        yield argument.lineno, f"{prefix}{node.name}({argument.arg})", argument.annotation
                yield node.lineno, f"{prefix}{node.name}", node.returns
            case ast.ClassDef() if is_public(node.name):
                yield from ((node.lineno, f"{prefix}{node.name}", base) for base in node.bases)
                yield from annotations(node.body, f"{prefix}{node.name}.")
            case ast.AnnAssign(target=ast.Name(id=name)) if is_public(name):
                yield node.lineno, f"{prefix}{name}", node.annotation
                if ast.unparse(node.annotation) == "TypeAlias":
                    yield node.lineno, f"{prefix}{name}", node.value
            case ast.Assign(targets=[ast.Name(id=name)]) if is_public(name) and not prefix:
                # A call makes a value, not an alias.
                yield node.lineno, name, None if isinstance(node.value, ast.Call) else node.value
            case ast.If():
                yield from annotations([*node.body, *node.orelse], prefix)
            case _:
                pass


def found_in(source: str) -> list[tuple[int, str]]:
    return [(line, name) for line, name, kind in annotations(ast.parse(source).body) if says_any(kind)]


def test_no_public_signature_says_any() -> None:
    found = [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {what}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, what in found_in(path.read_text(encoding="utf-8"))
    ]
    assert not found, "name the type: JsonValue, Array, object, a Protocol or the library's own\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: Any) -> int: ...",
        "def f(x: int) -> dict[str, Any]: ...",
        "def f(*, x: int | NDArray[Any]) -> int: ...",
        "def f(**given: typing.Any) -> int: ...",
        "async def f() -> 'list[Any]': ...",
        "class C:\n    field: Any",
        "class C:\n    def f(self, x: Sequence[Any]) -> None: ...",
        "class C(Base[Any]): ...",
        "Alias = Callable[..., Any]",
        "Alias: TypeAlias = list[Any]",
        "if TYPE_CHECKING:\n    def f(x: Any) -> int: ...",
    ],
)
def test_it_is_seen_everywhere(source: str) -> None:
    assert found_in(source)


@pytest.mark.parametrize(
    "source",
    [
        "def _f(x: Any) -> int: ...",
        "class _C:\n    field: Any",
        "def f(x: object) -> int:\n    y: Any = x\n    return y",
    ],
)
def test_what_is_private_may_say_it(source: str) -> None:
    assert not found_in(source)

"""What importing a module loads: read from the source, and in a fresh interpreter; import-linter holds the layers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "jr_onnx"
MODULES = sorted(
    ".".join(("jr_onnx", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)
# Rooms that never import torch, not even by way of another module; inside a function they may.
WITHOUT_TORCH = (
    "rewriter",
    "modelfile",
    "runtime",
    "rows",
    "weights",
    "deploy",
    "serve",
    "verifier",
    "data",
    "bench",
    "report",
    "cli",
)
BASE = (
    "element_types",
    "opsets",
    "errors",
    "opened",
    "foreign",
    "semantics",
    "kappa",
    "records",
    "quantised",
    "provenance",
    "_version",
)
# Modules of those rooms whose work is torch; the others reach them from inside functions only.
WITH_TORCH = ("jr_onnx.verifier.torch.network", "jr_onnx.verifier.torch.compare")


def path_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((item for item in (base.with_suffix(".py"), base / "__init__.py") if item.is_file()), None)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_skipped(node: ast.stmt, inside_functions: bool) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return not inside_functions
    return _is_type_checking(node)


def _imports(nodes: list[ast.stmt], *, inside_functions: bool) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif not _is_skipped(node, inside_functions):
            for inner in ast.iter_child_nodes(node):
                if isinstance(inner, ast.stmt | ast.ExceptHandler | ast.match_case):
                    found |= _imports([inner], inside_functions=inside_functions)  # type: ignore[list-item]
    return found


@cache
def imports(module: str, *, inside_functions: bool = False) -> frozenset[str]:
    """Return what a module imports: names of modules, and of what is taken from them."""
    path = path_of(module)
    assert path is not None, module
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(_imports(tree.body, inside_functions=inside_functions))


@cache
def loaded(module: str) -> frozenset[str]:
    """Return the modules of this package that importing `module` loads, itself included."""
    found: set[str] = set()
    frontier = [module]
    while frontier:
        name = frontier.pop()
        if name in found or path_of(name) is None:
            continue
        found.add(name)
        frontier += [item for item in imports(name) if item.startswith("jr_onnx")]
        frontier += [".".join(name.split(".")[:end]) for end in range(1, name.count(".") + 1)]
    return frozenset(found)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_a_room_without_torch_never_loads_it(name: str) -> None:
    for module in (item for item in MODULES if room(item) == name and item not in WITH_TORCH):
        for other in sorted(loaded(module)):
            guilty = {item for item in imports(other) if item.split(".")[0] in ("torch", "torchvision", "sklearn")}
            assert not guilty, f"{module} loads {other}, which imports {sorted(guilty)}"


def test_the_drawing_is_what_is_enforced() -> None:
    """`make lint` holds the package to the layers of pyproject.toml; ARCHITECTURE.md draws the same ones."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["jr_onnx"]]
    drawing = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("import-linter holds them to it")[2]
    drawn = [line.split() for line in drawing.split("\n\n")[1].splitlines()]
    assert drawn == [[name for name in re.findall(r"\w+", layer) if name != "__main__"] for layer in layers][1:]


@pytest.mark.parametrize("name", BASE)
def test_the_base_imports_only_the_base_and_numpy(name: str) -> None:
    found = imports(f"jr_onnx.{name}", inside_functions=True)
    rooms = {room(item) for item in found if item.startswith("jr_onnx.")}
    assert rooms <= set(BASE)
    foreign = {item.split(".")[0] for item in found} - set(sys.stdlib_module_names) - {"jr_onnx"}
    assert foreign <= {"numpy", "ml_dtypes", "yaml"}


def test_the_reader_of_imports_sees_what_it_should() -> None:
    tree = ast.parse(
        "import a\nfrom b import c\nif TYPE_CHECKING:\n    import hidden\ntry:\n    import d\nexcept E:\n    import e\n"
        "def f():\n    import late\nclass C:\n    import g\nwith x:\n    import h\n"
    )
    assert _imports(tree.body, inside_functions=False) == {"a", "b", "b.c", "d", "e", "g", "h"}
    assert "late" in _imports(tree.body, inside_functions=True)


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120, cwd=ROOT
    )


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom jr_onnx.cli.app import run\ncode = run(['--help'])\n"
        "heavy = sorted({'numpy', 'onnx', 'rich', 'torch', 'onnxruntime', 'yaml'} & set(sys.modules))\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = fresh(code)
    assert done.returncode == 0, done.stderr
    assert "rewrite" in done.stdout


def test_the_package_itself_loads_nothing_heavy() -> None:
    heavy = {"numpy", "onnx", "onnxruntime", "torch", "yaml"}
    code = f"import sys, jr_onnx\nsys.exit(str(sorted({heavy!r} & set(sys.modules)) or ''))"
    done = fresh(code)
    assert done.stderr.strip() == ""


def test_rewriting_loads_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import sys, jr_onnx\njr_onnx.rewrite\nsys.exit(str(sorted({'torch', 'onnxruntime'} & set(sys.modules)) or ''))"
    )
    done = fresh(code)
    assert done.stderr.strip() == ""


@pytest.mark.slow
def test_every_module_can_be_imported_first() -> None:
    """Import each module of the rewriter alone: a cycle of imports would show for one order only."""
    names = [item for item in MODULES if room(item) in ("rewriter", "modelfile", *BASE)]
    code = (
        "import importlib, os, sys\n"
        "import numpy, onnx, onnx.checker, onnx.version_converter, onnx_graphsurgeon, yaml\n"  # once, for speed
        f"for name in {names!r}:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        importlib.import_module(name)\n"
        "        os._exit(0)\n"
        "    if os.waitpid(child, 0)[1]:\n"
        "        sys.exit(name)\n"
    )
    done = fresh(code)
    assert done.returncode == 0, done.stderr

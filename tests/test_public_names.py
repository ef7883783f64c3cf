"""The public names are there, whatever was imported before, and cost nothing until they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jr_onnx
from jr_onnx import errors

ORDERS = [
    "from jr_onnx import rewrite, verify",
    "import jr_onnx.rewriter.sites; from jr_onnx import rewrite, verify",
    "import jr_onnx; rewrite = jr_onnx.rewrite; jr_onnx.find_sites; rewrite = jr_onnx.rewrite; verify = jr_onnx.verify",
]


@pytest.mark.parametrize("name", jr_onnx.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(jr_onnx, name) is not None


def test_dir_lists_the_public_names() -> None:
    assert set(jr_onnx.__all__) <= set(dir(jr_onnx))


def test_the_module_of_calls_needs_no_import_of_its_own() -> None:
    code = "import jr_onnx; print(jr_onnx.api.attack.__name__, 'api' in dir(jr_onnx))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["attack", "True"]


_CALLS = """
import inspect, sys
{order}
import jr_onnx
assert "torch" not in sys.modules or "jr_onnx.attack" in sys.modules
for name in ("attack", "bench", "report", "tune"):
    package = getattr(jr_onnx, name)
    assert inspect.ismodule(package) and sys.modules["jr_onnx." + name] is package
    assert inspect.signature(package) == inspect.signature(getattr(jr_onnx.api, name)), name
from jr_onnx.attack.pgd import PGD
assert jr_onnx.attack.PGD is PGD
try:
    jr_onnx.attack("missing.onnx", kappa=0.1)
except jr_onnx.ModelError as error:
    print(error)
"""


@pytest.mark.parametrize("order", ["", "import jr_onnx.attack.pgd", "from jr_onnx import report", *ORDERS[:1]])
def test_four_packages_are_also_calls(order: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    code = _CALLS.format(order=order)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("missing.onnx does not exist"), done.stderr


@pytest.mark.parametrize("name", ["attack", "tune", "evaluate_robustness"])
def test_what_needs_torch_says_which_extra_brings_it(name: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import jr_onnx; jr_onnx.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "MissingExtraError" in done.stderr
    assert "pip install 'jr-onnx[attack]'" in done.stderr


def test_a_type_checker_imports_what_runs() -> None:
    """The names stand twice, for type checkers and for `__getattr__`: from the same modules."""
    tree = ast.parse(Path(jr_onnx.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == jr_onnx._PUBLIC
    assert sorted([*imported, "__version__"]) == sorted(jr_onnx.__all__)


def test_every_error_is_a_public_name() -> None:
    tree = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.JrError)]
    assert {item.__name__ for item in tree} <= set(jr_onnx.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'retrofit_all'"):
        _ = jr_onnx.retrofit_all


@pytest.mark.parametrize("order", ORDERS)
def test_rewrite_and_verify_are_callable_in_any_order_of_imports(order: str) -> None:
    code = (
        f"{order}\n"
        "from jr_onnx.errors import ModelError\n"
        "for call in (rewrite, verify):\n"
        "    try:\n"
        "        call('missing.onnx', 0.1)\n"
        "    except ModelError:\n"
        "        continue\n"
        "    raise SystemExit('no ModelError')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


_TYPED = """
from pathlib import Path
from typing import assert_type
import numpy as np
import numpy.typing as npt
import onnx
import jr_onnx
from jr_onnx.rewriter import RewriteResult, SiteTable

def user(proto: onnx.ModelProto, path: Path) -> None:
    assert_type(jr_onnx.rewrite("model.onnx", kappa=0.1, lowering="where", force=True), tuple[Path, RewriteResult])
    assert_type(jr_onnx.rewrite(proto, {"relu": 0.1}, include="relu"), tuple[onnx.ModelProto, RewriteResult])
    assert_type(jr_onnx.restore(path), Path)
    assert_type(jr_onnx.restore(proto), onnx.ModelProto)
    assert_type(jr_onnx.find_sites(proto), SiteTable)
    session = jr_onnx.InferenceSession("model.onnx", retrofit="plain")
    assert_type(jr_onnx.attack(path, kappa=0.1), jr_onnx.api.AttackRun)
    assert_type(session.run(None, {}), list[npt.NDArray[np.generic]])
"""


def test_a_type_checker_sees_what_runs(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    user = tmp_path / "user.py"
    user.write_text(_TYPED + '    jr_onnx.rewrite(path, 0.1, lowering="wher")\n', encoding="utf-8")
    # The project's own settings, so that the cache of `make lint` serves here too.
    config = Path(jr_onnx.__file__).parents[1] / "pyproject.toml"
    said, complaint, _ = api.run(["--config-file", str(config), str(user)])
    assert complaint == ""
    found = [line for line in said.splitlines() if "user.py" in line and ": error:" in line]
    assert len(found) == 1, said
    assert "user.py:19: error: No overload variant" in found[0], said

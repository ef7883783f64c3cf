"""The public names are there, whatever was imported before, and cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import jr_onnx

ORDERS = [
    "from jr_onnx import rewrite, verify",
    "import jr_onnx.rewriter.sites; from jr_onnx import rewrite, verify",
    "import jr_onnx; rewrite = jr_onnx.rewrite; jr_onnx.find_sites; rewrite = jr_onnx.rewrite; verify = jr_onnx.verify",
]


@pytest.mark.parametrize("name", jr_onnx.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(jr_onnx, name) is not None


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

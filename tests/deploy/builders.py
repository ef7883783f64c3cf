"""Small models, packages and interpreters for the tests of `jr_onnx.deploy`."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from jr_onnx.rewriter import rewrite

INTERPRETER_VARIABLE = "JR_ONNX_SERVE_PYTHON"


def classifier(
    *, batch: str = "N", size: str = "8, 8", ir_version: int = 8, opset: int = 17, output: str = "M, 10"
) -> onnx.ModelProto:
    """Return a convolution, a ReLU, pooling and ten logits; the sizes as ONNX text writes them."""
    model = parser.parse_model(
        f"""<ir_version: {ir_version}, opset_import: ["" : {opset}]>
        net (float[{batch}, 3, {size}] x) => (float[{output}] y)
        <float[4, 3, 3, 3] w, float[4, 10] v> {{
            c = Conv <pads = [1, 1, 1, 1]> (x, w)
            r = Relu (c)
            p = GlobalAveragePool (r)
            f = Flatten (p)
            y = MatMul (f, v)
        }}"""
    )
    del model.graph.initializer[:]
    generator = np.random.default_rng(0)
    for name, shape in (("w", (4, 3, 3, 3)), ("v", (4, 10))):
        array = generator.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def save(model: onnx.ModelProto, path: Path, *, external: str | None = None) -> Path:
    """Write a model, with all its weights in the file `external` where that is named."""
    if external is None:
        onnx.save(model, path)
    else:
        (path.parent / external).parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def interpreter_with(package: str) -> str:
    """Return an interpreter that has a package: this one, or the one the environment names; skip without."""
    if importlib.util.find_spec(package) is not None:
        return sys.executable
    other = os.environ.get(INTERPRETER_VARIABLE)
    if other is None:
        pytest.skip(f"{package} is not installed, and {INTERPRETER_VARIABLE} names no interpreter that has it")
    return other


def run_script(interpreter: str, script: str, document: Any) -> Any:
    """Run a script in a process of its own with JSON on its input, and return the JSON it prints."""
    done = subprocess.run(
        [interpreter, "-W", "ignore", "-c", script],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def make_keys(folder: Path) -> tuple[Path, Path]:
    """Write a new pair of keys."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "key.pem", folder / "public.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def retrofitted(model: Path, kappa: Any, name: str = "retrofit", **options: Any) -> Path:
    """Write a retrofit beside its original."""
    target = model.with_name(f"{name}.onnx")
    rewrite(model, kappa, output=target, **options)
    return target

"""Verification needs onnxruntime, onnx and NumPy; torch is never imported unless it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.verifier.nets import network, save


def test_a_verification_imports_no_torch(tmp_path: Path) -> None:
    path = save(network(), tmp_path)
    code = (
        "import sys\n"
        "from jr_onnx.verifier import verify\n"
        f"assert verify({str(path)!r}, 0.06, samples=1)\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'sklearn', 'matplotlib'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"

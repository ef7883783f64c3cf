"""Model files beyond protobuf's 2 GB, and gigabytes of external data: memory stays small, and no byte is read in vain.

The files are sparse, so that they take no room on the disk. Memory is a bound of correctness here: weights are never
held by the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, parser

GIGABYTES_5 = 5 << 30
PEAK_BYTES = 300 << 20
TEXT = '<ir_version: 8, opset_import: ["" : 17]>\ng (float[N] x) => (float[N] y) { h = Mul(x, s) y = Relu(h) }'

PEAK = """
import resource, sys
from jr_onnx.cli.app import run
code = run(sys.argv[1:])
sys.stderr.write(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}\\n")
sys.exit(code)
"""
# A process inherits the peak of a large parent, so that a small one stands between.
BETWEEN = """
import os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
sys.exit(os.waitstatus_to_exitcode(os.wait4(child, 0)[1]))
"""


def run_and_measure(*words: str) -> int:
    """Run the command line in a fresh process and return its peak memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", BETWEEN, sys.executable, "-c", PEAK, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.rsplit("peak ", 1)[1])


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def write_inline(path: Path, payload_bytes: int) -> None:
    """Write a model with one weight of that many bytes in the file itself, most of it a hole, fields in their order."""
    model = parser.parse_model(TEXT)
    model.graph.initializer.append(TensorProto(name="s", data_type=TensorProto.FLOAT, float_data=[2.0]))
    values = onnx.GraphProto(input=model.graph.input, output=model.graph.output).SerializeToString()
    imports = onnx.ModelProto(opset_import=model.opset_import).SerializeToString()
    for name in ("input", "output"):
        model.graph.ClearField(name)
    shape = TensorProto(dims=[payload_bytes // 4], data_type=TensorProto.FLOAT, name="w").SerializeToString()
    tensor = shape + b"\x4a" + varint(payload_bytes)  # raw_data
    graph = model.graph.SerializeToString() + b"\x2a" + varint(len(tensor) + payload_bytes) + tensor  # initializer
    start = onnx.ModelProto(ir_version=model.ir_version).SerializeToString()
    with path.open("wb") as stream:
        stream.write(start + b"\x3a" + varint(len(graph) + payload_bytes + len(values)) + graph)
        stream.seek(payload_bytes - 4, os.SEEK_CUR)
        stream.write(b"last" + values + imports)


@pytest.mark.slow
def test_a_file_of_more_than_two_gigabytes_is_rewritten_and_restored_in_little_memory(tmp_path: Path) -> None:
    source, output, back = tmp_path / "big.onnx", tmp_path / "out.onnx", tmp_path / "back.onnx"
    size = (1 << 31) + 4096
    write_inline(source, size)
    assert run_and_measure("rewrite", str(source), "--kappa", "0.06", "-o", str(output)) < PEAK_BYTES
    assert output.stat().st_size > size
    with output.open("rb") as stream:
        assert b"ThresholdedRelu" in stream.read(2000)
        stream.seek(-10_000, os.SEEK_END)
        assert b"last" in stream.read()
    assert run_and_measure("restore", str(output), "-o", str(back)) < PEAK_BYTES
    assert back.stat().st_size == source.stat().st_size
    with source.open("rb") as one, back.open("rb") as other:
        assert one.read(4096) == other.read(4096)
        one.seek(-4096, os.SEEK_END)
        other.seek(-4096, os.SEEK_END)
        assert one.read() == other.read()


@pytest.mark.parametrize("options", [(), ("--replace",)])
def test_gigabytes_of_external_data_are_not_read(options: tuple[str, ...], tmp_path: Path) -> None:
    model = parser.parse_model(TEXT)
    weight = TensorProto(name="s", dims=[GIGABYTES_5 // 4], data_type=TensorProto.FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.bin")
    model.graph.initializer.append(weight)
    source = tmp_path / "model.onnx"
    onnx.save(model, source)
    with (tmp_path / "w.bin").open("wb") as stream:
        stream.truncate(GIGABYTES_5)
    if options:
        run_and_measure("rewrite", str(source), "--kappa", "0.5")
        source = tmp_path / "model.jr.onnx"
    output = tmp_path / "out.onnx"
    assert run_and_measure("rewrite", str(source), "--kappa", "0.06", "-o", str(output), *options) < PEAK_BYTES
    assert (tmp_path / "w.bin").stat().st_blocks == 0
    assert output.stat().st_size < 10_000

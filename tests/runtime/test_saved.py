from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from jr_onnx.errors import InputError, ModelError, OpLibraryError, OutputError, RefusalError
from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.records import dumps, loads
from jr_onnx.rewriter import restore, rewrite
from jr_onnx.runtime import saved
from jr_onnx.runtime.host import this_host
from jr_onnx.runtime.saved import METADATA_KEY, Mark, default_output, optimize
from jr_onnx.runtime.session import InferenceSession
from tests.runtime.exact_nets import KAPPA, ExactNet, convnet, images

CPU = ["CPUExecutionProvider"]


@pytest.fixture
def retrofit(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(convnet(), str(path))
    written, _ = rewrite(str(path), KAPPA)
    return Path(written)


def run(path: Path, **arguments: Any) -> Any:
    return InferenceSession(path, providers=CPU, **arguments).run(None, images())[0]


@pytest.mark.parametrize("use_library", [True, False])
def test_the_saved_model_gives_the_same_bits(retrofit: Path, tmp_path: Path, use_library: bool) -> None:
    fast = tmp_path / "fast.onnx"
    mark = optimize(retrofit, fast, use_library=use_library)
    assert mark == Mark(this_host(), 6, needs_library=use_library)
    session = InferenceSession(fast, providers=CPU)
    assert session.retrofit.mode == "saved"
    assert session.retrofit.jumps == session.retrofit.sites == 6
    np.testing.assert_array_equal(session.run(None, images())[0], run(retrofit, retrofit="plain"))
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "net.jr.onnx", "fast.onnx"}


def test_onnx_runtime_alone_opens_it_where_it_was_made(retrofit: Path, tmp_path: Path) -> None:
    fast = tmp_path / "fast.onnx"
    optimize(retrofit, fast, use_library=False)
    session = onnxruntime.InferenceSession(str(fast), providers=CPU)
    np.testing.assert_array_equal(session.run(None, images())[0], run(retrofit))


def test_large_weights_go_beside_the_model(retrofit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "_ONE_FILE_LIMIT", 1000)
    fast = tmp_path / "fast.onnx"
    optimize(retrofit, fast)
    assert (tmp_path / "fast.onnx.data").stat().st_size > 10_000
    assert fast.stat().st_size < 40_000
    np.testing.assert_array_equal(run(fast), run(retrofit))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("onnxruntime", "1.2.3", "for ONNX Runtime 1.2.3, here it is"),
        ("machine", "riscv64", "for a processor of type riscv64, here it is"),
        ("features", ("sse4_1", "neon"), "for instruction sets sse4_1 neon, here it is"),
    ],
)
def test_elsewhere_it_is_refused(retrofit: Path, tmp_path: Path, field: str, value: Any, words: str) -> None:
    fast = tmp_path / "fast.onnx"
    mark = optimize(retrofit, fast)
    model = onnx.load(str(fast))
    other = dataclasses.replace(mark, host=dataclasses.replace(mark.host, **{field: value}))
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = dumps(other)
    onnx.save(model, str(fast))
    with pytest.raises(InputError, match=words) as caught:
        InferenceSession(fast, providers=CPU)
    assert "Run jr-onnx optimize on this host" in caught.value.hint


def test_other_providers_are_refused(retrofit: Path, tmp_path: Path) -> None:
    optimize(retrofit, tmp_path / "fast.onnx")
    with pytest.raises(InputError, match="optimised for the CPU, the session asks for AzureExecutionProvider"):
        InferenceSession(tmp_path / "fast.onnx", providers=["AzureExecutionProvider"])


def test_a_missing_library_is_named(retrofit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optimize(retrofit, tmp_path / "fast.onnx", use_library=True)
    monkeypatch.setattr("jr_onnx.runtime.ops_library._FOLDER", tmp_path)
    with pytest.raises(OpLibraryError, match="needs the op library, which is not there"):
        InferenceSession(tmp_path / "fast.onnx", providers=CPU)


def test_a_damaged_mark_is_an_error(retrofit: Path, tmp_path: Path) -> None:
    optimize(retrofit, tmp_path / "fast.onnx")
    model = onnx.load(str(tmp_path / "fast.onnx"))
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = json.dumps({"schema": "jr_onnx.optimised/1"})
    with pytest.raises(ModelError, match="cannot be understood"):
        InferenceSession(model.SerializeToString(), providers=CPU)


def test_a_random_kappa_is_still_drawn(tmp_path: Path) -> None:
    net = ExactNet(0)
    onnx.save(net.model([net.relu("x")], ["N"]), str(tmp_path / "net.onnx"))
    written, _ = rewrite(str(tmp_path / "net.onnx"), RandomKappa(0.2, 0.6))
    optimize(written, tmp_path / "fast.onnx")
    session = InferenceSession(tmp_path / "fast.onnx", providers=CPU)
    grid = np.linspace(0, 1, 1001, dtype=np.float32)
    found = [session.run(None, {"x": grid})[0] for _ in range(20)]
    assert len({float(result[result > 0].min()) for result in found}) > 5


def test_a_kappa_input_is_still_there(tmp_path: Path) -> None:
    onnx.save(convnet(), str(tmp_path / "net.onnx"))
    written, _ = rewrite(str(tmp_path / "net.onnx"), KappaPlan(kappa=KAPPA, input_name="k"))
    optimize(written, tmp_path / "fast.onnx")
    feed = {**images(), "k": np.float32(1)}
    fast, plain = (InferenceSession(path, providers=CPU) for path in (tmp_path / "fast.onnx", written))
    np.testing.assert_array_equal(fast.run(None, feed)[0], plain.run(None, feed)[0])


def test_what_cannot_be_optimised(retrofit: Path, tmp_path: Path) -> None:
    fast = tmp_path / "fast.onnx"
    with pytest.raises(ModelError, match="is not a retrofit"):
        optimize(tmp_path / "net.onnx", fast)
    with pytest.raises(ModelError, match="does not exist"):
        optimize(tmp_path / "missing.onnx", fast)
    optimize(retrofit, fast)
    with pytest.raises(OutputError, match="exists"):
        optimize(retrofit, fast)
    with pytest.raises(OutputError, match="is the source itself"):
        optimize(retrofit, retrofit, force=True)
    with pytest.raises(RefusalError, match="is optimised already"):
        optimize(fast, tmp_path / "faster.onnx")
    optimize(retrofit, fast, force=True)
    net = ExactNet(13)
    folded = net.relu(net.weight((16, 1, 1), 1.0))
    onnx.save(net.model([net.add("Add", [net.relu("x"), folded])], ["N", 16, 8, 8]), str(tmp_path / "folded.onnx"))
    written, _ = rewrite(str(tmp_path / "folded.onnx"), KAPPA)
    with pytest.raises(RefusalError, match=r"after optimisation: .* 0 times, expected 1\. Deploy the retrofit"):
        optimize(written, tmp_path / "folded.fast.onnx")


def test_the_mark_survives_json() -> None:
    mark = Mark(this_host(), 3, needs_library=True)
    assert loads(Mark, dumps(mark)) == mark


def test_default_names() -> None:
    assert default_output(Path("a/net.jr.onnx")) == Path("a/net.fast.onnx")
    assert default_output(Path("net.onnx")) == Path("net.fast.onnx")
    assert default_output(Path("net")) == Path("net.fast.onnx")


def test_what_needs_the_retrofit_itself_says_so(retrofit: Path, tmp_path: Path) -> None:
    fast = tmp_path / "fast.onnx"
    optimize(retrofit, fast)
    with pytest.raises(ModelError, match="was optimised for one host") as caught:
        restore(fast)
    assert caught.value.hint == "Use the retrofit that jr-onnx optimize was given"
    assert not (tmp_path / "fast.restored.onnx").exists()

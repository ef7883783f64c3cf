"""Kappas per channel in ONNX Runtime's blocked layout: the bits of the plain way, wherever channels lie in blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from jr_onnx.errors import ModelError, OpLibraryError, RefusalError
from jr_onnx.modelfile import load
from jr_onnx.rewriter import rewrite
from jr_onnx.rewriter.agreement import examine
from jr_onnx.rows import prove_rows
from jr_onnx.runtime import optimizer
from jr_onnx.runtime.ops_library import library_path
from jr_onnx.runtime.saved import optimize
from jr_onnx.runtime.session import InferenceSession
from jr_onnx.runtime.skeleton import read_skeleton
from jr_onnx.semantics import jump_relu
from tests.runtime.exact_nets import ExactNet, convnet, images
from tests.runtime.support import CPU, assert_same_bits, open_both, options

Net = tuple[onnx.ModelProto, dict[str, int]]


def kappas_of(sites: dict[str, int], seed: int = 0) -> dict[str, tuple[float, ...]]:
    """Return integer kappas, which exact sums hit, a 0 and a large one among them."""
    rng = np.random.default_rng(seed)
    return {name: (0.0, 7.0, *map(float, rng.integers(0, 6, count)))[:count] for name, count in sites.items()}


def odd_channels() -> Net:
    """Channel counts that fill no block, in a chain with a residual sum."""
    net = ExactNet(20)
    a = net.relu(net.conv("x", 3, 48))
    b = net.relu(net.conv(a, 48, 20))
    c = net.relu(net.add("Add", [net.conv(a, 48, 20), b]))
    d = net.relu(net.conv(a, 48, 5, size=1))
    return net.model([c, d], ["N", 3, 8, 8]), {a: 48, b: 20, c: 20, d: 5}


def leaving_and_returning() -> Net:
    """A convolution of channels that are no whole blocks takes the standard layout, and returns to the blocked one."""
    net = ExactNet(26)
    a = net.relu(net.conv("x", 3, 32))
    b = net.relu(net.conv(a, 32, 20))
    c = net.relu(net.conv(b, 20, 32))
    d = net.relu(net.conv(c, 32, 40))
    return net.model([d], ["N", 3, 8, 8]), {a: 32, b: 20, c: 32, d: 40}


def groups() -> Net:
    """Depthwise and grouped convolutions."""
    net = ExactNet(21)
    a = net.relu(net.conv("x", 3, 64))
    b = net.relu(net.conv(a, 64, 64, groups=64))
    c = net.relu(net.conv(b, 64, 32, groups=2))
    d = net.relu(net.conv(c, 32, 32, groups=8))  # 4 channels a group: not in the blocked layout
    return net.model([d], ["N", 3, 8, 8]), {a: 64, b: 64, c: 32, d: 32}


def concatenation() -> Net:
    """Sites behind Concat, Mul and pooling, which are not fused into a convolution."""
    net = ExactNet(22)
    a = net.relu(net.add("Mul", [net.conv("x", 3, 20), net.conv("x", 3, 20)]))
    b = net.relu(net.add("Concat", [net.conv(a, 20, 16), net.conv(a, 20, 32)], axis=1))
    c = net.relu(net.add("MaxPool", [b], kernel_shape=[2, 2]))
    d = net.relu(net.add("Concat", [net.conv(c, 48, 20), net.conv(c, 48, 12)], axis=1))  # 20 is not whole blocks
    return net.model([d, b], ["N", 3, 8, 8]), {a: 20, b: 48, c: 48, d: 32}


def residual_of_unknown_shape() -> Net:
    """A sum whose summands have sizes that ONNX Runtime cannot prove to be equal: it splits the channels' axis."""
    net = ExactNet(23)
    a = net.relu(net.conv("x", 3, 32))
    pooled = net.add("MaxPool", [a], kernel_shape=[2, 2], strides=[2, 2])
    b = net.relu(net.add("Add", [pooled, net.conv(a, 32, 32, stride=2)]))
    c = net.relu(net.conv(b, 32, 20))
    return net.model([c], ["N", 3, "H", "W"]), {a: 32, b: 32, c: 20}


def classifier() -> Net:
    """A network with every form of site, Gemm included."""
    return convnet(), {"Relu_1": 32, "Relu_3": 32, "Relu_6": 32, "Relu_8": 32, "Relu_11": 48, "Relu_14": 24}


# The networks, and how many of their sites ONNX Runtime has in its blocked layout where a block is 16 channels.
NETS: dict[Callable[[], Net], int] = {
    odd_channels: 4,
    leaving_and_returning: 4,
    groups: 3,
    concatenation: 3,
    residual_of_unknown_shape: 3,
    classifier: 5,
}


@pytest.mark.parametrize("lowering", ["where", "custom"])
@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_both_ways_give_the_same_bits(net: Callable[[], Net], lowering: str) -> None:
    model, sites = net()
    fast, plain = open_both(model, kappas_of(sites), lowering=lowering)
    assert fast.retrofit.jumps == fast.retrofit.sites == len(sites)
    for count in (1, 5):
        assert_same_bits(fast, plain, images(count))


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_sites_stay_in_the_blocked_layout(net: Callable[[], Net]) -> None:
    """What keeps the tests above from passing because nothing is in blocks."""
    size = optimizer.size_of_block()
    if size != 16:
        pytest.skip(f"ONNX Runtime's blocks have {size} channels on this processor; the networks are counted for 16")
    model, sites = net()
    jumps = [node for node in optimised(model, kappas_of(sites)).graph.node if node.op_type == "JumpRelu"]
    assert sum(any(item.name == "channel_block" for item in node.attribute) for node in jumps) == NETS[net]


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_every_kappa_belongs_to_its_channel(net: Callable[[], Net]) -> None:
    """A change of one channel's kappa alone changes what the plain way says it does."""
    model, sites = net()
    first, count = next(iter(sites.items()))
    for channel in range(0, count, 5):
        kappas = dict.fromkeys(sites, 0.0) | {first: tuple(3.0 * (i == channel) for i in range(count))}
        fast, plain = open_both(model, kappas)
        assert_same_bits(fast, plain, images(2))


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_dispatch_levels(monkeypatch: pytest.MonkeyPatch, isa: str, threads: int) -> None:
    monkeypatch.setenv("JR_ONNX_ISA", isa)
    monkeypatch.setenv("JR_ONNX_PARALLEL_BYTES", "1")
    model, sites = concatenation()
    data = rewrite(model, kappas_of(sites))[0].SerializeToString()
    fast = InferenceSession(data, options(intra_op_num_threads=threads), CPU, retrofit="optimised")
    plain = InferenceSession(data, options(), CPU, retrofit="plain")
    assert_same_bits(fast, plain, images(3))


def test_the_blocked_layout_is_kept_and_the_padding_has_kappa_0() -> None:
    model, sites = odd_channels()
    result = optimised(model, kappas_of(sites))
    size = optimizer.size_of_block()
    assert size in (4, 8, 16)
    jumps = [node for node in result.graph.node if node.op_type == "JumpRelu"]
    assert [next(item.i for item in node.attribute if item.name == "channel_block") for node in jumps] == [size] * 4
    constants = {node.output[0]: node.attribute[0].t for node in result.graph.node if node.op_type == "Constant"}
    given = sorted(onnx.numpy_helper.to_array(constants[jump.input[1]]).tobytes() for jump in jumps)
    wanted = [np.pad(np.float32(kappas), (0, -len(kappas) % size)) for kappas in kappas_of(sites).values()]
    assert given == sorted(kappas.tobytes() for kappas in wanted)
    reorders = [node for node in result.graph.node if node.op_type == "ReorderOutput"]
    assert len(reorders) == 2, "only the outputs are reordered"


def optimised(model: onnx.ModelProto, kappas: Any) -> onnx.ModelProto:
    """Return what the session opens."""
    skeleton = read_skeleton(rewrite(model, kappas)[0].SerializeToString())
    assert skeleton is not None
    agreement = examine(skeleton.proto, skeleton.payloads)
    return optimizer.optimise(skeleton, agreement, options(), has_library=True, arguments={}).proto


def test_caps_and_a_mixture_of_one_kappa_and_many() -> None:
    net = ExactNet(24)
    a = net.relu6(net.conv("x", 3, 20))
    b = net.relu6(net.conv(a, 20, 16))
    c = net.relu(net.conv(b, 16, 12))
    kappas = {**kappas_of({a: 20, c: 12}), b: 2.0}
    fast, plain = open_both(net.model([c, a], ["N", 3, 8, 8]), kappas)
    assert_same_bits(fast, plain, images())


def test_the_jump_is_that_of_its_channel_by_definition() -> None:
    net = ExactNet(25)
    z = net.conv("x", 3, 20)
    model = net.model([z, net.relu(z)], ["N", 3, 8, 8])
    kappas = tuple(float(channel % 5) for channel in range(20))
    session = InferenceSession(rewrite(model, {"Relu_1": kappas})[0].SerializeToString(), options(), CPU)
    assert session.retrofit.mode == "optimised"
    before, after = session.run(None, images())
    assert np.any(before == np.array(kappas)[:, None, None])
    np.testing.assert_array_equal(after, jump_relu(before, kappas))


def test_without_the_library_the_plain_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jr_onnx.runtime.ops_library._FOLDER", Path("/nowhere"))
    model, sites = odd_channels()
    data = rewrite(model, kappas_of(sites))[0].SerializeToString()
    session = InferenceSession(data, options(), CPU)
    assert session.retrofit.mode == "plain"
    assert "ONNX Runtime chose its blocked layout" in session.retrofit.reason
    assert session.retrofit.reason.endswith("and the op library is not there")
    with pytest.raises(RefusalError, match="the op library is not there"):
        InferenceSession(data, options(), CPU, retrofit="optimised")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """An optimised file of `odd_channels`."""
    model, sites = odd_channels()
    retrofit, fast = tmp_path / "net.jr.onnx", tmp_path / "net.fast.onnx"
    onnx.save(rewrite(model, kappas_of(sites))[0], retrofit)
    optimize(retrofit, fast, use_library=True)
    return fast


def test_the_saved_model_runs_and_agrees_with_its_provenance(saved: Path) -> None:
    file = load(saved)
    assert not examine(file.proto, file.payloads).mismatches
    session = InferenceSession(saved, options(), CPU)
    assert session.retrofit.mode == "saved"
    plain = InferenceSession(saved.with_name("net.jr.onnx"), options(), CPU, retrofit="plain")
    assert_same_bits(session, plain, images(3))


@pytest.mark.parametrize("change", ["a value", "the padding", "a block less", "the order"])
def test_other_kappas_in_a_saved_model_are_found(saved: Path, change: str) -> None:
    model = onnx.load(saved)
    tensor = next(
        node.attribute[0].t
        for node in model.graph.node
        if node.op_type == "Constant" and node.output[0].endswith("/jr_kappa") and node.attribute[0].t.dims[0] == 32
    )
    values = onnx.numpy_helper.to_array(tensor).copy()
    if change == "a value":
        values[3] = 3.5
    elif change == "the padding":
        values[31] = 1.0
    elif change == "a block less":
        values = values[:16].copy()
    else:
        values[:20] = values[:20][::-1].copy()
    tensor.CopyFrom(onnx.numpy_helper.from_array(values))
    mismatches = examine(model).mismatches
    assert mismatches
    assert "has kappa per channel" in mismatches[0].message
    assert "(20 channels) by the provenance" in mismatches[0].message


@pytest.mark.parametrize("size", [1, 4, 8, 32, 0, -16, 2**40])
def test_a_saved_model_with_other_blocks_is_refused(saved: Path, size: int) -> None:
    model = onnx.load(saved)
    if size == optimizer.size_of_block():
        size = 2 * size
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "channel_block":
                attribute.i = size
    onnx.save(model, saved)
    with pytest.raises(
        ModelError, match=f"has jumps for blocks of {size} channels, expected {optimizer.size_of_block()}"
    ):
        InferenceSession(saved, options(), CPU)


def test_a_saved_model_is_refused_where_the_size_of_blocks_is_not_known(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer.size_of_block.cache_clear()
    monkeypatch.setattr("os.memfd_create", lambda *_: (_ for _ in ()).throw(OSError("no memory files")))
    with pytest.raises(ModelError, match=r"of \d+ channels, which cannot be checked here: .*no memory files"):
        InferenceSession(saved, options(), CPU)


def test_blocks_that_only_one_node_of_a_retrofit_claims_are_an_edit() -> None:
    """Only the session writes the attribute: in a retrofit it is a difference between graph and provenance."""
    model, sites = odd_channels()
    retrofit = rewrite(model, kappas_of(sites), lowering="custom")[0]
    jump = next(node for node in retrofit.graph.node if node.op_type == "JumpRelu")
    jump.attribute.append(onnx.helper.make_attribute("channel_block", 16))
    assert examine(retrofit).mismatches
    session = InferenceSession(retrofit.SerializeToString(), options(), CPU)
    assert session.retrofit.mode == "plain"
    assert session.retrofit.mismatch


def test_the_rows_of_a_saved_model_are_proved_independent(saved: Path) -> None:
    proof = prove_rows(onnx.load(saved))
    assert proof, proof.why


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a library that does not know the attribute: it reads one of another name."""
    folder = tmp_path / "older"
    folder.mkdir()
    contents = library_path("cpu").read_bytes()
    assert contents.count(b"\0channel_block\0") == 1
    (folder / "libjr_onnx_cpu.so").write_bytes(contents.replace(b"\0channel_block\0", b"\0channel_blocx\0"))
    monkeypatch.setenv("JR_ONNX_LIBRARIES", str(folder))
    return folder


def test_an_older_library_is_not_trusted_with_blocks(older: Path) -> None:
    model, sites = odd_channels()
    data = rewrite(model, kappas_of(sites))[0].SerializeToString()
    session = InferenceSession(data, options(), CPU)
    assert session.retrofit.mode == "plain"
    assert session.retrofit.reason.startswith(
        f"a site has a kappa per channel, and the op library {older / 'libjr_onnx_cpu.so'} is older than this package. "
        "Rebuild it"
    )
    assert_same_bits(session, InferenceSession(data, options(), CPU, retrofit="plain"), images())
    one = InferenceSession(rewrite(model, 1.0)[0].SerializeToString(), options(), CPU)
    assert one.retrofit.mode == "optimised", "one kappa a site needs nothing new"


def test_a_saved_model_is_refused_with_an_older_library(saved: Path, older: Path) -> None:
    with pytest.raises(OpLibraryError, match="is older than this package") as caught:
        InferenceSession(saved, options(), CPU)
    assert "Rebuild it" in caught.value.hint

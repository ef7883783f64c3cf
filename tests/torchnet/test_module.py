"""The module's face: sites, kappas, derivatives, randomness, clones, refusals at the door."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from jr_onnx.errors import DataError, InputError, KappaError
from jr_onnx.kappa import RandomKappa
from jr_onnx.rewriter import find_sites, rewrite
from jr_onnx.semantics import round_kappa
from jr_onnx.torchnet import OnnxModule, SiteBackward, check_parity, load
from jr_onnx.torchnet.settings import PassSettings, SiteSettings, random_range
from tests.torchnet.models import mlp, with_functions, with_if


@pytest.fixture
def net() -> OnnxModule:
    return load(mlp())


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def _grad(net: OnnxModule, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(net(x).square().sum(), x)
    return grad


@pytest.mark.parametrize("make", [mlp, with_functions, lambda: with_if("shape"), lambda: with_if("true")])
def test_sites_are_the_rewriters(make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    net = load(model)
    assert list(net.sites) == [site.id for site in find_sites(model).sites]
    assert set(net.kappas.values()) == {0.0}


@pytest.mark.parametrize("lowering", ["where", "thresholded", "custom"])
def test_retrofit_is_the_original_at_its_kappas(lowering: str, x: Tensor) -> None:
    retrofit, _ = rewrite(mlp(), kappa={"node1": 0.3, "node3": 0.7}, lowering=lowering)
    net, original = load(retrofit), load(mlp())
    assert net.kappas == {"node1": round_kappa(0.3, "float32"), "node3": round_kappa(0.7, "float32")}
    original.set_kappa(net.kappas)
    assert torch.equal(net(x), original(x))
    assert check_parity(original, retrofit, x).passed


def test_a_retrofit_with_a_kappa_per_channel_is_the_original_at_its_kappas(x: Tensor) -> None:
    original = load(mlp())
    seen: dict[str, int] = {}
    with original.observing(lambda site, z, _: seen.update({site: z.shape[1]})):
        original(x)
    wanted = {site: [round_kappa(0.1 * channel, "float32") for channel in range(seen[site])] for site in seen}
    retrofit, _ = rewrite(mlp(), kappa=wanted)
    net = load(retrofit)
    assert net.kappas == {site: tuple(values) for site, values in wanted.items()}
    original.set_kappa(wanted)
    assert torch.equal(net(x), original(x))
    assert check_parity(original, retrofit, x).passed
    net.set_backward(SiteBackward.smooth(5.0))
    assert not torch.equal(_grad(net, x), _grad(original, x))
    assert torch.equal(net(x, PassSettings(kappas=0.3)), _at(mlp(), 0.3)(x))


def test_kappas_of_another_number_of_channels_are_refused_by_the_site(net: OnnxModule, x: Tensor) -> None:
    with pytest.raises(KappaError, match="site 'node1': kappa has 2 values, one per channel, and the tensor has"):
        net(x, PassSettings(kappas={"node1": (0.1, 0.2)}))


def _at(model: onnx.ModelProto, kappa: float) -> OnnxModule:
    net = load(model)
    net.set_kappa(kappa)
    return net


@pytest.mark.parametrize("make", [with_functions, lambda: with_if("shape"), lambda: with_if("true")])
def test_sites_in_functions_and_branches_jump(make: Callable[[], onnx.ModelProto], x: Tensor) -> None:
    retrofit, _ = rewrite(make(), kappa=0.4)
    net = load(make())
    relu = net(x)
    net.set_kappa(0.4)
    assert not torch.equal(net(x), relu)
    report = check_parity(net, retrofit, x)
    assert [item.what for item in report.comparisons] == ["original at kappa 0", "retrofit"]


def test_function_site_is_seen_once_per_call(x: Tensor) -> None:
    net = load(with_functions())
    seen: list[str] = []
    with net.observing(lambda name, *_: seen.append(name)):
        net(x)
    assert seen == ["fn:pkg::act/y", "fn:pkg::act/y"]


def test_observer_sees_input_and_output_of_every_site(net: OnnxModule, x: Tensor) -> None:
    net.set_kappa(0.5)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    with net.observing(lambda name, z, y: seen.update({name: (z, y)})):
        net(x)
    assert list(seen) == list(net.sites)
    for z, y in seen.values():
        assert torch.equal(y, torch.where(z > 0.5, z.clamp(max=6.0), 0.0))
    net(x)
    assert len(seen) == 2


def test_kappa_is_set_for_all_for_some_and_back(net: OnnxModule) -> None:
    net.set_kappa(0.1)
    assert net.kappas == dict.fromkeys(net.sites, round_kappa(0.1, "float32"))
    net.set_kappa({"node3": 0.0})
    assert net.kappas == {"node1": round_kappa(0.1, "float32"), "node3": 0.0}
    net.set_kappa(None)
    assert net.kappas == {"node1": 0.0, "node3": 0.0}


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), {"node1": -0.5}, {"nowhere": 0.5}, {"node1": 0.5, "no": 1.0}])
def test_wrong_kappa_is_refused_and_changes_nothing(net: OnnxModule, wrong: float | dict[str, float]) -> None:
    with pytest.raises(KappaError):
        net.set_kappa(wrong)
    assert net.kappas == {"node1": 0.0, "node3": 0.0}


def test_forward_is_exact_whatever_the_backward(net: OnnxModule, x: Tensor) -> None:
    net.set_kappa(0.4)
    expected = net(x)
    for choice in (SiteBackward.straight_through(), SiteBackward.smooth(5.0), SiteBackward.exact()):
        net.set_backward(choice)
        assert torch.equal(net(x), expected)


def test_backward_of_the_network_follows_the_choice_of_each_site(net: OnnxModule, x: Tensor) -> None:
    """Compare with the chain rule written out by hand."""
    net.set_kappa(0.4)
    net.set_backward({"node1": SiteBackward.straight_through(), "node3": SiteBackward.smooth(2.0)})
    assert net.backwards == {"node1": SiteBackward.straight_through(), "node3": SiteBackward.smooth(2.0)}
    seen: list[Tensor] = []
    with net.observing(lambda _, z, *__: seen.append(z)):
        logits = net(x)
    weights = {item.name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy()) for item in mlp().graph.initializer}
    beta = 2.0 / 0.4
    s = torch.sigmoid(beta * (seen[1] - 0.4))
    second = (s + beta * seen[1] * s * (1 - s)) * (seen[1] < 6)
    inner = (2 * logits) @ weights["w3"].T * second
    expected = (inner @ weights["w2"].T * (seen[0] > 0)) @ weights["w1"].T
    # Both are the same float32 products; kappa is rounded once more here.
    torch.testing.assert_close(_grad(net, x), expected, rtol=1e-4, atol=1e-5)


def test_exact_straight_through_and_smooth_gradients_differ(net: OnnxModule, x: Tensor) -> None:
    net.set_kappa(0.4)
    grads = []
    for choice in (SiteBackward.exact(), SiteBackward.straight_through(), SiteBackward.smooth(5.0)):
        net.set_backward(choice)
        grads.append(_grad(net, x))
    assert not torch.equal(grads[0], grads[1])
    assert not torch.equal(grads[1], grads[2])
    net.set_kappa(0.0)
    for choice in (SiteBackward.exact(), SiteBackward.straight_through(), SiteBackward.smooth(5.0)):
        net.set_backward(choice)
        assert torch.equal(_grad(net, x), _grad(load(mlp()), x))


def test_backward_of_an_unknown_site_is_refused(net: OnnxModule) -> None:
    with pytest.raises(KappaError, match="no site 'elsewhere'"):
        net.set_backward({"elsewhere": SiteBackward.exact()})


def test_random_kappa_is_drawn_per_forward_within_its_range(net: OnnxModule, x: Tensor) -> None:
    fixed = {name: load(mlp()) for name in ("low", "high")}
    net.set_random(0.2, 0.8, "site", torch.Generator().manual_seed(1))
    outputs = [net(x) for _ in range(8)]
    assert any(not torch.equal(outputs[0], other) for other in outputs[1:])
    again = load(mlp())
    again.set_random(0.2, 0.8, "site", torch.Generator().manual_seed(1))
    assert all(torch.equal(again(x), output) for output in outputs)
    net.set_random(None)
    assert net.random is None
    assert torch.equal(net(x), fixed["low"](x))


@pytest.mark.parametrize(("per", "distinct"), [("network", 1), ("site", 2)])
def test_random_kappa_is_shared_or_drawn_per_site(net: OnnxModule, x: Tensor, per: str, distinct: int) -> None:
    settings = SiteSettings(tuple(net.sites.values()))
    settings.set_random(random_range(0.2, 0.8, per), torch.Generator().manual_seed(2))  # type: ignore[arg-type]
    drawn = settings.draw()
    assert len(set(drawn)) == distinct
    assert all(0.2 <= value <= 0.8 for value in drawn)
    net.set_random(0.2, 0.8, per, torch.Generator().manual_seed(2))  # type: ignore[arg-type]
    chosen = PassSettings(kappas=dict(zip(net.sites, drawn, strict=True)))
    assert torch.equal(net(x), load(mlp())(x, chosen)), "what is drawn is what a pass uses"


def test_a_call_s_settings_replace_the_module_s_for_that_call(net: OnnxModule, x: Tensor) -> None:
    net.set_kappa(0.4)
    own = net(x)
    other = load(mlp())
    other.set_kappa({"node1": 0.1, "node3": 0.4})
    assert torch.equal(net(x, PassSettings(kappas={"node1": 0.1})), other(x)), "a map leaves other sites as they are"
    assert torch.equal(net(x, PassSettings(kappas=0.0)), load(mlp())(x))
    assert net.kappas_with({"node1": 0.1}) == other.kappas
    assert torch.equal(net(x), own)
    slopes = {}
    for backward in (None, SiteBackward.exact(), SiteBackward.straight_through()):
        leaf = x.clone().requires_grad_()
        (slopes[backward],) = torch.autograd.grad(net(leaf, PassSettings(backward=backward)).sum(), leaf)
    assert torch.equal(slopes[None], slopes[SiteBackward.exact()])
    assert not torch.equal(slopes[None], slopes[SiteBackward.straight_through()])
    assert set(net.backwards.values()) == {SiteBackward.exact()}
    with pytest.raises(KappaError, match="the model has no site 'nowhere'"):
        net(x, PassSettings(kappas={"nowhere": 0.1}))


@pytest.mark.parametrize(("low", "high"), [(0.5, None), (0.5, 0.5), (-0.1, 0.5)])
def test_no_range_is_refused(net: OnnxModule, low: float, high: float | None) -> None:
    with pytest.raises(KappaError):
        net.set_random(low, high)


def test_random_retrofit_draws(x: Tensor) -> None:
    retrofit, _ = rewrite(mlp(), kappa=RandomKappa(0.2, 0.8))
    net = load(retrofit)
    assert net.random is not None
    assert (net.random.low, net.random.high) == (0.2, 0.8)
    assert net.kappas == dict.fromkeys(net.sites, 0.5)


def test_clone_shares_weights_and_nothing_else(net: OnnxModule, x: Tensor) -> None:
    net.set_kappa(0.4)
    twin = net.clone()
    pointers = {buffer.data_ptr() for buffer in net.buffers() if buffer.numel()}
    assert {buffer.data_ptr() for buffer in twin.buffers() if buffer.numel()} == pointers
    assert torch.equal(twin(x), net(x))
    twin.set_kappa(0.0)
    twin.set_backward(SiteBackward.smooth(2.0))
    assert set(net.kappas.values()) == {round_kappa(0.4, "float32")}
    assert set(net.backwards.values()) == {SiteBackward.exact()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precision_computes_the_same_to_its_precision(dtype: torch.dtype, x: Tensor) -> None:
    net, plain = load(mlp(), dtype=dtype), load(mlp())
    assert net.dtype == dtype
    assert net(x).dtype == dtype
    # Three layers of at most 16 terms of order one: a hundred roundings of the coarser type bound it amply.
    tolerance = 100 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    torch.testing.assert_close(net(x).float(), plain(x), rtol=tolerance, atol=tolerance)


def test_converting_a_loaded_module_is_refused(net: OnnxModule) -> None:
    with pytest.raises(InputError, match="dtype="):
        net.double()
    assert net.to("cpu").dtype == torch.float32


@pytest.mark.parametrize("shape", [(5, 7), (6,), (5, 6, 1)])
def test_wrong_shape_is_refused(net: OnnxModule, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"expects \[any, 6\]"):
        net(torch.zeros(shape))


def test_empty_batch_gives_no_logits(net: OnnxModule) -> None:
    assert net(torch.zeros(0, 6)).shape == (0, 3)


def test_what_the_module_tells(net: OnnxModule) -> None:
    assert net.input_names == ("x",)
    assert net.input_shape == (None, 6)
    assert (net.output_name, net.logits_name, net.tail) == ("logits", "logits", ())
    assert net.num_classes == 3
    assert net.static_batch is None
    assert net.notes == ()
    assert net.device == torch.device("cpu")
    assert net.sites["node3"].cap == 6.0
    assert not net.training


def test_shared_weights_are_held_once() -> None:
    model = mlp()
    model.graph.node[4].input[1] = "w3"
    twice = onnx.helper.make_node("Gemm", ["a2", "w3", "b3"], ["other"])
    both = onnx.helper.make_node("Add", ["logits_once", "other"], ["logits"])
    model.graph.node[4].output[0] = "logits_once"
    model.graph.node.extend([twice, both])
    net = load(model)
    sizes = [buffer.numel() for buffer in net.buffers()]
    assert sizes.count(12 * 3) == 1


def test_own_jump_is_kept_and_its_derivative_replaceable(x: Tensor) -> None:
    model = mlp()
    model.graph.node[1].op_type = "ThresholdedRelu"
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("alpha", 0.4))
    net = load(model)
    assert list(net.jumps) == ["node1"]
    assert "node1" not in net.sites
    before = net(x)
    exact = _grad(net, x)
    net.set_backward(SiteBackward.straight_through())
    assert torch.equal(net(x), before)
    assert not torch.equal(_grad(net, x), exact)
    net.set_kappa(0.0)
    assert torch.equal(net(x), before)
    net.set_kappa({"node1": 0.0})
    assert torch.equal(net(x), load(mlp())(x))
    assert check_parity(load(model), model, np.asarray(x)).passed

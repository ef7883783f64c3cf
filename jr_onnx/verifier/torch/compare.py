"""Verify a user's own torch network against its ONNX export and the export's retrofits.

    torch network              vs.  ONNX Runtime on the original                       at kappa 0
    torch network, ReLU := J   vs.  ONNX Runtime on the retrofit, or on every lowering  at the retrofit's kappas

So the chain from the network that was trained to the file that is served is closed, without trusting an exporter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx
import torch
from torch import Tensor

from jr_onnx.element_types import Array
from jr_onnx.errors import InputError, VerificationError
from jr_onnx.kappa import Kappa, KappaPlan
from jr_onnx.modelfile import from_proto
from jr_onnx.provenance import Provenance
from jr_onnx.records import Record
from jr_onnx.rewriter import find_sites
from jr_onnx.rewriter.lowering import RequestedLowering
from jr_onnx.rewriter.pair import EXPLICIT_LOWERINGS, in_every_lowering, kappa_not_wanted
from jr_onnx.runtime.providers import CUDA, require_providers
from jr_onnx.semantics import one_kappa
from jr_onnx.torchnet.comparison import Comparison, Pair
from jr_onnx.torchnet.parity import draws_inside, original_of
from jr_onnx.torchnet.runtime import Reference
from jr_onnx.torchnet.source import Source, image_input, logit_candidates, read
from jr_onnx.verifier.evaluators.device import Device, on_device, providers
from jr_onnx.verifier.torch.network import TorchNetwork, load_network, random_inputs

_SAMPLES = 32
_Named = tuple[str, str | Path | onnx.ModelProto, Provenance]
_BATCH = 32
_Jumps = tuple[str, str | Path | onnx.ModelProto, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class TorchReport(Record):
    """What the comparison of a torch network with its export found.

    Attributes:
        model: File name of the ONNX model.
        network: The network, as module:factory.
        weights: File name of the weights, "" for those the factory made.
        relu_calls: How many ReLUs one pass of the network has.
        sites: How many sites the export has.
        comparisons: One at kappa 0, then one per retrofit.
        notes: What was not compared, and why.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.verify_torch/1"
    model: str
    network: str
    weights: str
    relu_calls: int
    sites: int
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all comparisons passed."""
        return all(item.passed for item in self.comparisons)


def verify_torch(
    network: str,
    weights: str | Path | None,
    model: str | Path,
    inputs: Array | Tensor | None = None,
    *,
    kappa: Kappa | None = None,
    lowerings: Sequence[RequestedLowering] = EXPLICIT_LOWERINGS,
    output: str | None = None,
    seed: int = 0,
    raise_on_failure: bool = True,
    provider: Device = "cpu",
    allow_fallback: bool = False,
) -> TorchReport:
    """Compare a torch network with its ONNX export and with retrofits of it.

    Args:
        network: The network as `module:factory`; see `torch_network.load_network`.
        weights: Its state dict, or None.
        model: The export, or a retrofit of it, which is then verified at its own kappas.
        inputs: Real inputs, (N, ...); None for random ones.
        kappa: Retrofit an original export in memory with this kappa and verify that; None to stay at kappa 0.
        lowerings: The lowerings to do that with.
        output: Which output of the model the network's is; None for the one of its shape.
        seed: Seed of the random inputs.
        raise_on_failure: Raise instead of returning a failed report.
        provider: Where both compute: on CUDA first with TF32 off, then with TF32 on.
        allow_fallback: Let torch compute on the CPU where it has no CUDA, and say so in the notes.

    Raises:
        InputError: The network, its weights or the inputs cannot be used, or torch or ONNX Runtime has no CUDA.
        KappaError: A retrofit has a kappa per channel.
        ModelError: The file is not a usable model.
        VerificationError: A comparison failed.
    """
    source = read(model)
    entry = image_input(source.model, None)
    data = torch.as_tensor(random_inputs(entry.shape[1:], _SAMPLES, seed) if inputs is None else inputs)
    if data.shape[0] == 0:
        raise InputError("the verification needs at least one input, found none")
    if source.provenance is not None and kappa is not None:
        raise kappa_not_wanted(Path(model).name)
    device, notes = _torch_device(provider, allow_fallback=allow_fallback)
    data = data.to(device)
    module = load_network(network, None if weights is None else Path(weights)).to(device)
    ids = [site.id for site in find_sites(source.model).sites]
    calls = TorchNetwork(module, ()).calls(data[:1])
    retrofits, left_out = _retrofits(source, model, kappa, lowerings)
    chosen = _output_of(source, TorchNetwork(module, ()), data[:2], output)
    names = _names_of_calls(ids, calls, [record for *_, record in retrofits])
    jumps = [(what, proto, _kappas_of_calls(names, ids, record)) for what, proto, record in retrofits]
    comparisons = []
    with on_device(provider):
        for tf32 in (False, True) if device.type == "cuda" else (False,):
            own = TorchNetwork(module, names, tf32=tf32)
            pair = Pair(own, own, TorchNetwork(module, names, torch.float64), _BATCH)
            comparisons += _compare(pair, names, original_of(source), jumps, chosen, data, tf32=tf32)
    report = TorchReport(
        Path(model).name,
        network,
        "" if weights is None else Path(weights).name,
        calls,
        len(ids),
        tuple(comparisons),
        (*notes, *left_out),
    )
    if raise_on_failure and not report.passed:
        _raise(report)
    return report


def _torch_device(provider: Device, *, allow_fallback: bool) -> tuple[torch.device, list[str]]:
    """Return where torch computes, and what to note of it.

    Raises:
        InputError: It is to compute on CUDA, which ONNX Runtime or torch does not have here.
    """
    if provider == "cpu":
        return torch.device("cpu"), []
    require_providers([CUDA])
    if torch.cuda.is_available():
        return torch.device("cuda"), []
    if not allow_fallback:
        raise InputError(
            f"torch {torch.__version__} has no CUDA device here, so the network cannot be compared on CUDA",
            hint="Install torch with CUDA, or give --allow-fallback to compute the network on the CPU",
        )
    return torch.device("cpu"), ["torch has no CUDA device here: the network ran on the CPU, ONNX Runtime on CUDA"]


def _compare(
    pair: Pair,
    names: Sequence[str],
    original: str | Path | onnx.ModelProto,
    jumps: Sequence[_Jumps],
    output: str,
    data: Tensor,
    *,
    tf32: bool,
) -> list[Comparison]:
    """Compare at kappa 0 and at the kappas of every retrofit, all on one device and in one precision."""
    suffix = ", TF32" if tf32 else ""
    places = providers(tf32=tf32)
    pair.set_kappas(dict.fromkeys(names, 0.0))
    reference = Reference(original, output, providers=places)
    found = [pair.compare(f"original at kappa 0{suffix}", reference, data, None)]
    rounding = pair.rounding_at_sites(data) if jumps else {}
    for what, proto, kappas in jumps:
        pair.set_kappas(kappas)
        found.append(pair.compare(f"{what}{suffix}", Reference(proto, output, providers=places), data, rounding))
    return found


def _output_of(source: Source, network: TorchNetwork, data: Tensor, output: str | None) -> str:
    """Return the output that the network's result is compared with: the only one of its shape.

    Raises:
        InputError: Several have it.
    """
    names = logit_candidates(source.model, output)
    if len(names) == 1:
        return names[0]
    wanted, original = network.logits(data).shape, original_of(source)
    fitting = [name for name in names if Reference(original, name)(data.cpu().numpy()).shape == wanted]
    if len(fitting) > 1:
        raise InputError(
            f"the outputs {', '.join(map(repr, fitting))} have the shape {list(wanted)} of the network's result",
            hint="Name the one to compare with (--logits)",
        )
    return fitting[0] if fitting else names[0]


def _names_of_calls(ids: list[str], calls: int, records: Sequence[Provenance]) -> list[str]:
    """Name the network's ReLU calls: by the export's sites where there are as many, else by number.

    Raises:
        VerificationError: The numbers and the kappas differ, so it is unknown which call has which kappa.
    """
    if calls == len(ids):
        return ids
    if any(len({site.kappa for site in record.sites}) > 1 or len(record.sites) != len(ids) for record in records):
        raise VerificationError(
            f"the network has {calls} ReLU calls and the export {len(ids)} sites, so it is not known which call has "
            "which kappa",
            hint="Verify a retrofit with one kappa for all sites",
        )
    return [f"call {number}" for number in range(calls)]


def _kappas_of_calls(names: list[str], ids: list[str], record: Provenance) -> dict[str, float]:
    """Return the kappa of every call of the network."""
    kappas = {site.id: one_kappa(site.kappa, site.id, "a torch network") for site in record.sites}
    if names == ids:
        return dict.fromkeys(ids, 0.0) | kappas
    return dict.fromkeys(names, kappas[record.sites[0].id])


def _retrofits(
    source: Source, model: str | Path, kappa: Kappa | None, lowerings: Sequence[RequestedLowering]
) -> tuple[list[_Named], list[str]]:
    """Return the retrofits to compare: the file itself, or one per lowering; and what is left out, with the reason."""
    if source.provenance is not None:
        if draws_inside(source):
            return [], ["the retrofit draws kappa inside the graph, so only the original was compared"]
        return [("retrofit", model, source.provenance)], []
    if kappa is None:
        return [], []
    made, refused = in_every_lowering(from_proto(source.model), KappaPlan.of(kappa), lowerings)
    found: list[_Named] = [(f"retrofit ({lowering})", done.model, done.record) for lowering, done in made.items()]
    notes = [f"the lowering {lowering} was not compared: {error.message}" for lowering, error in refused.items()]
    return found, notes


def _raise(report: TorchReport) -> None:
    worst = max(report.comparisons, key=lambda item: item.worst_ratio)
    if worst is report.comparisons[0]:
        hint = "Check that the weights, the preprocessing and the chosen output are those of the export"
    else:
        hint = "The original agrees, so a ReLU of the network and a site of the export are not the same"
    raise VerificationError(f"the network {report.network} and {report.model} disagree on {worst}", hint=hint)

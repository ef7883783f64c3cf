"""The gate before any attack: the torch module computes what ONNX Runtime computes on the file.

The module is compared twice: at kappa 0 with the original, where rounding is all that may differ, and at the file's
kappas with the retrofit, where a pre-activation may fall on either side of the jump. `comparison` derives the bounds.

A quantised model has no such bound: an element half-way between two steps of a quantiser becomes either, in torch and
in ONNX Runtime, and the logits then differ by what a step does. Such a module is taken if it agrees in decisions: the
largest logit is the same for all but `DECISIONS` of the images. Its gradients are those of a straight-through twin, so
whatever is found with them counts only as replayed in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import onnx
import torch
from torch import Tensor

from jr_onnx.element_types import Array
from jr_onnx.errors import DataError, ModelError, VerificationError
from jr_onnx.quantised import is_quantised
from jr_onnx.records import Record
from jr_onnx.semantics import SiteKappa
from jr_onnx.torchnet.comparison import Comparison, Floats, Pair
from jr_onnx.torchnet.loading import load
from jr_onnx.torchnet.mean_draws import with_mean_draws
from jr_onnx.torchnet.module import OnnxModule
from jr_onnx.torchnet.precision import full_precision
from jr_onnx.torchnet.runtime import Reference
from jr_onnx.torchnet.source import Readable, Source, read

_BATCH = 64
DECISIONS = 0.02
"""Share of clean images on which the twin of a quantised model may decide otherwise: one of 64."""


@dataclass(frozen=True, slots=True)
class ParityReport(Record):
    """The gate's result.

    Attributes:
        model: File name, "" for a model in memory.
        comparisons: The original at kappa 0, then the retrofit where the file is one.
        notes: The module's notes, and what could not be compared.
        quantised: Whether the model is quantised, so that agreement in decisions is enough.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.torch_parity/1"
    model: str
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    quantised: bool = False

    @property
    def passed(self) -> bool:
        """Whether the module can be trusted: within rounding everywhere, or in its decisions where it is quantised."""
        return all(item.passed for item in self.comparisons) or self.by_decisions

    @property
    def by_decisions(self) -> bool:
        """Whether it is trusted for its decisions alone."""
        within = all(item.passed for item in self.comparisons)
        agree = all(item.disagreements <= DECISIONS * item.samples for item in self.comparisons)
        return self.quantised and not within and agree

    @property
    def max_abs_error(self) -> float:
        """Largest difference of a logit in any comparison."""
        return max(item.max_abs_error for item in self.comparisons)


def check_parity(
    net: OnnxModule,
    model: Readable,
    inputs: Array | Tensor,
    *,
    batch: int = _BATCH,
    raise_on_failure: bool = True,
) -> ParityReport:
    """Compare a module with ONNX Runtime on the file it came from (or on a retrofit of it).

    The module itself is not changed: a clone is compared, with the file's kappas.

    Args:
        net: The module.
        model: The file that is served, its proto, or what `torchnet.source.read` made of one.
        inputs: Real inputs, (N, ...), as the model takes them.
        batch: How many are evaluated at a time.
        raise_on_failure: Raise instead of returning a failed report.

    Raises:
        VerificationError: A sample differs by more than rounding explains.
        ModelError: The file has other sites than the module, or ONNX Runtime refuses it.
        DataError: There are no inputs.
    """
    data = torch.as_tensor(inputs)
    if data.shape[0] == 0:
        raise DataError("parity needs at least one input, found none")
    source = read(model)
    plain, exact = (_again(net, source, dtype) for dtype in (net.dtype_override, torch.float64))
    # Logits inside a function have no name to ask ONNX Runtime for: the output is compared, by the same program.
    own = net.clone() if net.logits_name else plain.clone()
    pair = Pair(_Net(own), _Net(plain), _Net(exact), batch)
    for one in (own, plain, exact):
        one.use_mean_draws()  # a model that draws is compared where it does not
    pair.set_kappas(dict.fromkeys(net.sites, 0.0))
    output = net.logits_name or net.output_name
    original, served = original_of(source), source.given
    if net.draws:
        original, served = with_mean_draws(original), with_mean_draws(served)
    comparisons = [pair.compare("original at kappa 0", Reference(original, output, net.values), data, None)]
    notes = list(net.notes)
    record = source.provenance
    if record is not None and draws_inside(source):
        notes.append("the retrofit draws kappa inside the graph, so only the original was compared")
    elif record is not None:
        rounding = pair.rounding_at_sites(data)
        pair.set_kappas(dict.fromkeys(net.sites, 0.0) | {site.id: site.kappa for site in record.sites})
        comparisons.append(pair.compare("retrofit", Reference(served, output, net.values), data, rounding))
    name = "" if isinstance(source.given, onnx.ModelProto) else Path(source.given).name
    report = ParityReport(name, tuple(comparisons), tuple(notes), is_quantised(source.model))
    if report.by_decisions:
        worst = max(report.comparisons, key=lambda item: item.disagreements)
        same = worst.samples - worst.disagreements
        notes.append(
            f"the model is quantised: its torch twin decides as ONNX Runtime for {same} of {worst.samples} images, and "
            f"logits differ by up to {report.max_abs_error:.2g}, by steps of quantisers; replays in ONNX Runtime count"
        )
        report = replace(report, notes=tuple(notes))
    if raise_on_failure and not report.passed:
        worst = max(report.comparisons, key=lambda item: item.worst_ratio)
        raise VerificationError(
            f"torch and ONNX Runtime disagree on {worst}",
            hint="Its torch evaluation cannot be trusted; use the black-box attacks (--black-box) and report the model",
        )
    return report


def _again(net: OnnxModule, source: Source, dtype: torch.dtype | None) -> OnnxModule:
    """Load the model as the module was loaded, but in another precision."""
    found = load(
        source,
        device=net.device,
        dtype=dtype,
        output=net.logits_name or net.output_name,
        logits_from="output",
        input_shape=net.input_shape,
        values=net.values,
    )
    if list(found.sites) != list(net.sites):
        raise ModelError("the file has other sites than the module that is compared with it")
    return found


def original_of(source: Source) -> str | Path | onnx.ModelProto:
    """Return the original in a form that ONNX Runtime opens: the file itself, or the restored proto with its data."""
    return source.given if source.provenance is None else source.model


def draws_inside(source: Source) -> bool:
    """Return whether a retrofit draws its kappa where no caller can set it."""
    record = source.provenance
    return record is not None and record.plan.random is not None and record.plan.input_name is None


class _Net:
    """An OnnxModule as the comparison sees it."""

    def __init__(self, net: OnnxModule) -> None:
        net.set_random(None)
        self._net = net

    @property
    def eps(self) -> float:
        """See `Evaluated`."""
        return float(torch.finfo(self._net.dtype).eps)

    def set_kappas(self, kappas: Mapping[str, SiteKappa]) -> None:
        """See `Evaluated`."""
        self._net.set_kappa_unrounded(kappas)

    def logits(self, part: Tensor) -> Floats:
        """See `Evaluated`."""
        with torch.no_grad(), full_precision(self._net.device):
            result: Floats = self._net.scores(part.to(self._net.device)).double().cpu().numpy()
        return result

    def site_inputs(self, part: Tensor) -> dict[str, list[Tensor]]:
        """See `Evaluated`."""
        seen: dict[str, list[Tensor]] = {}

        def note(name: str, z: Tensor, _: Tensor) -> None:
            seen.setdefault(name, []).append(z)

        with torch.no_grad(), full_precision(self._net.device), self._net.observing(note):
            self._net(part.to(self._net.device))
        return seen

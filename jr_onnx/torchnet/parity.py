"""The gate before any attack: the torch module computes what ONNX Runtime computes on the file.

How large a difference is rounding, and how large an error? The module is evaluated in double precision too. The
distance E between its own result and that one is the rounding error of *one* order of summation; ONNX Runtime's, of
the same arithmetic in another order, is of the same size. So the two may differ by E plus that other error, for which
`_OTHERS` times E is granted: the largest errors of a sample set differ between two orders by a small factor, while a
wrong attribute or weight changes leading digits. `_FLOOR` units in the last place of the largest logit are granted
on top, for models whose E happens to be 0.

JumpReLU is discontinuous: a pre-activation within rounding of kappa may fall on either side, and the logits then
differ by more. So the module is compared twice: at kappa 0 with the original, where the bound is tight, and at the
file's kappas with the retrofit, where a sample's bound is widened by what its logits change when the kappas of all
sites move by the rounding error measured at their inputs. The report counts the samples that needed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from jr_onnx.errors import DataError, ModelError, VerificationError
from jr_onnx.records import Record
from jr_onnx.torchnet.loading import load
from jr_onnx.torchnet.module import OnnxModule
from jr_onnx.torchnet.runtime import Reference
from jr_onnx.torchnet.source import read

Array = npt.NDArray[Any]
_OTHERS = 8.0
_FLOOR = 16.0
_PATTERNS = 4
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Comparison(Record):
    """One comparison of the module with ONNX Runtime.

    Attributes:
        what: "original at kappa 0" or "retrofit".
        samples: How many were compared.
        max_abs_error: Largest difference of a logit.
        bound: What rounding explains, for samples away from every jump.
        worst_sample: Index of the sample that comes nearest to its own bound or exceeds it most.
        worst_ratio: Its difference over its bound; above 1 is a failure.
        disagreements: Samples whose largest logit is another one.
        near_jump: Samples that differ by more than `bound`, explained by pre-activations within rounding of kappa.
        passed: Whether every sample is within its bound.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.torch_comparison/1"
    what: str
    samples: int
    max_abs_error: float
    bound: float
    worst_sample: int
    worst_ratio: float
    disagreements: int
    near_jump: int
    passed: bool


@dataclass(frozen=True, slots=True)
class ParityReport(Record):
    """The gate's result.

    Attributes:
        model: File name, "" for a model in memory.
        comparisons: The original at kappa 0, then the retrofit where the file is one.
        notes: The module's notes, and what could not be compared.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.torch_parity/1"
    model: str
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all comparisons passed."""
        return all(item.passed for item in self.comparisons)

    @property
    def max_abs_error(self) -> float:
        """Largest difference of a logit in any comparison."""
        return max(item.max_abs_error for item in self.comparisons)


def check_parity(
    net: OnnxModule,
    model: str | Path | onnx.ModelProto,
    inputs: Array | Tensor,
    *,
    batch: int = _BATCH,
    raise_on_failure: bool = True,
) -> ParityReport:
    """Compare a module with ONNX Runtime on the file it came from (or on a retrofit of it).

    The module itself is not changed: a clone is compared, with the file's kappas.

    Args:
        net: The module.
        model: The file that is served, or its proto.
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
    output = net.logits_name or net.output_name
    logits_from = "pre_softmax" if net.softmax else "output"
    exact = load(
        model,
        device=net.device,
        dtype=torch.float64,
        output=net.output_name,
        logits_from=logits_from,  # type: ignore[arg-type]
        input_shape=net.input_shape,
    )
    if list(exact.sites) != list(net.sites):
        raise ModelError("the file has other sites than the module that is compared with it")
    pair = _Pair(net.clone(), exact, batch)
    original: str | Path | onnx.ModelProto = model
    if source.provenance is not None:
        original = _with_folder(source.model, source.base_dir)
    pair.set_kappas(dict.fromkeys(net.sites, 0.0))
    comparisons = [pair.compare("original at kappa 0", Reference(original, output), data, None)]
    notes = list(net.notes)
    record = source.provenance
    if record is not None:
        if record.plan.random is not None and record.plan.input_name is None:
            notes.append("the retrofit draws kappa inside the graph, so only the original was compared")
        else:
            slack = pair.rounding_at_sites(data)
            pair.set_kappas({site.id: site.kappa for site in record.sites})
            comparisons.append(pair.compare("retrofit", Reference(model, output), data, slack))
    name = "" if isinstance(model, onnx.ModelProto) else Path(model).name
    report = ParityReport(name, tuple(comparisons), tuple(notes))
    if raise_on_failure and not report.passed:
        _raise(report)
    return report


def _with_folder(model: onnx.ModelProto, base_dir: str) -> onnx.ModelProto:
    """Bring a proto's external data into it, so that ONNX Runtime finds them without a file beside it."""
    if base_dir:
        onnx.load_external_data_for_model(model, base_dir)
    return model


def _raise(report: ParityReport) -> None:
    worst = max(report.comparisons, key=lambda item: item.worst_ratio)
    raise VerificationError(
        f"torch and ONNX Runtime disagree on sample {worst.worst_sample} ({worst.what}): the difference is "
        f"{worst.worst_ratio:.3g} times what rounding explains, {worst.bound:.3g} (largest anywhere "
        f"{worst.max_abs_error:.3g}; {worst.disagreements} of {worst.samples} predictions differ)",
        hint="The torch evaluation of this model cannot be trusted; use the black-box attacks and report the model",
    )


def _difference(mine: Array, theirs: Array) -> Array:
    """Return the largest difference per sample; equal infinities and NaNs at the same places do not differ."""
    with np.errstate(invalid="ignore"):
        gap = np.where((mine == theirs) | (np.isnan(mine) & np.isnan(theirs)), 0.0, np.abs(mine - theirs))
    gap[np.isnan(gap)] = np.inf
    largest: Array = gap.max(axis=1, initial=0.0)
    return largest


def _site_inputs(net: OnnxModule, part: Tensor) -> dict[str, list[Tensor]]:
    """Return what goes into every site; a site in a function called several times has several."""
    seen: dict[str, list[Tensor]] = {}

    def note(name: str, z: Tensor, _: Tensor) -> None:
        seen.setdefault(name, []).append(z)

    with torch.no_grad(), net.observing(note):
        net(part.to(net.device))
    return seen


def _largest_gaps(one: dict[str, list[Tensor]], other: dict[str, list[Tensor]]) -> dict[str, float]:
    """Return per site the largest difference of what went into it."""
    return {
        name: max(
            (
                (mine.double() - reference).abs().max().item()
                for mine, reference in zip(one[name], tensors, strict=True)
            ),
            default=0.0,
        )
        for name, tensors in other.items()
    }


class _Pair:
    """The module and its double-precision twin, always at the same kappas."""

    def __init__(self, net: OnnxModule, exact: OnnxModule, batch: int) -> None:
        self._net = net
        self._exact = exact
        self._batch = max(1, batch)
        for module in (net, exact):
            module.set_random(None)

    def set_kappas(self, kappas: dict[str, float]) -> None:
        """Set the kappas of both."""
        self._net.set_kappa(kappas)
        self._exact.set_kappa(kappas)

    def rounding_at_sites(self, data: Tensor) -> dict[str, float]:
        """Return per site the largest rounding error of a pre-activation, measured where nothing jumps."""
        largest: dict[str, float] = dict.fromkeys(self._net.sites, 0.0)
        for part in torch.split(data, self._batch):
            own, exact = _site_inputs(self._net, part), _site_inputs(self._exact, part)
            for name, error in _largest_gaps(own, exact).items():
                largest[name] = max(largest.get(name, 0.0), error)
        return largest

    def compare(self, what: str, reference: Reference, data: Tensor, slack: dict[str, float] | None) -> Comparison:
        """Compare all samples; `slack` is the rounding error at the sites, None at kappa 0."""
        mine, exact, theirs = [], [], []
        for part in torch.split(data, self._batch):
            mine.append(self._logits(self._net, part))
            exact.append(self._logits(self._exact, part))
            theirs.append(self._aligned(reference(part.cpu().numpy()).astype(np.float64)))
        a, e, b = np.concatenate(mine), np.concatenate(exact), np.concatenate(theirs)
        own = np.abs(a - e).max(axis=1, initial=0.0)
        wide = (
            np.zeros(len(a))
            if slack is None
            else np.concatenate([self._jump_effect(part, slack) for part in torch.split(data, self._batch)])
        )
        # Rounding is measured on the samples whose own two precisions agree about every jump.
        calm = own[wide <= np.median(wide)]
        eps = float(torch.finfo(self._net.dtype).eps)
        bound = (1 + _OTHERS) * float(calm.max(initial=0.0)) + _FLOOR * eps * float(np.abs(e).max(initial=0.0))
        difference = _difference(a, b)
        limits = bound + 2 * wide
        ratio = difference / np.maximum(limits, np.finfo(np.float64).tiny)
        worst = int(ratio.argmax())
        return Comparison(
            what=what,
            samples=len(a),
            max_abs_error=float(difference.max(initial=0.0)),
            bound=bound,
            worst_sample=worst,
            worst_ratio=float(ratio[worst]),
            disagreements=int((a.argmax(axis=1) != b.argmax(axis=1)).sum()),
            near_jump=int(((difference > bound) & (difference <= limits)).sum()),
            passed=bool((difference <= limits).all()),
        )

    def _jump_effect(self, part: Tensor, slack: dict[str, float]) -> Array:
        """Return per sample how much its logits change when kappas move by the rounding error at their sites."""
        kappas = self._exact.kappas
        generator = np.random.default_rng(0)
        base = self._logits(self._exact, part)
        largest = np.zeros(len(base))
        patterns: Sequence[Array] = [np.ones(len(kappas)), -np.ones(len(kappas))]
        patterns = [*patterns, *(generator.choice([-1.0, 1.0], len(kappas)) for _ in range(_PATTERNS))]
        moved = self._exact.clone()
        for signs in patterns:
            shifted = {
                name: max(0.0, kappa + sign * (1 + _OTHERS) * slack[name])
                for (name, kappa), sign in zip(kappas.items(), signs, strict=True)
                if kappa > 0
            }
            moved.set_kappa_unrounded(shifted)
            largest = np.maximum(largest, np.abs(self._logits(moved, part) - base).max(axis=1, initial=0.0))
        return largest

    def _logits(self, module: OnnxModule, part: Tensor) -> Array:
        with torch.no_grad():
            logits = module(part.to(module.device)).double()
            if module.softmax and not module.logits_name:
                logits = logits.softmax(1) if module.softmax == "Softmax" else logits.log_softmax(1)
            result: Array = logits.cpu().numpy()
        return result

    def _aligned(self, values: Array) -> Array:
        if values.shape[1] != self._net.num_classes:
            raise ModelError(f"ONNX Runtime gives {values.shape[1]} logits, the module {self._net.num_classes}")
        return values


__all__ = ["Comparison", "ParityReport", "check_parity"]

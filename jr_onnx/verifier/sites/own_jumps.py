"""The jumps that an original has itself, each alone: its nodes against NumPy's J with the thresholds that were fused.

Compared bit for bit on the values that sites are tried with. Where the way in which a model writes its jump differs
from J, which docs/fuse.md lists, the values are counted and named in the report: zeros with another sign, and NaN where
J gives 0, of NaN and of -inf. Any other difference fails.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from jr_onnx.element_types import NUMBERS, Array
from jr_onnx.errors import VerificationError
from jr_onnx.modelfile import ModelFile, copied, from_proto
from jr_onnx.provenance import Provenance, SiteRecord
from jr_onnx.rewriter.scopes import Scope
from jr_onnx.rewriter.sites import Findings, LocatedSite, locate
from jr_onnx.semantics import jump_relu
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError
from jr_onnx.verifier.evaluators.ort import OrtSession, Runnable
from jr_onnx.verifier.evaluators.reference import OnnxEvaluator
from jr_onnx.verifier.report import Check, Failure, Verdict
from jr_onnx.verifier.sites.probe import OPERAND, RESULT, renamed
from jr_onnx.verifier.sites.values import channel_values, probe_values

_WHAT = "jumps of the original"
_RANDOM_VALUES = 4096
_RANK = 6  # of the values for one threshold, which may be a tensor of as many axes with one element


@dataclass
class _Tally:
    sites: int = 0
    values: int = 0
    signs: int = 0
    nans: int = 0

    @property
    def words(self) -> str:
        """What was seen, for people."""
        seen = f"{self.sites} site{'s' if self.sites != 1 else ''}, bit for bit"
        nans = f"{self.nans} NaN of NaN and -inf, of which J makes 0" if self.nans else ""
        signs = f"{self.signs} zero{'s' if self.signs != 1 else ''} with another sign" if self.signs else ""
        return f"{seen} except {' and '.join(filter(None, (nans, signs)))}" if nans or signs else seen


def check_own_jumps(original: ModelFile, record: Provenance, seed: int) -> tuple[list[Check], list[Failure]]:
    """Try the nodes that every fused jump had in the original.

    Args:
        original: The model before.
        record: The provenance of the fused model.
        seed: Seed of the random values.
    """
    findings = locate(original.proto, original.folder, payloads=original.payloads)
    located = {item.site.id: item for item in findings.located}
    tally = _Tally()
    checks: list[Check] = []
    failures: list[Failure] = []
    for site in record.sites:
        try:
            failure = _try(original, findings, located[site.id], site, tally, seed)
        except (KeyError, VerificationError, CannotLoadError, CannotRunError) as error:
            checks.append(Check(_WHAT, "NumPy's J", 0, 0.0, None, 0, "not run", f"site {site.id}: {error}"))
            continue
        failures.extend([failure] if failure is not None else [])
    if tally.sites:
        verdict: Verdict = "failed" if failures else "passed"
        size = float("inf") if failures else 0.0
        compared = "the original's own nodes with NumPy's J"
        checks.append(Check(_WHAT, compared, tally.values, size, None, 0, verdict, tally.words))
    return checks, failures


def _try(
    original: ModelFile, findings: Findings, item: LocatedSite, site: SiteRecord, tally: _Tally, seed: int
) -> Failure | None:
    jump = item.match.jump
    if jump is None:
        raise VerificationError("it is not a jump of the original")
    generator = np.random.default_rng(seed)
    kappas = site.kappa if isinstance(site.kappa, tuple) else (site.kappa,) * jump.count
    if jump.count > 1:
        z = channel_values(site.dtype, kappas, None, jump.rank, _RANDOM_VALUES, generator)
    else:
        z = probe_values(site.dtype, [kappas[0]], _RANDOM_VALUES, generator).reshape((-1, *(1,) * (_RANK - 1)))
    model = _alone(original, findings, item, site)
    try:
        found = np.asarray(OrtSession(Runnable(f"site {site.id}", from_proto(model)), "plain").run({OPERAND: z})[0])
    except (CannotLoadError, CannotRunError):  # bfloat16, say, of which ONNX Runtime's CPU provider has few kernels
        found = np.asarray(OnnxEvaluator(model).run({OPERAND: z})[0])
    z = np.broadcast_to(z, found.shape)  # thresholds may be a tensor of equal ones, or have more axes
    expected = jump_relu(z, kappas if jump.count > 1 else kappas[0], rank=jump.rank)
    wrong, signs, nans = _differences(z, found, expected)
    tally.sites += 1
    tally.values += z.size
    tally.signs += int(signs.sum())
    tally.nans += int(nans.sum())
    if not wrong.any():
        return None
    place = int(np.flatnonzero(wrong.reshape(-1))[0])
    given, one, other = (f"{float(array.reshape(-1)[place])!r}" for array in (z, expected, found))
    return Failure(_WHAT, site.id, f"z = {given}", one, other, "J with the recorded kappa is not this jump")


def _differences(z: Array, found: Array, expected: Array) -> tuple[Array, Array, Array]:
    """Return where a result is wrong, where only the sign of a zero differs, and where NaN is as documented."""
    with np.errstate(invalid="ignore"):
        same = (found == expected) & (np.signbit(found) == np.signbit(expected))
        signs = (found == expected) & (expected == 0) & ~same
        nans = np.isnan(found) & (np.isnan(z) | np.isneginf(z.astype(np.float64)))
    return ~(same | signs | nans), signs, nans


def _alone(original: ModelFile, findings: Findings, item: LocatedSite, site: SiteRecord) -> onnx.ModelProto:
    """Return a model of the nodes between the pre-activation and the result of a jump.

    Raises:
        VerificationError: They depend on something else than the pre-activation and constants.
    """
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()

    def add(scope: Scope, name: str) -> None:
        if not name or name in done or name == item.match.operand:
            return
        done.add(name)
        found = findings.thresholds.constants.definition(scope, name)
        holder, source = found if isinstance(found, tuple) else (scope, None)
        if isinstance(source, onnx.TensorProto) or source is None:
            value = findings.thresholds.read(scope, name)
            if isinstance(value, str):
                raise VerificationError(f"it reads {name!r}: {value}")
            nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name)))
            return
        if any(attribute.ref_attr_name for attribute in source.attribute):
            raise VerificationError(f"it reads {name!r}, which depends on an attribute of a function")
        for needed in source.input:
            add(holder, needed)
        done.update(source.output)
        nodes.append(_whole(source, findings, holder))

    add(item.scope, site.output)
    names = {item.match.operand: OPERAND, site.output: RESULT}
    element = NUMBERS[site.dtype]
    ends = [helper.make_tensor_value_info(name, element, None) for name in (OPERAND, RESULT)]
    graph = helper.make_graph([renamed(node, names) for node in nodes], "jump", ends[:1], ends[1:])
    imports = [helper.make_opsetid("", item.scope.opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=max(original.proto.ir_version, 4))


def _whole(node: onnx.NodeProto, findings: Findings, scope: Scope) -> onnx.NodeProto:
    """Return a copy of a node, with the data of a Constant in it."""
    if node.op_type != "Constant":
        return copied(node)
    value = findings.thresholds.read(scope, str(node.output[0]))
    if isinstance(value, str):
        raise VerificationError(f"it reads {node.output[0]!r}: {value}")
    return helper.make_node("Constant", [], list(node.output), value=numpy_helper.from_array(value))

"""The jumps that an original has itself, against NumPy's J with the kappas that were fused."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from jr_onnx import provenance
from jr_onnx.modelfile import from_proto
from jr_onnx.provenance import Provenance
from jr_onnx.rewriter import fuse
from jr_onnx.verifier import verify
from jr_onnx.verifier.sites.own_jumps import check_own_jumps

WAYS = {
    "Where": ("c = Greater(x, t) y = Where(c, x, zero)", False, False),
    "Where of the other side": ("c = LessOrEqual(x, t) y = Where(c, zero, x)", True, False),
    "a product": ("c = Greater(x, t) m = Cast<to = 1>(c) y = Mul(x, m)", True, True),
    "a ReLU times a mask": ("a = Relu(x) c = Greater(x, t) m = Cast<to = 1>(c) y = Mul(a, m)", True, False),
}


def fused(body: str, threshold: object) -> tuple[onnx.ModelProto, Provenance]:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]>\ng (float[N,4] x) => (float[N,4] y) {{ {body} }}'
    )
    for name, value in (("t", threshold), ("zero", 0)):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    record = provenance.read(fuse(model, lowering="where")[0])
    assert record is not None
    return model, record


@pytest.mark.parametrize("threshold", [0.25, [[0.25]], [0.25] * 4, [0.125, 0.25, 0.5, 1.0]], ids=str)
@pytest.mark.parametrize(("body", "keeps_nan", "flips_signs"), WAYS.values(), ids=WAYS.keys())
def test_each_way_is_j_but_for_what_is_counted(
    body: str, keeps_nan: bool, flips_signs: bool, threshold: object
) -> None:
    model, record = fused(body, threshold)
    (check,), failures = check_own_jumps(from_proto(model), record, seed=0)
    assert not failures
    assert check.verdict == "passed"
    assert ("NaN of NaN and -inf" in check.detail) == keeps_nan
    if flips_signs:
        assert "zeros with another sign" in check.detail
    assert check.samples > 1000


@pytest.mark.parametrize("threshold", [0.25, [0.125, 0.25, 0.5, 1.0]], ids=str)
def test_a_kappa_one_step_away_fails(threshold: object) -> None:
    model, record = fused(WAYS["a product"][0], threshold)
    (site,) = record.sites
    kappas = site.kappa if isinstance(site.kappa, tuple) else (site.kappa,)
    moved = (*kappas[:-1], float(np.nextafter(np.float32(kappas[-1]), np.float32(9))))
    wrong = dataclasses.replace(site, kappa=moved if isinstance(site.kappa, tuple) else moved[0])
    (check,), (failure,) = check_own_jumps(from_proto(model), dataclasses.replace(record, sites=(wrong,)), seed=0)
    assert check.verdict == "failed"
    assert f"z = {moved[-1]!r}" in failure.given
    assert failure.site == site.id


def test_verify_reports_them() -> None:
    model, _ = fused(WAYS["a product"][0], 0.25)
    report = verify(fuse(model)[0], model, samples=1)
    assert report, report.failures
    assert [check.verdict for check in report.checks if check.what == "jumps of the original"] == ["passed"]
    assert not any(check.what.startswith("kappa 0") for check in report.checks)

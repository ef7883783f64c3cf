"""The kappas of a recorded plan whose regular expressions are not trusted and may never finish.

A retrofit's provenance holds the kappa map as it was given, regular expressions included, and Python's engine takes
exponential time for some: `(a+)+b` on forty letters a. So they are tried in a process of their own, which is ended
when its time is up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from jr_onnx.errors import KappaError
from jr_onnx.kappa import KappaPlan
from jr_onnx.records import dumps, loads
from jr_onnx.semantics import SiteKappa

MOST_SECONDS = 30.0
_CHILD = (
    "import sys; sys.path[:] = sys.argv[1:]; from jr_onnx.verifier.expressions import answer; "
    "sys.stdout.write(answer(sys.stdin.read()))"
)


def recorded_kappas(
    plan: KappaPlan, site_ids: Sequence[str], most_seconds: float = MOST_SECONDS
) -> dict[str, SiteKappa | None]:
    """Return what `KappaPlan.for_sites` returns, of a plan that is not trusted.

    Args:
        plan: The plan of a provenance.
        site_ids: Ids of the sites.
        most_seconds: How long its expressions may take for all sites together.

    Raises:
        KappaError: They take longer, or cannot be tried.
    """
    if not plan.has_expressions:
        return plan.for_sites(site_ids)
    question = json.dumps([dumps(plan), list(site_ids)])
    words = [sys.executable, "-c", _CHILD, *sys.path]
    try:
        done = subprocess.run(  # noqa: S603 - this Python and this module; the plan travels over stdin
            words, input=question, capture_output=True, text=True, timeout=most_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise KappaError(f"the expressions of the recorded kappa map take more than {most_seconds:g} s") from None
    except OSError as error:
        raise KappaError(f"the expressions of the recorded kappa map cannot be tried: {error.strerror}") from None
    if done.returncode != 0:
        raise KappaError(
            f"the expressions of the recorded kappa map cannot be tried: the process left with {done.returncode}"
        )
    wanted: list[float | list[float] | None] = json.loads(done.stdout)
    kappas = [tuple(kappa) if isinstance(kappa, list) else kappa for kappa in wanted]
    return dict(zip(site_ids, kappas, strict=True))


def answer(question: str) -> str:
    """Answer a question of `recorded_kappas`, in the process of its own."""
    plan, site_ids = json.loads(question)
    wanted = loads(KappaPlan, plan).for_sites(site_ids)
    return json.dumps([wanted[site] for site in site_ids])

"""jr-onnx: retrofit JumpReLU into exported ONNX classifiers, and know what it buys.

The public names are imported on first use, so that `import jr_onnx` costs nothing.

ONNX Runtime's builds for Linux (from 1.29 on) send usage data and keep a device id under the user's cache, unless
ORT_DISABLE_TELEMETRY is set when it is imported. It is set here, for this process and those that it starts; with
ORT_DISABLE_TELEMETRY=0 in the environment it stays as it is, and the data is sent.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from jr_onnx._version import __version__

if TYPE_CHECKING:
    from jr_onnx import api
    from jr_onnx.api import attack, bench, report, tune
    from jr_onnx.attack.suite.evaluate import evaluate_robustness
    from jr_onnx.attack.suite.setup import AttackRequest
    from jr_onnx.bench import BenchReport, BenchRequest, benchmark
    from jr_onnx.errors import (
        ContractError,
        DataError,
        InputError,
        IntegrityError,
        JrError,
        KappaError,
        MissingExtraError,
        ModelError,
        ModelNotRunError,
        NoSiteError,
        OpLibraryError,
        OpsetError,
        OutputError,
        RefusalError,
        UnsupportedOpsError,
        VerificationError,
    )
    from jr_onnx.evaluation.summary import Evaluation
    from jr_onnx.kappa import KappaPlan, RandomKappa
    from jr_onnx.results import write_report
    from jr_onnx.rewriter import Options, RewriteResult, SiteTable, find_sites, fuse, restore, rewrite
    from jr_onnx.runtime.saved import optimize
    from jr_onnx.runtime.session import InferenceSession
    from jr_onnx.semantics import jump_relu
    from jr_onnx.tune import TuneRequest, TuneResult, tune_kappa
    from jr_onnx.verifier import VerifyReport, prove_conversion, verify
    from jr_onnx.weights import find_weights, save_weights

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_PUBLIC = {
    "AttackRequest": "jr_onnx.attack.suite.setup",
    "BenchReport": "jr_onnx.bench",
    "BenchRequest": "jr_onnx.bench",
    "ContractError": "jr_onnx.errors",
    "DataError": "jr_onnx.errors",
    "Evaluation": "jr_onnx.evaluation.summary",
    "InferenceSession": "jr_onnx.runtime.session",
    "InputError": "jr_onnx.errors",
    "IntegrityError": "jr_onnx.errors",
    "JrError": "jr_onnx.errors",
    "KappaError": "jr_onnx.errors",
    "KappaPlan": "jr_onnx.kappa",
    "MissingExtraError": "jr_onnx.errors",
    "ModelError": "jr_onnx.errors",
    "ModelNotRunError": "jr_onnx.errors",
    "NoSiteError": "jr_onnx.errors",
    "OpLibraryError": "jr_onnx.errors",
    "OpsetError": "jr_onnx.errors",
    "Options": "jr_onnx.rewriter",
    "OutputError": "jr_onnx.errors",
    "RandomKappa": "jr_onnx.kappa",
    "RefusalError": "jr_onnx.errors",
    "RewriteResult": "jr_onnx.rewriter",
    "SiteTable": "jr_onnx.rewriter",
    "TuneRequest": "jr_onnx.tune",
    "TuneResult": "jr_onnx.tune",
    "UnsupportedOpsError": "jr_onnx.errors",
    "VerificationError": "jr_onnx.errors",
    "VerifyReport": "jr_onnx.verifier",
    "api": "jr_onnx",
    "attack": "jr_onnx.api",
    "bench": "jr_onnx.api",
    "benchmark": "jr_onnx.bench",
    "evaluate_robustness": "jr_onnx.attack.suite.evaluate",
    "find_sites": "jr_onnx.rewriter",
    "find_weights": "jr_onnx.weights",
    "fuse": "jr_onnx.rewriter",
    "jump_relu": "jr_onnx.semantics",
    "optimize": "jr_onnx.runtime.saved",
    "prove_conversion": "jr_onnx.verifier",
    "report": "jr_onnx.api",
    "restore": "jr_onnx.rewriter",
    "rewrite": "jr_onnx.rewriter",
    "save_weights": "jr_onnx.weights",
    "tune": "jr_onnx.api",
    "tune_kappa": "jr_onnx.tune",
    "verify": "jr_onnx.verifier",
    "write_report": "jr_onnx.results",
}

__all__ = [
    "AttackRequest",
    "BenchReport",
    "BenchRequest",
    "ContractError",
    "DataError",
    "Evaluation",
    "InferenceSession",
    "InputError",
    "IntegrityError",
    "JrError",
    "KappaError",
    "KappaPlan",
    "MissingExtraError",
    "ModelError",
    "ModelNotRunError",
    "NoSiteError",
    "OpLibraryError",
    "OpsetError",
    "Options",
    "OutputError",
    "RandomKappa",
    "RefusalError",
    "RewriteResult",
    "SiteTable",
    "TuneRequest",
    "TuneResult",
    "UnsupportedOpsError",
    "VerificationError",
    "VerifyReport",
    "__version__",
    "api",
    "attack",
    "bench",
    "benchmark",
    "evaluate_robustness",
    "find_sites",
    "find_weights",
    "fuse",
    "jump_relu",
    "optimize",
    "prove_conversion",
    "report",
    "restore",
    "rewrite",
    "save_weights",
    "tune",
    "tune_kappa",
    "verify",
    "write_report",
]


class _CalledPackage(ModuleType):
    """A package that is also the function of its name in `jr_onnx.api`: `jr_onnx.attack(...)`, `jr_onnx.attack.PGD`."""

    @property
    def __wrapped__(self) -> Callable[..., object]:
        """The function, whose signature `inspect` and notebooks show."""
        function: Callable[..., object] = getattr(importlib.import_module("jr_onnx.api"), self.__name__.split(".")[-1])
        return function

    def __call__(self, *args: object, **options: object) -> object:
        return self.__wrapped__(*args, **options)


class _Root(ModuleType):
    """This package. Python binds every package below it here once it is imported; four become callable at that time."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _PUBLIC.get(name) == "jr_onnx.api":
            value.__class__ = _CalledPackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Root


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        if _PUBLIC[name] in (__name__, "jr_onnx.api"):  # a module, or a package that can be called
            return importlib.import_module(f"{__name__}.{name}")
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    except ModuleNotFoundError as error:
        if error.name == "torch":
            from jr_onnx.errors import require

            require("torch", "attack")
        raise


def __dir__() -> list[str]:
    """List the public names, and what has been imported (PEP 562)."""
    return sorted({*globals(), *__all__})

"""ONNX's reference evaluator, with the operators that it lacks, and with NumPy's J at the sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from jr_onnx.element_types import Array
from jr_onnx.errors import one_line
from jr_onnx.semantics import OP_DOMAIN, OP_TYPE, SiteKappa, jump_relu
from jr_onnx.verifier.compare import Value
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError
from jr_onnx.verifier.evaluators.older_operators import older_operators
from jr_onnx.verifier.evaluators.ort import Feeds

if TYPE_CHECKING:
    from onnx.reference.op_run import OpRun

PreActivations = list[tuple[str, Array]]
"""Pairs of site id and pre-activation, in the order of evaluation, one for every time a site was evaluated."""


class OnnxEvaluator:
    """ONNX's reference evaluator on a model as it is, functions included.

    Args:
        proto: The model, with its weights.
        operators: Operators to give the evaluator besides those of `older_operators`.

    Raises:
        CannotLoadError: The evaluator has no implementation of an operator, or the model's data is missing.
    """

    def __init__(self, proto: onnx.ModelProto, operators: Sequence[type[OpRun]] = ()) -> None:
        from onnx.reference import ReferenceEvaluator

        try:
            self._evaluator = ReferenceEvaluator(proto, new_ops=[*operators, *older_operators(proto)])
        except Exception as error:
            raise CannotLoadError(f"ONNX's reference evaluator cannot load it: {one_line(error)}") from error

    def run(self, feeds: Feeds) -> list[Value]:
        """Return the outputs.

        Raises:
            CannotRunError: The evaluator fails on these inputs.
        """
        try:
            with np.errstate(all="ignore"):
                outputs: Any = self._evaluator.run(None, dict(feeds))
        except Exception as error:
            raise CannotRunError(f"ONNX's reference evaluator cannot run it: {one_line(error)}") from error
        return list(outputs)


class SiteEvaluator:
    """The same on a model whose sites are nodes jr_onnx::JumpRelu with an attribute `site`, computed by NumPy's J.

    Args:
        proto: The model; see `marked`.
        kappas: Site id -> the jump to apply, or one for each channel.
        caps: Site id -> upper bound or None.
        ranks: Site id -> the rank that a kappa per channel was made for, as in the site's record; by default that of
            the site's tensor.

    Raises:
        CannotLoadError: See `OnnxEvaluator`.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        kappas: Mapping[str, SiteKappa],
        caps: Mapping[str, float | None],
        ranks: Mapping[str, int | None] | None = None,
    ) -> None:
        self._kappas, self._caps, self._ranks = kappas, caps, ranks or {}
        self._recorded: PreActivations = []
        self._evaluator = OnnxEvaluator(proto, [self._site_operator()])

    def run(self, feeds: Feeds) -> tuple[list[Value], PreActivations]:
        """Return the outputs and what the sites were given.

        Raises:
            CannotRunError: The evaluator fails on these inputs.
        """
        self._recorded = []
        return self._evaluator.run(feeds), self._recorded

    def _jump(self, site: str, z: Array) -> Array:
        self._recorded.append((site, z))
        return jump_relu(z, self._kappas[site], self._caps[site], self._ranks.get(site))

    def _site_operator(self) -> type[OpRun]:
        from onnx.reference.op_run import OpRun

        jump = self._jump

        class JumpRelu(OpRun):  # type: ignore[misc, unused-ignore] # older releases of onnx have no types here
            op_domain = OP_DOMAIN

            def _run(self, z: Any, **_: Any) -> tuple[Any]:
                site: Any = self.site  # type: ignore[attr-defined, unused-ignore] # OpRun sets the node's attributes
                return (jump(site if isinstance(site, str) else site.decode("utf-8"), z),)

        JumpRelu.__name__ = OP_TYPE
        return JumpRelu

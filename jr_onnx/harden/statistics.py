"""Means and variances of BatchNormalization, estimated again from training images for weights that have changed.

Every batch is normalised by its own statistics, as in training, and these are averaged over the batches; the variance
is the unbiased one, as frameworks store it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from jr_onnx.harden.batches import Batches
from jr_onnx.harden.network import TrainedNetwork
from jr_onnx.torchnet.program import BranchStep, OpStep, Program

_BATCHES = 50


def estimate_statistics(network: TrainedNetwork, batches: Batches, epoch: int) -> None:
    """Set the statistics that are parameters of the network to those of training images.

    Args:
        network: Its weights as they shall stay.
        batches: Training images.
        epoch: Which order of them.
    """
    net = network.net
    steps = [step for step in _normalisations(net.program) if net.is_parameter(step.inputs[3])]
    sums: dict[int, list[Tensor]] = {}
    kept = [(step, step.function) for step in steps]
    for number, step in enumerate(steps):
        step.function = _observing(sums, number, step.number("epsilon", 1e-5))
    try:
        with torch.no_grad():
            for _, pixels, _, _ in itertools.islice(batches.epoch(epoch), _BATCHES):
                network(pixels)
    finally:
        for step, function in kept:
            step.function = function
    with torch.no_grad():
        for number, step in enumerate(steps):
            if number in sums:
                count, mean, variance = sums[number]
                net.parameter_at(step.inputs[3]).copy_(mean / count)
                net.parameter_at(step.inputs[4]).copy_(variance / count)


def _normalisations(program: Program) -> Iterator[OpStep]:
    for step in program.steps:
        if isinstance(step, OpStep) and step.op_type == "BatchNormalization":
            yield step
        elif isinstance(step, BranchStep):
            for branch in step.branches:
                yield from _normalisations(branch)


def _observing(sums: dict[int, list[Tensor]], number: int, epsilon: float) -> Callable[..., Tensor]:
    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        found_variance, found_mean = torch.var_mean(x, dim=axes)
        one = torch.ones((), device=x.device)
        parts = [one, found_mean, found_variance]
        before = sums.get(number)
        sums[number] = parts if before is None else [a + b for a, b in zip(before, parts, strict=True)]
        del mean, variance
        return functional.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)

    return run

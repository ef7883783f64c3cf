"""Figures 3 (activations), 4 (trade-off), 7 (gray-box matrix, appendix A) and 8 (iterations, appendix B) as cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from jr_onnx.attack.apgd import APGD
from jr_onnx.attack.fgsm import IteratedFGSM
from jr_onnx.attack.pgd import PGD
from jr_onnx.attack.suite.plan import Entry
from jr_onnx.attack.surrogate import parse_backward
from jr_onnx.evaluation.iterations import alive_after
from jr_onnx.evaluation.summary import survivors
from jr_onnx.kappa import KappaPlan
from jr_onnx.reproduce.attacks import RELU, apgd_entries, pair, paper_entry
from jr_onnx.reproduce.measuring import Bench, measure
from jr_onnx.reproduce.networks import Checkpoint
from jr_onnx.reproduce.result import Cell, ItemResult, accuracy, mean
from jr_onnx.semantics import jump_relu
from jr_onnx.torchnet.jump import jump

CLEAN, LINF, L2, ADAPTIVE = "clean accuracy", "DF (linf)", "DF2 (l2)", "adaptive accuracy"
GRAY, TRANSFER = "gray box, PGD until fooled", "adaptive transfer"
MATRIX_STEPS, MATRIX_IMAGES = 200, 200
ITERATIONS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60, 80)
_BETA = 0.5
"""The paper's swish (figure 3)."""


def activations(bench: Bench) -> ItemResult:
    """Compute figure 3: ReLU, the paper's swish and JumpReLU, and the derivatives that attacks use at the jump."""
    z = np.linspace(-3, 3, 121)
    kappa = 1.0
    curves = {
        "ReLU": jump_relu(z, 0.0),
        "swish, beta 0.5 (paper, eq. 10)": z / (1 + np.exp(-2 * _BETA * z)),
        "JumpReLU": jump_relu(z, kappa),
    }
    for name in ("exact", "straight-through", "smooth:2", "smooth:5"):
        points = torch.tensor(z, requires_grad=True)
        (derivative,) = torch.autograd.grad(jump(points, kappa, None, parse_backward(name)).sum(), points)
        curves[f"derivative, {name}"] = derivative.numpy()
    cells = [
        Cell(name, f"{at:g}", "value", float(value), None, None, 0)
        for name, values in curves.items()
        for at, value in zip(z, values, strict=True)
    ]
    notes = ["computed from the definition (eq. 11) at kappa 1; swish is z / (1 + exp(-2 beta z)) with beta 0.5"]
    return bench.result("figure-3", "Figure 3: activations, and the derivatives that attacks use", "curves",
                        [f"{at:g}" for at in z], cells, notes, [])  # fmt: skip


def trade_off(bench: Bench, checkpoint: Checkpoint) -> ItemResult:
    """Measure figure 4: accuracy and DeepFool perturbations over kappa, and accuracy under attacks that adapt."""
    network, cells = checkpoint.network, []
    plans = {f"kappa={kappa:g}": KappaPlan(kappa) if kappa else None for kappa in network.grid}
    df, df2 = (paper_entry(network, attack) for attack in ("df", "df2"))
    entries = [df, df2, *apgd_entries(network)]
    limit = bench.at_most(bench.adaptive_limit)
    found = measure(bench, checkpoint, "trade-off", plans, entries, limit=limit)
    for label in plans:
        at, outcomes = label.partition("=")[2], found.outcomes[label]
        cells += [
            accuracy(CLEAN, at, np.asarray(outcomes[df.name].served_correct, dtype=bool)),
            *(
                mean(name, at, np.asarray(item.relative), survived=100 * float(np.mean(item.served_robust)))
                for name, item in ((LINF, outcomes[df.name]), (L2, outcomes[df2.name]))
            ),
            accuracy(ADAPTIVE, at, survivors(list(outcomes.values())), adaptive=True),
        ]
    notes = [
        f"adaptive accuracy: APGD, exact, smooth:2 and smooth:5, linf {network.eps:.4g} in pixel scale",
        "the paper prints this figure without numbers; bars are 95 % intervals",
    ]
    title = f"Figure 4({network.letter}): trade-off over kappa; {network.title}, {checkpoint.variant}"
    return bench.result(f"figure-4{network.letter}", title, "curves",
                        [f"{kappa:g}" for kappa in network.grid], cells, notes, [checkpoint])  # fmt: skip


def matrix(bench: Bench, checkpoint: Checkpoint) -> ItemResult:
    """Measure figure 7: examples made at kappa i until they fool it, shown to kappa j; beside it adaptive transfer."""
    network = checkpoint.network
    kappas = [kappa for place, kappa in enumerate(network.grid) if place % 2 == 0 or len(network.grid) <= 5]
    plans = {f"kappa={kappa:g}": KappaPlan(kappa) if kappa else None for kappa in kappas}
    entries = []
    for kappa in kappas:
        until_fooled = IteratedFGSM(eps=0.01, steps=MATRIX_STEPS)
        entries.append(Entry(f"gray from {kappa:g}", until_fooled, "transfer", "gray_box", "paper", "paper",
                             source_jump=kappa))  # fmt: skip
        asking = APGD(norm="linf", eps=network.eps)
        entries.append(Entry(f"adaptive from {kappa:g}", asking, "transfer", "transfer", source_jump=kappa))
    found = measure(
        bench, checkpoint, "matrix", plans, entries, limit=bench.at_most(min(bench.adaptive_limit, MATRIX_IMAGES))
    )
    cells = [
        accuracy(f"{name}: from kappa {source:g}", f"{goal:g}",
                 found.outcomes[f"kappa={goal:g}"][f"{way} from {source:g}"].served_robust, adaptive=way == "adaptive")
        for name, way in ((GRAY, "gray"), (TRANSFER, "adaptive"))
        for source in kappas
        for goal in kappas
    ]  # fmt: skip
    notes = [
        f"gray box: iterated FGSM, at most {MATRIX_STEPS} steps of 0.01, stops where the source is fooled",
        f"adaptive transfer: APGD with the gradients of the source that asks the target at every step, linf "
        f"{network.eps:.4g} in pixel scale; its budget is far smaller than what {MATRIX_STEPS} steps may move",
    ]
    panel = "a" if network.data == "mnist" else "b"
    title = f"Figure 7({panel}), appendix A: source kappa against target kappa; {network.title}, {checkpoint.variant}"
    return bench.result(f"figure-7{panel}", title, "matrix", [f"{kappa:g}" for kappa in kappas], cells, notes,
                        [checkpoint])  # fmt: skip


def iterations(bench: Bench, checkpoint: Checkpoint) -> ItemResult:
    """Measure figure 8: accuracy against iterations, at the paper's step, which grows the budget, and within a ball."""
    network, most = checkpoint.network, ITERATIONS[-1]
    within = PGD(norm="linf", eps=network.eps, steps=most, step_size=network.eps / 4, random_start=False)
    entries = [
        Entry("step 0.01", IteratedFGSM(eps=0.01, steps=most), "exact", "white_box", "paper", "paper"),
        Entry("fixed budget", within, "exact", "white_box"),
        Entry("fixed budget, smooth:2", replace(within, backward="smooth:2"), "surrogate", "white_box"),
    ]
    found = measure(bench, checkpoint, "iterations", pair(network), entries, limit=bench.at_most(bench.adaptive_limit))
    cells = [
        accuracy(f"{label}, {entry}", str(count), alive_after(outcome, count), adaptive="smooth" in entry)
        for label in pair(network)
        for entry, outcome in found.outcomes[label].items()
        if label != RELU or "smooth" not in entry  # without a jump it is the same attack
        for count in (0, *ITERATIONS)
    ]
    notes = [
        "step 0.01: the paper's, in normalised values, without a budget, so that more iterations may go farther",
        f"fixed budget: linf {network.eps:.4g} in pixel scale, steps of a quarter of it; smooth:2 knows the jump",
    ]
    title = (
        f"Figure 8({network.letter}), appendix B: accuracy against iterations; {network.title}, {checkpoint.variant}"
    )
    return bench.result(f"figure-8{network.letter}", title, "curves",
                        [str(count) for count in (0, *ITERATIONS)], cells, notes, [checkpoint])  # fmt: skip

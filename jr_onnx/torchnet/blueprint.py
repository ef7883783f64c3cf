"""What a compiled model is made of: the part of a module that never changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jr_onnx.torchnet.program import Program
from jr_onnx.torchnet.sites import TorchSite


@dataclass(frozen=True)
class Blueprint:
    """The unchangeable part of a module, shared by its clones.

    Attributes:
        program: The steps.
        places: Length of the list of values.
        host_constants: Place -> constant that stays on the CPU.
        sites: The retrofit sites, then the model's own jumps.
        input_place: Where the input goes.
        input_name: Name of the input.
        input_shape: Its shape; None for a dynamic axis, the batch axis included.
        output_name: Name of the output (or chosen value) that the logits belong to.
        logits_name: Name of the main graph's value that the logits are: the output itself or what its end begins
            with; "" where that lies inside a function.
        tail: The operators between the logits and the output, in the order of the graph.
        single: Whether the model gives one score; its logits are then (0, score), of two classes.
        threshold: For one score: the output above which the answer is class 1, where the graph determines it.
        num_classes: How many classes there are.
        static_batch: The only batch size the graph can run with; other sizes are cut into such pieces. None: any.
        mappable: Whether the pieces can be run at once by `torch.vmap`.
        draws_apart: Whether it draws random numbers, and different ones for every sample of a batch.
        notes: What a reader of results should know about the conversion.
        dtype: Floating type of the input and the logits.
        override: The floating type that was asked for, None for the model's own ones.
        differentiable: Whether any gradient path leads from the logits to the input.
        values: The numbers that fill the model's further inputs.
        parameters: Weight name -> place, of the weights that can be trained.
    """

    program: Program
    places: int
    host_constants: dict[int, Tensor]
    sites: tuple[TorchSite, ...]
    input_place: int
    input_name: str
    input_shape: tuple[int | None, ...]
    output_name: str
    logits_name: str
    tail: tuple[str, ...]
    single: bool
    threshold: float | None
    num_classes: int
    static_batch: int | None
    mappable: bool
    draws_apart: bool
    notes: tuple[str, ...]
    dtype: torch.dtype
    override: torch.dtype | None
    differentiable: bool
    values: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)

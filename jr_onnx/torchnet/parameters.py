"""Trainable weights as parameters of a torch module, under the names they have in the model."""

from __future__ import annotations

from torch import Tensor, nn


def add_parameter(module: nn.Module, name: str, tensor: Tensor) -> tuple[nn.Module, str]:
    """Add a parameter of any name; dots in it make modules, as everywhere in torch.

    Returns:
        The module that holds it, and its name there.
    """
    *outer, last = (part or "_" for part in name.split("."))
    for part in outer:
        module = module._modules.setdefault(part, nn.Module()) or module
    value = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor.detach().clone())
    module._parameters[last] = value  # `register_parameter` refuses names that are attributes, such as "type"
    return module, last

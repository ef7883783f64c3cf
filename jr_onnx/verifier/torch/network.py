"""A user's own torch network as the other side of a verification: loaded by name, its ReLUs turned into JumpReLUs.

The network is not edited. While it runs, a torch function mode sees every call that is a ReLU, from `nn.ReLU`,
`nn.ReLU6` and `nn.Hardtanh` modules and from functions alike, and computes JumpReLU in its place:

    relu(z)  Tensor.relu_  F.relu6  F.hardtanh(z, 0, c)  clamp(z, 0[, c])  clamp_min(z, 0)   ->   min(J(z), c)

The calls of one pass are numbered in order; that is the order of the sites of an export, which traced the same code.
"""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from jr_onnx.element_types import Array
from jr_onnx.errors import InputError, one_line
from jr_onnx.semantics import SiteKappa, one_kappa
from jr_onnx.torchnet.comparison import Floats
from jr_onnx.torchnet.jump import SiteBackward, jump
from jr_onnx.torchnet.precision import full_precision, tf32_precision

_PARALLEL_PREFIX = "module."
_RELU = {torch.relu, torch.relu_, torch.nn.functional.relu, torch.nn.functional.relu_, Tensor.relu, Tensor.relu_}
_RELU_IN_PLACE = {torch.relu_, torch.nn.functional.relu_, Tensor.relu_}
_CLAMP = {torch.clamp, torch.clamp_, torch.clip, torch.clip_, Tensor.clamp, Tensor.clamp_, Tensor.clip, Tensor.clip_}
_CLAMP_IN_PLACE = {torch.clamp_, torch.clip_, Tensor.clamp_, Tensor.clip_}
_CLAMP_MIN = {torch.clamp_min, Tensor.clamp_min}
_RELU6 = 6.0
_TF32_EPS = 2.0**-10  # it keeps 10 bits of a float32's fraction (NVIDIA, CUDA C++ Programming Guide)


def load_network(spec: str, weights: Path | None = None) -> nn.Module:
    """Make a network of `module:factory` and load its weights.

    Args:
        spec: A module that can be imported, also from the current folder, and in it a class or function that returns
            the network without arguments, or the network itself; dots reach into it.
        weights: A state dict, or a checkpoint that holds one under state_dict, model or net; read with
            `weights_only=True`. The prefix `module.` of `nn.DataParallel` is taken off.

    Raises:
        InputError: The network cannot be made, or the weights do not fit it.
    """
    module_name, colon, factory_name = spec.partition(":")
    if not colon or not module_name or not factory_name:
        raise InputError(f"the torch network is given as {spec!r}, expected module:factory, such as mynet:build")
    found: Any = _import(module_name, spec)
    for part in factory_name.split("."):
        if not hasattr(found, part):
            raise InputError(f"{module_name} has no {factory_name!r}, which {spec!r} asks for")
        found = getattr(found, part)
    if not isinstance(found, nn.Module):
        try:
            found = found()
        except Exception as error:
            raise InputError(f"calling {spec} fails: {type(error).__name__}: {error}") from error
    if not isinstance(found, nn.Module):
        raise InputError(f"{spec} gave {type(found).__name__}, expected a torch.nn.Module")
    if weights is not None:
        _load_weights(found, weights)
    return found.eval()


def _import(name: str, spec: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"cannot import {name!r} for {spec!r}: {error}") from None
    finally:
        sys.path.remove(str(Path.cwd()))


def _load_weights(network: nn.Module, path: Path) -> None:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"cannot read the weights {path}: {error.strerror}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"the weights {path} cannot be loaded: {reason}",
            hint="Save a state dict: torch.save(network.state_dict(), path)",
        ) from None
    for key in ("state_dict", "model", "net"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"the weights {path} hold {type(content).__name__}, expected a state dict of tensors")
    state = {str(key).removeprefix(_PARALLEL_PREFIX): value for key, value in content.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = one_line(error)
        raise InputError(f"the weights {path} do not fit the network: {reason}") from None


def _bounds(
    args: tuple[Any, ...], options: Mapping[str, Any], names: tuple[str, str], defaults: tuple[Any, Any]
) -> tuple[float | None] | None:
    """Return the cap of a clamp to [0, cap] in a tuple, None of any other clamp."""
    low = args[1] if len(args) > 1 else options.get(names[0], defaults[0])
    high = args[2] if len(args) > 2 else options.get(names[1], defaults[1])
    if isinstance(low, Tensor) or isinstance(high, Tensor) or low is None or low != 0:
        return None
    return (None if high is None else float(high),)


class Jumping(TorchFunctionMode):
    """While active, every ReLU is a JumpReLU.

    Args:
        kappas: The kappa of every call, by its number; calls beyond them are ReLUs.

    Attributes:
        inputs: What went into every call, where `keep` is set.
        calls: How many there were.
    """

    def __init__(self, kappas: Sequence[float], *, keep: bool = False) -> None:
        super().__init__()
        self._kappas = kappas
        self._keep = keep
        self.inputs: list[Tensor] = []
        self.calls = 0

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Replace a ReLU, pass everything else on."""
        del types
        options = kwargs or {}
        found = _relu_call(func, args, options)
        if found is None:
            return func(*args, **options)
        z, cap, in_place = found
        kappa = self._kappas[self.calls] if self.calls < len(self._kappas) else 0.0
        self.calls += 1
        if self._keep:
            self.inputs.append(z.detach().clone())
        result = jump(z, kappa, cap, SiteBackward.exact())
        return z.copy_(result) if in_place else result


def _relu_call(
    func: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[Tensor, float | None, bool] | None:
    """Return (z, cap, in place) of a call that is a ReLU, None of any other."""
    z = args[0] if args else options.get("input")
    if not isinstance(z, Tensor) or not z.is_floating_point():
        return None
    functional = torch.nn.functional
    if func in _RELU:
        return z, None, func in _RELU_IN_PLACE or _flag(func, args, options, 1, functional.relu)
    if func is functional.relu6:
        return z, _RELU6, _flag(func, args, options, 1, functional.relu6)
    if func in (functional.hardtanh, functional.hardtanh_):
        bounds = _bounds(args, options, ("min_val", "max_val"), (-1.0, 1.0))
        in_place = func is functional.hardtanh_ or _flag(func, args, options, 3, functional.hardtanh)
        return None if bounds is None else (z, bounds[0], in_place)
    if func in _CLAMP or func in _CLAMP_MIN:
        bounds = _bounds(args, options, ("min", "max"), (None, None))
        return None if bounds is None else (z, bounds[0], func in _CLAMP_IN_PLACE)
    return None


def _flag(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    options: Mapping[str, Any],
    position: int,
    owner: Callable[..., Any],
) -> bool:
    """Tell whether a functional form was called with `inplace`."""
    if func is not owner:
        return False
    return bool(options.get("inplace", args[position] if len(args) > position else False))


class TorchNetwork:
    """A torch network as the comparison sees it (`jr_onnx.torchnet.comparison.Evaluated`).

    Args:
        network: The network, in evaluation mode.
        sites: The ids of the export's sites, in the order of the calls.
        dtype: The precision to evaluate in, for which a copy is made; None for the network's own.
        tf32: On a GPU, products of float32 may be computed in TF32.
    """

    def __init__(
        self, network: nn.Module, sites: Sequence[str], dtype: torch.dtype | None = None, *, tf32: bool = False
    ) -> None:
        self._network = network if dtype is None else copy.deepcopy(network).to(dtype)
        self._tf32 = tf32
        self._sites = list(sites)
        weights = (tensor.dtype for tensor in self._network.parameters() if tensor.is_floating_point())
        self._dtype = dtype or next(weights, torch.float32)
        self._kappas = dict.fromkeys(self._sites, 0.0)

    @property
    def eps(self) -> float:
        """See `Evaluated`."""
        return _TF32_EPS if self._tf32 and self._dtype == torch.float32 else float(torch.finfo(self._dtype).eps)

    def set_kappas(self, kappas: Mapping[str, SiteKappa]) -> None:
        """See `Evaluated`.

        Raises:
            KappaError: A site has a kappa per channel.
        """
        self._kappas.update({name: one_kappa(kappa, name, "a torch network") for name, kappa in kappas.items()})

    def logits(self, part: Tensor) -> Floats:
        """See `Evaluated`."""
        with self._running(keep=False):
            result: Floats = self._call(part).double().cpu().numpy()
        return result.reshape(len(part), -1)

    def site_inputs(self, part: Tensor) -> dict[str, list[Tensor]]:
        """See `Evaluated`."""
        with self._running(keep=True) as mode:
            self._call(part)
        return {name: [z] for name, z in zip(self._sites, mode.inputs, strict=False)}

    def calls(self, part: Tensor) -> int:
        """Return how many ReLUs one pass has."""
        with self._running(keep=False) as mode:
            self._call(part)
        return mode.calls

    @contextmanager
    def _running(self, *, keep: bool) -> Iterator[Jumping]:
        with torch.no_grad(), Jumping([self._kappas[name] for name in self._sites], keep=keep) as mode:
            yield mode

    def _call(self, part: Tensor) -> Tensor:
        """Run the network; of several outputs the first tensor counts, as in an export."""
        precision = tf32_precision if self._tf32 else full_precision
        try:
            with precision(part.device):
                output = self._network(part.to(self._dtype))
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise InputError(
                f"the torch network fails on an input of shape {list(part.shape)}: {type(error).__name__}: {reason}"
            ) from error
        while isinstance(output, tuple | list | Mapping):
            output = next(iter(output.values() if isinstance(output, Mapping) else output), None)
        if not isinstance(output, Tensor):
            raise InputError(f"the torch network returns {type(output).__name__}, expected a tensor of logits")
        return output


def random_inputs(shape: Sequence[int | None], count: int, seed: int) -> Array:
    """Return inputs that alternate between U[0, 1) and a standard normal: pixels and normalised pixels.

    Args:
        shape: The shape of one sample, dynamic axes taken as 32.
        count: How many samples.
        seed: Random seed.
    """
    random = np.random.default_rng(seed)
    sizes = [size or 32 for size in shape]
    data = random.random((count, *sizes))
    data[1::2] = random.standard_normal((len(data[1::2]), *sizes))
    return data.astype(np.float32)

"""What makes attacks on small networks fast on a CPU: slices on threads, and a first convolution of its own.

**Slices.** Samples do not know of each other, so that slices of a batch can be evaluated side by side, one thread
each. That scales better than splitting every operator of a small network between the cores, and a result does not
depend on the number of threads.

**The first convolution.** Attacks need the gradient of the *input*, and a first convolution has one or three input
channels. The library's backward pass pads those to a full vector of channels and wastes most of it. Written out, the
gradient is

    dX[c, i + s, j + t] += sum_o W[o, c, s, t] dY[o, i, j]

one small matrix product for all taps (s, t), and one shifted addition for each. For 1 to 10 channels of 5x5, as in
LeNet, this takes a fifth of the time. The result of the first convolution is also laid out channels-last, which
the layers behind it take up and pool and convolve faster in. Values differ from the plain path by rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 -- the name every torch reader knows
from torch import Tensor
from torch.overrides import TorchFunctionMode

_LARGEST_SLICE = 128
_SLICE_VALUES = 3 * 2**15
"""Input values per slice: the activations of small networks then stay in the cache."""
_MOST_CHANNELS = 4
_MOST_TAPS = 49


def slices(count: int, values: int) -> list[slice]:
    """Cut `count` samples of `values` entries each into slices.

    The cut depends on nothing but the counts: some four slices, so that threads end together, but neither so small
    that calling the operators is what takes the time, nor so large that memory does.
    """
    most = min(_LARGEST_SLICE, max(4, _SLICE_VALUES // values))
    least = max(4, most // 2 if values < 1024 else most // 4)
    pieces = -(-count // min(most, max(least, -(-count // 4))))
    if pieces > 4:
        pieces = -(-pieces // 4) * 4  # two or four threads then end together
    size = -(-count // pieces)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


@contextlib.contextmanager
def thread_pool(wanted: bool) -> Iterator[ThreadPoolExecutor | None]:
    """Give a pool of as many threads as torch may use, each of which runs operators alone; none if there is one.

    Torch's own setting for the calling thread is 1 meanwhile: its idle helpers would spin on the cores.
    """
    count = torch.get_num_threads()
    if not wanted or count == 1:
        yield None
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count, "attack", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(count)


class FastFirstConvolution(TorchFunctionMode):
    """While this is active, convolutions of few input channels take the faster way; the model is not touched.

    Args:
        frozen: Nobody differentiates weights, so that those that ask for a gradient may take it too.
    """

    def __init__(self, *, frozen: bool = False) -> None:
        super().__init__()
        self._frozen = frozen

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Replace a fitting call of conv2d."""
        del types
        if func is F.conv2d:
            call = _Call.of(args, kwargs or {})
            if call is not None and self._frozen:
                call = call.frozen()
            if call is not None and call.fits:
                return call.run()
        return func(*args, **(kwargs or {}))


class _Call(NamedTuple):
    """The arguments of conv2d, given by place or by name."""

    x: Any
    weight: Any
    bias: Tensor | None = None
    stride: int | Sequence[int] = 1
    padding: Any = 0
    dilation: int | Sequence[int] = 1
    groups: int = 1

    @classmethod
    def of(cls, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Call | None:
        """Sort the arguments; None for a call that names them in another way."""
        try:
            return cls(*args, **{"x" if name == "input" else name: value for name, value in kwargs.items()})
        except TypeError:
            return None

    def frozen(self) -> _Call:
        """Return the call with weights that ask for no gradient."""
        bias = None if self.bias is None else self.bias.detach()
        return self._replace(weight=self.weight.detach(), bias=bias)

    @property
    def fits(self) -> bool:
        """Whether the call can take the faster way."""
        return (
            isinstance(self.x, Tensor)
            and self.x.device.type == "cpu"
            and self.x.dim() == 4
            and not self.weight.requires_grad
            and self.x.shape[1] <= _MOST_CHANNELS
            and self.weight.shape[2] * self.weight.shape[3] <= _MOST_TAPS
            and self.groups == 1
            and _pair(self.stride) == (1, 1)
            and _pair(self.dilation) == (1, 1)
            and not isinstance(self.padding, str)
        )

    def run(self) -> Tensor:
        """Convolve; the same values whether a gradient is wanted or not."""
        arguments = self.x, self.weight, self.bias, _pair(self.padding)
        if self.x.requires_grad and torch.is_grad_enabled():
            result: Tensor = _FewChannels.apply(*arguments)  # type: ignore[no-untyped-call] # torch has no types here
            return result
        return _convolved(*arguments)


class _FewChannels(torch.autograd.Function):
    """A convolution of stride 1 with constant weights, differentiated by shifted additions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.padding, ctx.size = padding, x.shape[2:]
        return _convolved(x, weight, bias, padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        (down, across), (height, width) = ctx.padding, ctx.size
        grad = grads[0]
        outputs, inputs, rows, columns = weight.shape
        count, _, high, wide = grad.shape
        flat = grad.permute(0, 2, 3, 1).reshape(-1, outputs)
        taps = (weight.reshape(outputs, -1).t() @ flat.t()).view(inputs, rows, columns, count, high, wide)
        total = grad.new_zeros(inputs, count, height + 2 * down, width + 2 * across)
        for row in range(rows):
            for column in range(columns):
                total[:, :, row : row + high, column : column + wide] += taps[:, row, column]
        inner = total[:, :, down : down + height, across : across + width]
        return inner.transpose(0, 1).contiguous(), None, None, None


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """Convolve images, laid out channels-last first: the library does it otherwise, at several times the price."""
    ready = x.contiguous(memory_format=torch.channels_last)
    return F.conv2d(ready, weight, bias, 1, padding).contiguous(memory_format=torch.channels_last)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])

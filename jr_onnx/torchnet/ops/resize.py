"""Resize and Upsample as separable interpolation: per axis a few taps with weights, computed on the host.

Every output element along an axis is a weighted sum of one (nearest), two (linear) or four (cubic) input elements;
with anti-aliasing of as many as the widened kernel covers. The formulas are those of the Resize specification.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jr_onnx.torchnet.registry import Function, Node, op


@dataclass(frozen=True, slots=True)
class _Style:
    """How coordinates map and what is interpolated."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool
    extrapolation: float


@op("Upsample", last=8)
def _upsample_attributes(node: Node) -> Function:
    scales = node.floats("scales") or []
    style = _style(node, "asymmetric", "floor")
    return lambda x: _resize_axes(x, style, range(x.dim()), scales, None, None)


@op("Upsample", first=9, host=(1,))
def _upsample(node: Node) -> Function:
    read = node.number_list_input(1)
    style = _style(node, "asymmetric", "floor")
    return lambda x, scales: _resize_axes(x, style, range(x.dim()), read(scales), None, None)


@op("Resize", last=10, host=(1,))
def _resize_old(node: Node) -> Function:
    read = node.number_list_input(1)
    style = _style(node, "asymmetric", "floor")
    return lambda x, scales: _resize_axes(x, style, range(x.dim()), read(scales), None, None)


@op("Resize", first=11, host=(1, 2, 3))
def _resize(node: Node) -> Function:
    style = _style(
        node, node.attr("coordinate_transformation_mode", "half_pixel"), node.attr("nearest_mode", "round_prefer_floor")
    )
    read_roi, read_scales = node.number_list_input(1), node.number_list_input(2)
    read_sizes = node.list_input(3)
    axes, policy = node.ints("axes"), node.attr("keep_aspect_ratio_policy", "stretch")

    def run(x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
        places = [axis % x.dim() for axis in axes] if axes is not None else list(range(x.dim()))
        factors, wanted = read_scales(scales) or None, read_sizes(sizes) or None
        if wanted is not None and policy != "stretch":
            pick = min if policy == "not_larger" else max
            factor = pick(wanted[i] / x.shape[axis] for i, axis in enumerate(places))
            wanted = [int(factor * x.shape[axis] + 0.5) for axis in places]
            factors = [factor] * len(places)
        return _resize_axes(x, style, places, factors, wanted, read_roi(roi) or None)

    return run


def _style(node: Node, coordinates: str, nearest: str) -> _Style:
    return _Style(
        node.attr("mode", "nearest"),
        coordinates,
        nearest,
        node.attr("cubic_coeff_a", -0.75),
        bool(node.attr("exclude_outside", 0)),
        bool(node.attr("antialias", 0)),
        node.attr("extrapolation_value", 0.0),
    )


def _resize_axes(
    x: Tensor,
    style: _Style,
    axes: Sequence[int],
    scales: Sequence[float] | None,
    sizes: Sequence[int] | None,
    roi: Sequence[float] | None,
) -> Tensor:
    for index, axis in enumerate(axes):
        length = x.shape[axis]
        if scales is not None:
            scale = float(scales[index])
            target = int(sizes[index]) if sizes is not None else math.floor(length * scale)
        elif sizes is not None:
            target = int(sizes[index])
            scale = target / length
        else:
            continue
        crop = style.coordinates == "tf_crop_and_resize" and roi is not None
        region = (roi[index], roi[index + len(axes)]) if crop and roi is not None else None
        if scale == 1.0 and target == length and not crop:
            continue
        x = _resize_axis(x, axis, target, scale, style, region)
    return x


def _resize_axis(
    x: Tensor, axis: int, target: int, scale: float, style: _Style, region: tuple[float, float] | None
) -> Tensor:
    length = x.shape[axis]
    taps: list[list[tuple[int, float]]] = []
    outside: list[bool] = []
    for position in range(target):
        source = _source(position, length, target, scale, style, region)
        outside.append(region is not None and not 0 <= source <= length - 1)
        taps.append(_taps(source, length, scale, style))
    width = max(len(row) for row in taps)
    places = torch.tensor([[row[k][0] if k < len(row) else 0 for row in taps] for k in range(width)])
    weights = torch.tensor(
        [[row[k][1] if k < len(row) else 0.0 for row in taps] for k in range(width)], dtype=torch.float64
    )
    places, weights = places.to(x.device), weights.to(x.device)
    shape = [1] * x.dim()
    shape[axis] = target
    if width == 1:
        result = x.index_select(axis, places[0])
    else:
        floating = x if x.is_floating_point() else x.to(torch.float64)
        parts = [
            floating.index_select(axis, places[k]) * weights[k].reshape(shape).to(floating.dtype) for k in range(width)
        ]
        result = torch.stack(parts).sum(dim=0).to(x.dtype)
    if any(outside):
        mask = torch.tensor(outside, device=x.device).reshape(shape)
        result = torch.where(mask, torch.full((), style.extrapolation, dtype=x.dtype, device=x.device), result)
    return result


def _source(
    position: int, length: int, target: int, scale: float, style: _Style, region: tuple[float, float] | None
) -> float:
    """Return the input coordinate of an output position."""
    mode = style.coordinates
    if mode == "half_pixel":
        return (position + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        adjustment = target / (scale * length)
        centre = length / 2
        return centre * (1 - adjustment) + (position + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (position + 0.5) / scale - 0.5 if target > 1 else 0.0
    if mode == "align_corners":
        return position * (length - 1) / (target - 1) if target > 1 else 0.0
    if mode == "asymmetric":
        return position / scale
    if mode == "tf_half_pixel_for_nn":
        return (position + 0.5) / scale
    start, end = region if region is not None else (0.0, 1.0)
    if target > 1:
        return start * (length - 1) + position * (end - start) * (length - 1) / (target - 1)
    return 0.5 * (start + end) * (length - 1)


_NEAREST: dict[str, Callable[[float], int]] = {
    "round_prefer_floor": lambda s: math.ceil(s - 0.5),
    "round_prefer_ceil": lambda s: math.floor(s + 0.5),
    "floor": math.floor,
    "ceil": math.ceil,
}


def _taps(source: float, length: int, scale: float, style: _Style) -> list[tuple[int, float]]:
    """Return the input elements an output element is made of, with their weights."""
    if style.mode == "nearest":
        place = _NEAREST[style.nearest](source)
        return [(min(max(place, 0), length - 1), 1.0)]
    stretch = min(scale, 1.0) if style.antialias else 1.0
    kernel: Callable[[float], float]
    if style.mode == "cubic":
        reach, kernel = 2.0, lambda t: _cubic(t, style.cubic)
    else:
        reach, kernel = 1.0, lambda t: max(0.0, 1.0 - abs(t))
    first = math.floor(source - reach / stretch) + 1
    last = math.ceil(source + reach / stretch) - 1
    raw: list[tuple[int, float]] = []
    for place in range(first, max(first, last) + 1):
        weight = kernel((place - source) * stretch)
        if style.exclude_outside and not 0 <= place < length:
            weight = 0.0
        raw.append((min(max(place, 0), length - 1), weight))
    total = sum(weight for _, weight in raw)
    if (style.antialias or style.exclude_outside) and total != 0:
        raw = [(place, weight / total) for place, weight in raw]
    return raw


def _cubic(t: float, a: float) -> float:
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    if t < 2:
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return 0.0

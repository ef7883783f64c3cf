"""The channels of a site, axis 1 of its tensor (N, C, ...), to which the values of a kappa per channel belong."""

from __future__ import annotations

from jr_onnx.errors import KappaError
from jr_onnx.rewriter.detect.shapes import Dims, Shapes
from jr_onnx.rewriter.sites import LocatedSite
from jr_onnx.semantics import CHANNEL_AXIS


def rank_for_channels(item: LocatedSite, values: int, shapes: Shapes, recorded: int | None = None) -> int:
    """Return the rank of a site's tensor, after a check that it has as many channels as kappa has values.

    The thresholds of a jump that the model has itself may belong to another axis than 1, such as the last of (N, T, F).
    The rank is then counted from the axis in front of that one, as of (T, F), over which kappa broadcasts just so.

    Args:
        item: The site.
        values: How many values its kappa has.
        shapes: Of the model.
        recorded: The rank in the provenance of an earlier rewrite: it serves where the shape is not known now, for
            another version of onnx may infer less.

    Raises:
        KappaError: The tensor has other or no channels, or it is not known how many.
    """
    if item.match.jump is not None:
        return item.match.jump.rank
    site = item.site
    said = f"site {site.id}: kappa has {values} value{'s' if values != 1 else ''}, one per channel, and its tensor"
    one_number = "or one number"
    dims = _dims(item, shapes)
    if dims is None and recorded is not None:
        return recorded
    if dims is None:
        where = " because it is in a function" if item.scope.function is not None else ""
        raise KappaError(
            f"{said} has an unknown shape{where}",
            hint="Give it one number"
            if where
            else f"Add the shapes of values with onnx.shape_inference.infer_shapes, {one_number} for the site",
        )
    # ONNX's shape inference calls what it does not know unk__0, unk__1, ...
    shown = " x ".join("?" if dim is None or str(dim).startswith("unk__") else str(dim) for dim in dims) or "a scalar"
    if len(dims) <= CHANNEL_AXIS:
        raise KappaError(f"{said} has no axis of channels, its shape is {shown}", hint="Give it one number")
    if recorded is not None and recorded != len(dims):
        raise KappaError(f"{said} has rank {len(dims)}, expected {recorded} as recorded")
    channels = dims[CHANNEL_AXIS]
    if recorded is None and not isinstance(channels, int):
        raise KappaError(
            f"{said} has an unknown number of channels, its shape is {shown}",
            hint=f"Export the model with a fixed number of channels, {one_number} for the site",
        )
    if isinstance(channels, int) and channels != values:
        raise KappaError(
            f"{said} has {channels} channels, its shape is {shown}",
            hint=f"Give it {channels} values, {one_number}",
        )
    return len(dims)


def _dims(item: LocatedSite, shapes: Shapes) -> Dims | None:
    """Return the shape of a site's tensor as far as it is known, from its output or its input."""
    names = [item.site.output]
    if not item.match.before:  # else these belong to the convolution in front of the jump
        names += [item.match.typed_by, item.match.operand]
    known = [dims for name in names if (dims := shapes.of(item.scope, name)) is not None]
    return max(known, key=lambda dims: len(dims) > CHANNEL_AXIS and isinstance(dims[CHANNEL_AXIS], int), default=None)

"""The one entrance: a specification such as `digits` or `mnist:DIR` becomes labelled images."""

from __future__ import annotations

from jr_onnx.data.digits import load_digits
from jr_onnx.data.images import ImageData
from jr_onnx.data.splits import check_split
from jr_onnx.errors import DataError


def load(spec: str, *, split: str = "test", limit: int | None = None) -> ImageData:
    """Load labelled images.

    Args:
        spec: `digits` (embedded).
        split: train, validation or test.
        limit: At most this many, from the front of the split.

    Raises:
        DataError: The specification, the split or the limit is not usable.
    """
    part = check_split(split)
    if limit is not None and limit < 1:
        raise DataError(f"found the limit {limit}, expected 1 or more")
    if spec == "digits":
        return load_digits(part, limit)
    raise DataError(f"found the data specification {spec!r}, expected digits")

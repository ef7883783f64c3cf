"""Images, through ONNX Runtime: transposed, fused and quantised convolutions, pooling, blocks and borders."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jr_onnx.rows import prove_rows
from tests.rows.rules.batches import assert_not_proved, assert_proved
from tests.rows.text import IMAGE, c, parse

QUANTISED = "e = Constant <value = float {0.05}> () u = Constant <value = uint8 {128}> () q = QuantizeLinear(x, e, u)\n"
KERNEL = "w = ConstantOfShape <value = float[1] {0.5}> (s)\n"
KERNEL_8 = "w = ConstantOfShape <value = uint8[1] {129}> (s)\n"
# At most 12 products of 0.5 and values below 5, summed in an order of the kernel's choice.
SUMS = 12 * 12 * 2.5 * float(np.finfo(np.float32).eps)
PROVED = {
    "transposed convolution": (
        c("s", "3,2,2,2") + KERNEL + "y = ConvTranspose <strides = [2,2]> (x, w)", "float[N,2,8,8] y"),
    "transposed convolution to a size": (
        c("s", "3,2,2,2") + KERNEL + "y = ConvTranspose <strides = [2,2], output_shape = [9,9]> (x, w)",
        "float[N,2,9,9] y"),
    "fused convolution": (
        c("s", "2,3,2,2") + KERNEL + 'y = com.microsoft.FusedConv <activation = "Relu"> (x, w)', "float[N,2,3,3] y"),
    "fused convolution and a sum": (
        c("s", "3,3,1,1") + KERNEL + 'y = com.microsoft.FusedConv <activation = "Relu"> (x, w, , x)',
        "float[N,3,4,4] y"),
    "quantised convolution": (
        c("s", "2,3,2,2") + QUANTISED + KERNEL_8 + "r = QLinearConv(q, e, u, w, e, u, e, u) y = Identity(r)",
        "uint8[N,2,3,3] y"),
    "quantised pooling": (
        QUANTISED + "y = com.microsoft.QLinearAveragePool <kernel_shape = [2,2]> (q, e, u, e, u)", "uint8[N,3,3,3] y"),
    "quantised pooling of whole images": (
        QUANTISED + "y = com.microsoft.QLinearGlobalAveragePool(q, e, u, e, u)", "uint8[N,3,1,1] y"),
    "blocks to channels and back": (
        "a = SpaceToDepth <blocksize = 2> (x) y = DepthToSpace <blocksize = 2> (a)", "float[N,3,4,4] y"),
    "borders": (c("p", "0,0,1,2,0,0,1,0") + "y = Pad(x, p)", "float[N,3,6,6] y"),
}  # fmt: skip
NOT_PROVED = {
    "a sum with what all rows share": (
        c("s", "3,3,1,1") + KERNEL + c("t", "4,3,4,4") + "z = ConstantOfShape <value = float[1] {1}> (t) "
        "y = com.microsoft.FusedConv (x, w, , z)",
        "the rows of what it adds are not those of its input"),
    "a row more": (c("p", "1,0,0,0,0,0,0,0") + "y = Pad(x, p)", "(Pad): "),
    "a kernel made of rows": (
        "k = Transpose <perm = [1,0,2,3]> (x) y = ConvTranspose (k, x)", "(ConvTranspose): "),
    "blocks of channels that are rows": (
        "k = Transpose <perm = [1,0,2,3]> (x) d = SpaceToDepth <blocksize = 2> (k) "
        "y = Transpose <perm = [1,0,2,3]> (d)",
        "(SpaceToDepth): "),
}  # fmt: skip


@pytest.mark.parametrize("name", PROVED)
def test_images_are_independent(name: str) -> None:
    body, output = PROVED[name]
    assert_proved(parse(body, inputs=IMAGE, output=output), 0.0 if output.startswith("uint8") else SUMS)


@pytest.mark.parametrize("name", NOT_PROVED)
def test_where_images_may_see_each_other(name: str) -> None:
    body, reason = NOT_PROVED[name]
    assert_not_proved(parse(body, inputs=IMAGE, output="float[N,C,H,W] y"), reason)


@pytest.mark.parametrize("name", sorted(PROVED.keys() - {"transposed convolution to a size"}))
def test_sizes_are_followed(name: str) -> None:
    """Rows stay apart in a Reshape that names the right size of a row, and in no other."""
    body, output = PROVED[name]
    kind, dims = output.partition(" ")[0].rstrip("]").split("[")
    size = math.prod(int(dim) for dim in dims.split(",")[1:])
    start, _, last = body.rpartition("y = ")
    for wanted in (size, 2 * size):
        flat = start + "i = " + last + c("v", f"-1,{wanted}") + "y = Reshape(i, v)"
        proof = prove_rows(parse(flat, inputs=IMAGE, output=f"{kind}[N,{wanted}] y"))
        assert bool(proof) == (wanted == size), proof.why

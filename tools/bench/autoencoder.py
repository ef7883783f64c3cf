"""Write a JumpReLU sparse autoencoder with random weights, to measure what `jr-onnx fuse` wins.

    python -m tools.bench.autoencoder sae.onnx           d_model 768, 24,576 features, as for GPT-2's residual stream
    jr-onnx fuse sae.onnx
    jr-onnx bench sae.fused.onnx --shape x=64,768        the original and its fused model in one interleaved run
    python -m tools.bench.autoencoder jump.onnx --activation       the activation alone

    z = (x - b_dec) W_enc + b_enc;  f = Relu(z) * (z > threshold);  y = f W_dec + b_dec

The operators are those that `torch.onnx.export` writes. Columns of W_enc have length 1, so that z of a normal x is
normal, too; thresholds lie around 2.3, so that one feature in a hundred is active.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

D_MODEL = 768
FEATURES = 24_576


def autoencoder(d_model: int = D_MODEL, features: int = FEATURES, seed: int = 0) -> onnx.ModelProto:
    """Return the model, x (N, d_model) -> y (N, d_model), float32.

    Args:
        d_model: Size of what is encoded.
        features: Number of features.
        seed: Of the weights.
    """
    random = np.random.default_rng(seed)
    weights = {
        "W_enc": random.standard_normal((d_model, features)) / np.sqrt(d_model),
        "b_enc": np.zeros(features),
        "W_dec": random.standard_normal((features, d_model)) / np.sqrt(d_model),
        "b_dec": random.standard_normal(d_model) / 10,
        "threshold": 2.3 + random.random(features) / 10,
    }
    nodes = [
        helper.make_node("Sub", ["x", "b_dec"], ["centred"]),
        helper.make_node("MatMul", ["centred", "W_enc"], ["encoded"]),
        helper.make_node("Add", ["encoded", "b_enc"], ["z"]),
        helper.make_node("Relu", ["z"], ["positive"]),
        helper.make_node("Greater", ["z", "threshold"], ["above"]),
        helper.make_node("Cast", ["above"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["positive", "mask"], ["f"], name="jump"),
        helper.make_node("MatMul", ["f", "W_dec"], ["decoded"]),
        helper.make_node("Add", ["decoded", "b_dec"], ["y"]),
    ]
    places = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", d_model]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "sae", places[:1], places[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def activation(features: int = FEATURES) -> onnx.ModelProto:
    """Return the jump of the model alone, z (N, features) -> f (N, features)."""
    model = onnx.shape_inference.infer_shapes(autoencoder(1, features))
    return onnx.utils.Extractor(model).extract_model(["z"], ["f"])


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("path", type=Path, help="the file to write")
    parser.add_argument("--d-model", type=int, default=D_MODEL, metavar="N", help="size of what is encoded")
    parser.add_argument("--features", type=int, default=FEATURES, metavar="N", help="number of features")
    parser.add_argument("--activation", action="store_true", help="write the jump alone, z -> f")
    given = parser.parse_args()
    model = activation(given.features) if given.activation else autoencoder(given.d_model, given.features)
    onnx.save(model, given.path)


if __name__ == "__main__":
    main()

"""The networks of the paper in torch, and two small ones for the embedded digits; not part of the wheel."""

from models.activation import Activation, JumpReLU, jump_relu
from models.checkpoints import load_weights
from models.registry import NAMES, ModelEntry, build, entry

__all__ = ["NAMES", "Activation", "JumpReLU", "ModelEntry", "build", "entry", "jump_relu", "load_weights"]

"""Training of the checkout's networks: recipes, the loop, adversarial batches, records."""

from tools.training.loop import TrainingRun, accuracy
from tools.training.recipe import Recipe, recipe
from tools.training.record import EpochRow, TrainingRecord, weights_digest

__all__ = ["EpochRow", "Recipe", "TrainingRecord", "TrainingRun", "accuracy", "recipe", "weights_digest"]

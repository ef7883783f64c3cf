"""What every evaluation of a classifier needs: the file, the images, and how they become its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jr_onnx.attack.classifier.opener import ClassifierOpener, device_of
from jr_onnx.data import ImageData, Preprocessing


@dataclass(frozen=True, kw_only=True)
class ClassifierRequest:
    """Base of the requests.

    Attributes:
        model: An original or a retrofit.
        data: Labelled images.
        preprocessing: What the model expects of pixels.
        device: Where torch computes: auto, cpu, cuda.
        logits: The value that holds the scores; "" to find it by the labels.
        values: The numbers that fill the model's further inputs, by name.
        force: Continue although clean images are classified no better than by chance.
    """

    model: Path
    data: ImageData
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    device: str = "auto"
    logits: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    force: bool = False

    def opener(self, *, batch: int = 256, black_box: bool = False, replay_provider: str = "cpu") -> ClassifierOpener:
        """Return what opens the files of this evaluation; for the options see `ClassifierOpener`.

        Raises:
            InputError: There is no such device.
        """
        return ClassifierOpener(
            data=self.data,
            preprocessing=self.preprocessing,
            device=device_of(self.device),
            values=self.values,
            logits=self.logits,
            batch=batch,
            black_box=black_box,
            force=self.force,
            replay_provider=replay_provider,
        )

"""One of the two models that a suite attacks: as a torch target for gradients, and as the file that will be served."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from jr_onnx.attack.target import ArrayTarget, TorchTarget
from jr_onnx.data import FurtherInputs, InputAdapter, ModelInput, Preprocessing
from jr_onnx.errors import InputError, JrError, ModelError, one_line, require
from jr_onnx.evaluation.scores import predictions
from jr_onnx.torchnet.module import OnnxModule
from jr_onnx.torchnet.source import refuse_maps

SERVED_DRAWS = 32
"""Runs of a random model whose majority is its answer."""


class Shaped(nn.Module):
    """An ONNX module that takes images (N, C, H, W) or (N, H, W, C) whatever shape its input has."""

    def __init__(self, net: OnnxModule) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate images to logits (N, K)."""
        shape = [size for size in self.net.input_shape[1:] if size is not None]
        # `trusted_module` loads it with the sizes of the data, so that no axis but the batch is free.
        if len(shape) == len(self.net.input_shape) - 1 and x[:1].numel() == len(x[:1]) * int(np.prod(shape)):
            x = x.reshape(len(x), *shape)
        result: Tensor = self.net(x)
        return result

    def clone(self) -> Shaped:
        """Return a module that shares the weights, with kappas and derivatives of its own."""
        return Shaped(self.net.clone())

    def __getattr__(self, name: str) -> Any:
        """Pass on what a target asks of an ONNX module: sites, kappas, set_kappa, set_backward, ..."""
        if name == "net":
            return super().__getattr__(name)
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.net, name)


def open_session(path: Path) -> Any:
    """Open a file in `jr_onnx.InferenceSession` on the CPU, without warnings of a kappa input that can be overridden.

    Raises:
        ModelError: ONNX Runtime cannot open the file.
        MissingExtraError: ONNX Runtime is not installed.
    """
    onnxruntime: Any = require("onnxruntime", "cpu")
    from jr_onnx.runtime.session import InferenceSession

    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    try:
        return InferenceSession(str(path), quiet, providers=["CPUExecutionProvider"])
    except JrError:
        raise
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no base class of their own
        raise ModelError(
            f"ONNX Runtime cannot open {path.name} on the CPU, where images are judged: {one_line(error)}",
            # It has no kernel for the types of a node: those of float32 are the most complete.
            hint="Export the model in float32" if "NOT_IMPLEMENTED" in str(error) else "",
        ) from None


def further_inputs(session: Any, values: Mapping[str, float], skip: Collection[str] = ()) -> FurtherInputs:
    """Return what a session has to be fed beside its images.

    Args:
        session: From `open_session`.
        values: Input name -> the number that fills it.
        skip: Inputs that are fed otherwise.

    Raises:
        InputError: A value names no input, or an input has no value.
    """
    inputs = [ModelInput.of_session(item) for item in session.get_inputs() if item.name not in skip]
    return FurtherInputs(inputs, values)


class ServedModel:
    """A model file in ONNX Runtime, fed with pixels.

    Attributes:
        path: The file.
        random: Whether kappa is drawn at run time, so that answers are majorities.
    """

    def __init__(
        self,
        path: Path,
        preprocessing: Preprocessing,
        image_shape: tuple[int, int, int],
        *,
        random: bool = False,
        batch: int = 256,
        values: Mapping[str, float] | None = None,
    ) -> None:
        """Open the file.

        Args:
            path: The file.
            preprocessing: What it expects of pixels.
            image_shape: (C, H, W).
            random: Whether kappa is drawn at run time.
            batch: Images at a time, where the file leaves that free.
            values: The numbers that fill the file's further inputs.

        Raises:
            DataError: The images do not fit the model's input.
            InputError: A further input has no value.
            ModelError: ONNX Runtime cannot open the file.
            MissingExtraError: ONNX Runtime is not installed.
        """
        self.path = path
        self.random = random
        self._session = open_session(path)
        self._further = further_inputs(self._session, values or {})
        self._adapter = InputAdapter(self._further.image, image_shape, preprocessing)
        self._name = self._further.image.name
        self._batch = self._adapter.fixed_batch or batch
        self._output = self._first_matrix()

    def logits(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Evaluate pixels (N, C, H, W) to scores (N, K); the last piece of a fixed batch is padded."""
        parts = []
        for start in range(0, len(pixels), self._batch):
            piece = pixels[start : start + self._batch]
            count = len(piece)
            if self._adapter.fixed_batch is not None and count < self._batch:
                piece = np.concatenate([piece, np.repeat(piece[-1:], self._batch - count, axis=0)])
            feeds = {self._name: self._adapter.to_model(piece), **self._further.feed(len(piece))}
            (scores,) = self._session.run([self._output], feeds)
            parts.append(np.asarray(scores, dtype=np.float32).reshape(len(piece), -1)[:count])
        return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)

    def misclassifies(self, pixels: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell which images (N,) the served model gets wrong; no answer is a wrong one."""
        wrong = np.zeros(len(pixels), dtype=np.float64)
        runs = SERVED_DRAWS if self.random else 1
        for _ in range(runs):
            wrong += (predictions(self.logits(pixels)) != labels) / runs
        result: npt.NDArray[np.bool_] = wrong >= 0.5
        return result

    def target(self) -> ArrayTarget:
        """Return the file as a black-box target; it takes pixels, for the adapter preprocesses them."""
        return ArrayTarget(self.logits, random=self.random)

    def choose_output(self, name: str) -> None:
        """Take the scores from an output; a name that is no output leaves the first matrix."""
        if any(output.name == name for output in self._session.get_outputs()):
            self._output = name

    def _first_matrix(self) -> str:
        outputs = self._session.get_outputs()
        for output in outputs:
            if output.type.startswith("tensor(") and output.shape is not None and len(output.shape) == 2:
                return str(output.name)
        if not outputs:
            raise InputError(f"{self.path.name} has no output")
        refuse_maps([str(output.name) for output in outputs if output.type.startswith("seq(")])
        return str(outputs[0].name)


@dataclass
class Contender:
    """A model in an evaluation.

    Attributes:
        label: "original" or "retrofit".
        served: The file in ONNX Runtime.
        target: For gradients; None where the file cannot be evaluated in torch.
        sources: Kappas of the retrofit, by site: what multiples of kappa refer to.
        sha256: Digest of the file.
    """

    label: str
    served: ServedModel
    target: TorchTarget | None
    sources: Mapping[str, float]
    sha256: str

    @property
    def is_plain(self) -> bool:
        """Whether every jump is 0, so that all backward passes are those of ReLU."""
        return self.target is not None and _without_jumps(self.target)

    def plain_source(self, multiple: float | None, jump: float | None) -> bool:
        """Tell whether `source` returns a network whose every jump is 0."""
        found = self.source(multiple, jump)
        return found is not None and _without_jumps(found)

    def source(self, multiple: float | None, jump: float | None) -> TorchTarget | None:
        """Return the network that gives gradients: this one, or the same weights with other jumps."""
        if self.target is None or (multiple is None and jump is None):
            return self.target
        if jump is not None:
            return self.target.with_kappa(jump)
        return self.target.with_kappa({site: kappa * (multiple or 0.0) for site, kappa in self.sources.items()})


def _without_jumps(target: TorchTarget) -> bool:
    if target.is_random:
        return False
    model: Any = target.model
    chosen = target.settings.kappa
    jumps = [site.kappa for site in getattr(model, "jumps", {}).values()]  # only a map of kappas reaches these
    if isinstance(chosen, tuple):
        named = dict(chosen)
        sites = {**getattr(model, "jumps", {}), **getattr(model, "sites", {})}
        return all(named.get(name, site.kappa) == 0 for name, site in sites.items())
    own = [site.kappa for site in getattr(model, "sites", {}).values()] if chosen is None else [chosen]
    return all(kappa == 0 for kappa in (*own, *jumps))


def torch_target(net: OnnxModule, preprocessing: Preprocessing, kappas: Mapping[str, float] | None) -> TorchTarget:
    """Return a target over an ONNX module; `kappas` None keeps the file's own."""
    target = TorchTarget(Shaped(net), preprocessing, dtype=torch.float32)
    return target if kappas is None else target.with_kappa(dict(kappas))

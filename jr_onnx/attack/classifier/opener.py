"""Open a model file twice: in ONNX Runtime, which judges, and in torch, which gives gradients and is proved first."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from jr_onnx.attack.classifier.accuracy import require_clean
from jr_onnx.attack.classifier.outputs import choose_output, head_of
from jr_onnx.attack.classifier.served import Head, ServedClassifier, differs
from jr_onnx.attack.judging import DECISION_DRAWS
from jr_onnx.data import FurtherInputs, ImageData, InputAdapter, Preprocessing, required_inputs
from jr_onnx.errors import InputError, JrError, UnsupportedOpsError
from jr_onnx.torchnet import load as load_torch
from jr_onnx.torchnet.loading import same_logits
from jr_onnx.torchnet.module import OnnxModule
from jr_onnx.torchnet.parity import check_parity
from jr_onnx.torchnet.source import Readable, Source
from jr_onnx.torchnet.source import read as read_source

PARITY_SAMPLES = 64


@dataclass
class ClassifierOpener:
    """How the files of an evaluation are opened; the first of them decides where the answer is for all.

    Attributes:
        data: Labelled images.
        preprocessing: What the model expects of pixels.
        device: Where torch computes.
        values: The numbers that fill the model's further inputs.
        logits: The value that holds the scores; "" to find it by the labels.
        batch: Samples in memory at once.
        black_box: Leave torch out.
        force: Continue although clean images are classified no better than by chance.
        replay_provider: Where ONNX Runtime runs images again: the provider that will serve.
        notes: What the reader of the results should know; filled while opening.
    """

    data: ImageData
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    values: Mapping[str, float] = field(default_factory=dict)
    logits: str = ""
    batch: int = 256
    black_box: bool = False
    force: bool = False
    replay_provider: str = "cpu"
    notes: list[str] = field(default_factory=list)
    described: str = ""
    """The value that is taken for the logits, described."""

    def open(self, path: Path, *, random: bool = False) -> tuple[ServedClassifier, OnnxModule | None]:
        """Open a file.

        Args:
            path: The file.
            random: Whether its kappa is drawn at run time.

        Raises:
            InputError: No value, or several, can be the scores of the data's classes.
            DataError: The images do not fit the model's input.
            VerificationError: torch computes something else than ONNX Runtime.
        """
        source = functools.cache(lambda: read_source(path))
        try:
            return self._open(path, source, random, self.black_box)
        except UnsupportedOpsError as error:
            self.notes.append(f"{error.message}; only black-box attacks are run")
            return self._open(path, source, random, True)

    def open_in_torch(self, path: Path) -> tuple[ServedClassifier, OnnxModule]:
        """Open a file whose gradients are needed.

        Raises:
            UnsupportedOpsError: torch cannot evaluate the model.
            Others: as of `open`.
        """
        served, net = self._open(path, functools.cache(lambda: read_source(path)), False, False)
        if net is None:
            raise TypeError("a module is made unless it is left out")
        return served, net

    def _open(
        self, path: Path, source: Callable[[], Source], random: bool, black_box: bool
    ) -> tuple[ServedClassifier, OnnxModule | None]:
        served = self._served(path, source, random)
        output = self.logits or choose_output(served, self.data, lambda names: self._alike(source(), names))
        self.logits = output
        net: OnnxModule | None = None
        if not black_box:
            net, notes = trusted_module(source(), self.device, self.preprocessing, self.data, self.values, output)
            self.notes.extend(notes)
        served.head = Head(output)
        if not random and (drawn := () if net is None else net.draws):
            served.random = True
            self._note_randomness(path, ", ".join(drawn))
        elif not random and differs(served, self.data):
            served.random = True
            self._note_randomness(path, "two runs of one image differ")
        served.head = head_of(served, self.data, output, None if net is None else net.threshold)
        if net is not None and served.head.threshold is not None and net.threshold is None:
            net.set_offset(served.head.threshold)
        if not self.described:  # the first file: what a large kappa does to the second one is a result
            self.notes.extend(filter(None, [require_clean(served, self.data, self.preprocessing, force=self.force)]))
        self.described = self.described or _described(served, net)
        return served, net

    def _served(self, path: Path, source: Callable[[], Source], random: bool) -> ServedClassifier:
        def opened(expose: str = "") -> ServedClassifier:
            return ServedClassifier(
                path,
                self.preprocessing,
                self.data.shape,
                random=random,
                batch=self.batch,
                values=self.values,
                expose=expose,
                provider=self.replay_provider,
            )

        if not self.logits:
            return opened()
        graph = source().model.graph
        if any(value.name == self.logits for value in graph.output):
            return opened()
        if not any(self.logits in node.output for node in graph.node):
            names = ", ".join(repr(value.name) for value in graph.output)
            raise InputError(
                f"{path.name} has no value {self.logits!r}; its outputs are {names}",
                hint="Give an output, or another value of the main graph, with --logits",
            )
        self.notes.append(f"{self.logits!r} is not an output, so a copy of {path.name} that also gives it is judged")
        return opened(self.logits)

    def _note_randomness(self, path: Path, why: str) -> None:
        self.notes.append(
            f"{path.name} is random ({why}): gradients are averaged over draws, and an answer is that of the majority "
            f"of {DECISION_DRAWS} runs"
        )

    def _alike(self, source: Source, names: Sequence[str]) -> Mapping[str, int]:
        """Return which outputs come from the same logits; without torch each is its own group."""
        shape = _input_shape(source, self.preprocessing, self.data, self.values)[1]
        try:
            return same_logits(source, names, input_shape=shape, values=self.values)
        except JrError:
            return {name: number for number, name in enumerate(names)}


def trusted_module(
    model: Readable,
    device: torch.device,
    preprocessing: Preprocessing,
    data: ImageData,
    values: Mapping[str, float] | None = None,
    output: str | None = None,
) -> tuple[OnnxModule, tuple[str, ...]]:
    """Return a model as a torch module that is proved to compute what ONNX Runtime computes on real images.

    The notes are for the reader of results, for instance that a quantised model agrees in decisions alone.

    Args:
        model: The model.
        device: Where to compute.
        preprocessing: What the model expects of pixels.
        data: The images, whose sizes the dynamic axes of the model's input get.
        values: The numbers that fill the model's further inputs.
        output: The value that holds the scores; None for the first floating matrix.

    Raises:
        InputError: A further input has no value.
        DataError: The images do not fit the model's input.
        UnsupportedOpsError: The model has operators that torch cannot evaluate; the error lists all of them.
        VerificationError: The module computes something else.
    """
    source = read_source(model)
    adapter, shape = _input_shape(source, preprocessing, data, values)
    net = load_torch(source, device=device, output=output, input_shape=shape, values=values)
    sample = adapter.to_model(data.images[:PARITY_SAMPLES])
    return net, check_parity(net, source, sample).notes


def _input_shape(
    source: Source, preprocessing: Preprocessing, data: ImageData, values: Mapping[str, float] | None
) -> tuple[InputAdapter, tuple[int | None, ...]]:
    """Return the way into a model's input, and its shape with the sizes of the data."""
    original = source.model  # a retrofit may have an input more, for its kappa
    entry = FurtherInputs(required_inputs(original), values or {}).image
    batch, *axes = entry.shape or (None,)
    free = entry if entry.shape is None else replace(entry, shape=(None, *axes))
    adapter = InputAdapter(free, data.shape, preprocessing)
    return adapter, (batch if isinstance(batch, int) and batch > 0 else None, *adapter.sample_shape)


def device_of(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda".

    Raises:
        InputError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda was asked for, and torch sees no GPU", hint="Use --device cpu")
    return torch.device(name)


def _described(served: ServedClassifier, net: OnnxModule | None) -> str:
    head = served.head
    where = repr(head.output)
    if net is not None and net.tail:
        inner = repr(net.logits_name) if net.logits_name else "the value"
        where = f"{inner} before the {', '.join(net.tail)} of {head.output!r}"
    if head.threshold is not None:
        where += f", one score: class 1 where {head.output!r} is above {head.threshold:g}, else class 0"
    return where

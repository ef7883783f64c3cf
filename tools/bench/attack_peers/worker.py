"""One implementation of the attacks, run as a process: `python -m tools.bench.attack_peers.worker NAME CONFIG`.

Reads one JSON order a line, `{"attack": "pgd", "batch": 256}`, runs it on all images and answers with one JSON line:
seconds of wall and processor, the share of images still classified correctly, and the mean relative perturbation, as
judged below. CONFIG is a JSON file: network, weights, an .npz of pixels and labels, threads, steps and eps.
"""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.checkpoints import load_weights
from models.registry import build, entry
from tools.bench.attack_peers import literal


class Implementation(ABC):
    """The attacks of one library on one network; images are normalised as the network wants them."""

    attacks: tuple[str, ...] = ()

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.preprocessing = entry(config["network"]).preprocessing
        self.model = build(config["network"])
        load_weights(self.model, Path(config["weights"]))
        with np.load(config["data"]) as data:
            self.pixels, self.labels = data["pixels"], torch.from_numpy(data["labels"])
        self.images = torch.from_numpy(self.preprocessing.apply(self.pixels))
        scale, offset = self.preprocessing.affine(self.images.shape[1])
        # Foolbox insists that no rounded value lies outside.
        self.low = min(float(offset.min()), float(self.images.min()))
        self.high = max(float((scale + offset).max()), float(self.images.max()))
        self.steps, self.eps = int(config["steps"]), float(config["eps"])

    @abstractmethod
    def run(self, attack: str, start: int, stop: int) -> Tensor:
        """Return adversarial images, normalised, of a part of the images."""

    def measure(self, attack: str, batch: int) -> dict[str, float]:
        """Run an attack on all images in batches, and judge what comes out with the network itself."""
        begun, worked = time.perf_counter(), time.process_time()
        parts = [self.run(attack, start, start + batch) for start in range(0, len(self.images), batch)]
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - worked
        found = torch.cat(parts)
        with torch.no_grad():
            pieces = range(0, len(found), 250)
            predicted = torch.cat([self.model(found[start : start + 250]).argmax(1) for start in pieces])
        usable = torch.isfinite(found.flatten(1)).all(1)
        order = float("inf") if attack in ("pgd", "deepfool-linf") else 2.0
        size = (found - self.images).flatten(1).norm(p=order, dim=1) / self.images.flatten(1).norm(p=order, dim=1)
        return {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "robust": float(((predicted == self.labels) | ~usable).double().mean()),
            "relative": float(size[usable].mean()),
        }


class Ours(Implementation):
    """This project's attacks in paper units, on an ONNX export of the network, as they meet every network."""

    attacks = ("pgd", "deepfool-linf", "deepfool-l2", "trust-region")

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        from jr_onnx import torchnet
        from jr_onnx.attack import TorchTarget
        from tools.training.export import export

        shape = entry(config["network"]).input_shape
        exported = torchnet.load(export(self.model, shape, exporter="old"))
        self.target = TorchTarget(exported, self.preprocessing).in_units("paper")

    def run(self, attack: str, start: int, stop: int) -> Tensor:
        """Attack pixels and normalise what comes back."""
        import jr_onnx.attack as attacks

        chosen = {
            "pgd": attacks.IteratedFGSM(eps=self.eps, steps=self.steps),
            "deepfool-linf": attacks.DeepFool(steps=self.steps),
            "deepfool-l2": attacks.DeepFool(norm="l2", steps=self.steps),
            "trust-region": attacks.TrustRegion(steps=int(self.config["trust_region_steps"])),
        }[attack]
        pixels, labels = self.pixels[start:stop], self.labels[start:stop]
        result = chosen.run(self.target, pixels, labels, batch_size=len(pixels))
        return self.target.from_pixels(result.adversarials)


class Literal(Implementation):
    """The paper's algorithms to the letter."""

    attacks = ("pgd", "deepfool-linf", "deepfool-l2", "trust-region")

    def run(self, attack: str, start: int, stop: int) -> Tensor:
        """Attack normalised images."""
        x, y = self.images[start:stop], self.labels[start:stop]
        if attack == "pgd":
            return literal.pgd(self.model, x, y, self.steps, self.eps)
        if attack == "trust-region":
            return literal.trust_region(self.model, x, y, int(self.config["trust_region_steps"]), 0.01)
        return literal.deepfool(self.model, x, y, self.steps, attack.removeprefix("deepfool-"))


class Foolbox(Implementation):
    """Foolbox, on normalised images and their range."""

    attacks = ("pgd", "deepfool-linf", "deepfool-l2")

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        import foolbox

        self.library = foolbox
        self.attacked = foolbox.PyTorchModel(self.model, bounds=(self.low, self.high), device="cpu")

    def run(self, attack: str, start: int, stop: int) -> Tensor:
        """Run the attack of the same steps and step size; its ball is what those steps can reach."""
        zoo = self.library.attacks
        ball: float | None = None
        if attack == "pgd":
            chosen = zoo.LinfBasicIterativeAttack(abs_stepsize=self.eps, steps=self.steps, random_start=False)
            ball = self.eps * self.steps
        else:
            kind = zoo.LinfDeepFoolAttack if attack == "deepfool-linf" else zoo.L2DeepFoolAttack
            chosen = kind(steps=self.steps, candidates=literal.OTHER_CLASSES + 1, overshoot=0.02)
        x, y = self.images[start:stop], self.labels[start:stop]
        _, clipped, _ = chosen(self.attacked, x, y, epsilons=ball)
        found: Tensor = clipped
        return found


class Torchattacks(Implementation):
    """torchattacks, on pixels, with the normalisation inside the network; DeepFool is L2 only."""

    attacks = ("pgd", "deepfool-l2")

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        import torchattacks

        self.library = torchattacks
        self.attacked = nn.Sequential(_Normalise(self.preprocessing.mean, self.preprocessing.std), self.model).eval()

    def run(self, attack: str, start: int, stop: int) -> Tensor:
        """Run the attack in pixels; the step is that of a channel of mean standard deviation."""
        x, y = torch.from_numpy(self.pixels[start:stop]), self.labels[start:stop]
        if attack == "pgd":
            step = self.eps * float(np.mean(self.preprocessing.std))
            chosen = self.library.BIM(self.attacked, eps=step * self.steps, alpha=step, steps=self.steps)
        else:
            chosen = self.library.DeepFool(self.attacked, steps=self.steps, overshoot=0.02)
        found: Tensor = self.attacked[0](chosen(x, y).detach())
        return found


class _Normalise(nn.Module):
    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = (x - self.get_buffer("mean")) / self.get_buffer("std")
        return result


IMPLEMENTATIONS: dict[str, type[Implementation]] = {
    "ours": Ours,
    "literal": Literal,
    "foolbox": Foolbox,
    "torchattacks": Torchattacks,
}


def main() -> None:
    """Answer orders until the input ends."""
    config = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    torch.set_num_threads(int(config["threads"]))
    implementation = IMPLEMENTATIONS[sys.argv[1]](config)
    print(json.dumps({"attacks": implementation.attacks}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(implementation.measure(order["attack"], int(order["batch"]))), flush=True)


if __name__ == "__main__":
    main()

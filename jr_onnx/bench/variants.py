"""The models and sessions that are compared: the original, every lowering as it is, and the optimised session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import onnx

from jr_onnx.errors import InputError
from jr_onnx.modelfile import external_tensors, save
from jr_onnx.rewriter.lowering import RequestedLowering, Target
from jr_onnx.rewriter.pair import in_every_lowering, open_pair
from jr_onnx.runtime.providers import CPU, CUDA, CUDA_OPTIONS, ProviderChoice, require_providers
from jr_onnx.runtime.running import Session, open_model, quiet_options
from jr_onnx.runtime.skeleton import FOLDER_KEY

SessionKind = Literal["onnxruntime", "plain", "optimised", "standard"]
SESSIONS: Final = ("plain", "optimised", "standard")
Provider = Literal["cpu", "cuda"]
PROVIDERS: Final[dict[str, list[str]]] = {
    "cpu": [CPU],
    "cuda": [CUDA, CPU],
}
USUAL_OPTIONS: Final = ("default", "fuse_conv_bias", "prefer_nhwc", "both")
"""What an original is measured with: without its best options it is not a baseline."""
ORIGINAL: Final = "original"


@dataclass(frozen=True)
class Variant:
    """A model and how it is opened.

    Attributes:
        name: For tables.
        kind: Which session.
        path: The model file.
        folder: What its external data is relative to, None without external data.
        options: Of `runtime.providers.CUDA_OPTIONS`; without meaning on the CPU.
    """

    name: str
    kind: SessionKind
    path: Path
    folder: Path | None = None
    options: str = "default"

    def on(self, provider: str, options: Sequence[str]) -> list[Variant]:
        """Return this variant with each of the provider's options that it is measured with.

        The original and the optimised session, which are what is compared, get all; the lowerings as they are run
        with ONNX Runtime's defaults.
        """
        if provider != "cuda" or self.kind not in ("onnxruntime", "optimised"):
            return [self]
        return [
            replace(self, name=self.name if name == "default" else f"{self.name}, {name}", options=name)
            for name in options
        ]

    def open(self, provider: str, threads: int, profile_prefix: str | None = None) -> Session:
        """Open the session.

        Raises:
            InputError: It does not run on the provider.
            JrError: The optimised way is impossible.
        """
        options = quiet_options(threads=threads)
        # Idle threads of one session must not spin while another one is timed.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if profile_prefix is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile_prefix
        source: str | bytes = str(self.path)
        if self.folder is not None:
            source = self.path.read_bytes()
            options.add_session_config_entry(FOLDER_KEY, str(self.folder))
        require_providers(PROVIDERS[provider])
        places = self._providers(provider)
        if self.kind == "onnxruntime":
            return open_model(source, self.name, options=options, providers=places)
        way, library = "plain" if self.kind == "plain" else "optimised", self.kind != "standard"
        return open_model(source, self.name, options=options, providers=places, retrofit=way, op_library=library)

    def _providers(self, provider: str) -> list[ProviderChoice]:
        first, *rest = PROVIDERS[provider]
        return [(first, CUDA_OPTIONS[self.options]), *rest] if provider == "cuda" else [first, *rest]


@dataclass(frozen=True)
class PreparedModels:
    """What `prepare` made.

    Attributes:
        variants: The original first.
        missing: Names of variants that cannot be made, and why.
        sites: How many sites the retrofits have.
        sha256: Digest of the model file.
        original: The original's proto; large weights are tokens.
    """

    variants: tuple[Variant, ...]
    missing: dict[str, str]
    sites: int
    sha256: str
    original: onnx.ModelProto


def prepare(
    model: Path, kappa: float | None, lowerings: Sequence[RequestedLowering], sessions: Sequence[str], folder: Path,
    target: Target = "cpu",
) -> PreparedModels:  # fmt: skip
    """Write the models to compare into a folder.

    Args:
        model: An original, or a retrofit, whose plan is kept unless kappa is given.
        kappa: The jump of the retrofits.
        lowerings: Which lowerings.
        sessions: Of `SESSIONS`.
        folder: Where to write.
        target: Where the retrofits will run.

    Raises:
        ModelError: The file is not a usable model.
        InputError: No kappa is given for an original, or nothing can be compared.
        JrError: No lowering is possible.
    """
    pair = open_pair(model)
    plan = pair.plan(kappa)
    outside = pair.given.folder if external_tensors(pair.original.proto) else None
    original = folder / "original.onnx"
    save(pair.original.proto, pair.given.payloads, original)
    variants = [Variant(ORIGINAL, "onnxruntime", original, outside)]
    made, refused = in_every_lowering(pair.original, plan, lowerings, target)
    missing: dict[str, str] = {lowering: str(error) for lowering, error in refused.items()}
    sites, best = 0, None
    for lowering, done in made.items():
        sites, best = len(done.result.sites), folder / f"{lowering}.onnx"
        save(done.model, pair.given.payloads, best)
        if "plain" in sessions:
            variants.append(Variant(lowering, "plain", best, outside))
    if best is None:
        raise InputError(f"{model} cannot be retrofitted: {'; '.join(missing.values())}")
    if "standard" in sessions:
        variants.append(Variant("standard", "standard", best, outside))
    if "optimised" in sessions:
        variants.append(Variant("optimised", "optimised", best, outside))
    return PreparedModels(tuple(variants), missing, sites, pair.given.sha256, pair.original.proto)

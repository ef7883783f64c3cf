"""The module: an ONNX classifier in torch, its sites' kappas and derivatives adjustable at any time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from jr_onnx.element_types import Array
from jr_onnx.errors import DataError, InputError
from jr_onnx.kappa import RandomKappa
from jr_onnx.semantics import SiteKappa
from jr_onnx.torchnet.blueprint import Blueprint
from jr_onnx.torchnet.draw import Draw
from jr_onnx.torchnet.jump import LearnedKappa, SiteBackward
from jr_onnx.torchnet.parameters import add_parameter
from jr_onnx.torchnet.program import ABSENT, Context, Observer, Program, Values, draws, execute
from jr_onnx.torchnet.settings import (
    BackwardSetting,
    KappaSetting,
    PassSettings,
    SiteSettings,
    random_range,
)
from jr_onnx.torchnet.zero_gradient import with_zero_gradient


class OnnxModule(nn.Module):
    """An ONNX classifier as a torch module; made by `jr_onnx.torchnet.load`.

    The forward pass is the file's; gradients are torch's, with a replaceable derivative at every site. Weights are
    buffers, which need no gradient, or parameters where `load` was asked for them; `clone` shares them.

    Attributes:
        sites: Site id -> site, in graph order, keyed as by `jr_onnx.find_sites`.
        jumps: JumpReLUs that a model without provenance has by itself, keyed by node name.
    """

    def __init__(self, blueprint: Blueprint, constants: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._blueprint = blueprint
        self._device_places = tuple(constants)
        self.register_buffer("anchor", torch.zeros(0, dtype=blueprint.dtype))  # where the module lives
        trained = {place: name for name, place in blueprint.parameters.items()}
        self._homes: dict[int, tuple[nn.Module, str]] = {}
        for place, tensor in constants.items():
            if place in trained:
                self._homes[place] = add_parameter(self, trained[place], tensor)
            else:
                self.register_buffer(f"constant_{place}", tensor)
        self.sites = {site.id: site for site in blueprint.sites if site.form != "own_jump"}
        self.jumps = {site.id: site for site in blueprint.sites if site.form == "own_jump"}
        self._ids = [site.id for site in blueprint.sites]
        self._settings = SiteSettings(blueprint.sites)
        self._observer: Observer | None = None
        self._offset = 0.0
        self._mean_draws = False
        self._draws = tuple(f"{step.name}: {step.op_type}" for step in draws(blueprint.program))
        self._template: Values = []
        self._refresh()
        self.eval()

    @property
    def input_name(self) -> str:
        """Name of the model's image input."""
        return self._blueprint.input_name

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the model's inputs; one."""
        return (self._blueprint.input_name,)

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of the input; None for an axis of any length, the batch axis included."""
        return self._blueprint.input_shape

    @property
    def values(self) -> Mapping[str, float]:
        """The numbers that fill the model's further inputs, by name."""
        return self._blueprint.values

    @property
    def output_name(self) -> str:
        """Name of the model's output (or the chosen value) that the logits belong to."""
        return self._blueprint.output_name

    @property
    def logits_name(self) -> str:
        """Name of the main graph's value that the logits are, "" where it lies inside a function."""
        return self._blueprint.logits_name

    @property
    def tail(self) -> tuple[str, ...]:
        """The operators between the logits and the output; they keep the order of the classes."""
        return self._blueprint.tail

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return self._blueprint.num_classes

    @property
    def single(self) -> bool:
        """Whether the model gives one score, so that its logits are (0, score)."""
        return self._blueprint.single

    @property
    def threshold(self) -> float | None:
        """For one score: the output above which the answer is class 1; None where the graph does not determine it."""
        return self._blueprint.threshold

    @property
    def draws(self) -> tuple[str, ...]:
        """The nodes that draw random numbers in every forward pass, with their operators; empty as a rule."""
        return self._draws

    @property
    def draws_apart(self) -> bool:
        """Whether the model draws random numbers, and different ones for every sample of a batch."""
        return self._blueprint.draws_apart

    def use_mean_draws(self, wanted: bool = True) -> None:
        """Take the mean of each of the model's own draws instead of drawing, so that two runs agree."""
        self._mean_draws = wanted

    def set_offset(self, offset: float) -> None:
        """Set the score that separates the two classes of a model of one score without a sigmoid; 0 by default."""
        self._offset = offset

    @property
    def offset(self) -> float:
        """The score that separates the two classes of a model of one score without a sigmoid."""
        return self._offset

    @property
    def static_batch(self) -> int | None:
        """The batch size the graph is bound to, None where any works (the module takes any in both cases)."""
        return self._blueprint.static_batch

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results should know about the conversion."""
        return self._blueprint.notes

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the computation."""
        return self._blueprint.dtype

    @property
    def dtype_override(self) -> torch.dtype | None:
        """The floating type that `load` was asked for, None for the model's own ones."""
        return self._blueprint.override

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._device

    @property
    def kappas(self) -> dict[str, SiteKappa]:
        """Site id -> its kappa, or one for each channel, rounded to the site's element type."""
        return {name: self._settings.kappas[site.number] for name, site in self.sites.items()}

    @property
    def all_kappas(self) -> dict[str, SiteKappa]:
        """Site id -> its kappa, the jumps that the model has by itself included."""
        return dict(zip(self._ids, self._settings.kappas, strict=True))

    def kappas_with(self, kappas: KappaSetting) -> dict[str, SiteKappa]:
        """Return site id -> kappa of a forward pass with these `PassSettings.kappas`.

        Raises:
            KappaError: A value is not a valid kappa, or an id is unknown.
        """
        return dict(zip(self._ids, self._kappas_by_number(kappas), strict=True))

    @property
    def backwards(self) -> dict[str, SiteBackward]:
        """Site id -> how its derivative is taken."""
        return {name: self._settings.backwards[site.number] for name, site in self.sites.items()}

    @property
    def random(self) -> RandomKappa | None:
        """The range kappa is drawn from in every forward pass, or None."""
        return self._settings.random

    def set_kappa(self, kappa: KappaSetting) -> None:
        """Set the jump of sites; 0 makes a ReLU.

        Args:
            kappa: One number for all sites; a mapping of site id to number, or to one number for each channel of the
                site, which leaves other sites as they are; or None for what the loaded file has.

        Raises:
            KappaError: A value is not a valid kappa, or an id is unknown.
        """
        self._settings.kappas = self._settings.with_kappas(kappa)

    def learn_kappas(self, kappas: Mapping[str, LearnedKappa]) -> None:
        """Compute sites with kappas that are being trained, which `kappas` does not show.

        Raises:
            KappaError: An id is unknown.
        """
        self._settings.learn(kappas)

    def set_kappa_unrounded(self, kappas: Mapping[str, SiteKappa]) -> None:
        """Set the jump of sites to values that their element type need not have, to study what rounding does.

        Raises:
            KappaError: An id is unknown.
        """
        self._settings.set_unrounded(kappas)

    def set_backward(self, backward: BackwardSetting) -> None:
        """Choose how the derivative of sites is taken; the forward pass stays the exact JumpReLU.

        Args:
            backward: One choice for all sites (and the model's own jumps), or a mapping of site id to choice, which
                leaves other sites as they are.

        Raises:
            KappaError: An id is unknown.
        """
        self._settings.set_backward(backward)

    def set_random(
        self,
        low: float | None,
        high: float | None = None,
        per: Literal["network", "site"] = "network",
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw kappa ~ U[low, high] again for every forward pass (paper, appendix C).

        Args:
            low: Lower end; None switches the drawing off.
            high: Upper end.
            per: One draw for the whole network, or one for every site.
            generator: A CPU generator to draw from; None for torch's global one.

        Raises:
            KappaError: The range is empty or no range of kappas.
        """
        self._settings.set_random(random_range(low, high, per), generator)

    @contextlib.contextmanager
    def observing(self, observer: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
        """Call `observer(site id, z, J(z))` at every site of the forward passes inside the `with` block."""
        before, self._observer = self._observer, observer
        try:
            yield
        finally:
            self._observer = before

    def weights(self) -> dict[str, Array]:
        """Return the values of the trainable weights, in the type they are trained in, for `jr_onnx.save_weights`."""
        found = {name: self._template[place] for name, place in self._blueprint.parameters.items()}
        # NumPy has no bfloat16, which float32 holds exactly.
        cpu = {name: value.detach().cpu() for name, value in found.items()}
        return {
            name: (value.float() if value.dtype == torch.bfloat16 else value).numpy() for name, value in cpu.items()
        }

    @property
    def program(self) -> Program:
        """The steps of a forward pass, shared by all clones."""
        return self._blueprint.program

    def is_parameter(self, place: int) -> bool:
        """Return whether a place of the program holds a trainable weight."""
        return place in self._homes

    def parameter_at(self, place: int) -> nn.Parameter:
        """Return the trainable weight that a place of the program holds."""
        home, name = self._homes[place]
        found = home._parameters[name]
        if found is None:
            raise TypeError(f"the parameter {name!r} was taken out of the module")
        return found

    def clone(self) -> OnnxModule:
        """Return a module that shares weights and program, with kappas, derivatives and randomness of its own."""
        constants = {place: self._template[place] for place in self._device_places}
        twin = OnnxModule(self._blueprint, constants).to(self._device)
        twin._settings, twin._offset = self._settings.clone(), self._offset
        twin._mean_draws = self._mean_draws
        return twin

    def forward(self, x: Tensor, settings: PassSettings | None = None) -> Tensor:
        """Return the logits.

        Args:
            x: The input, (N, ...) with any N; converted to the module's floating type.
            settings: What this pass uses in place of the module's own kappas, derivatives and randomness.

        Returns:
            (N, num_classes).

        Raises:
            DataError: The shape does not fit the model's input.
            KappaError: A value of the settings is not a valid kappa, or an id is unknown.
            ModelError: A node cannot be evaluated for this input.
        """
        found = self.scores(x, settings)
        if not self._blueprint.single:
            return found
        # The softmax of (0, z) is the sigmoid of z.
        return torch.cat([torch.zeros_like(found), found - self._offset], dim=1)

    def scores(self, x: Tensor, settings: PassSettings | None = None) -> Tensor:
        """Return the logits as the model has them: `forward`, but for a model of one score (N, 1)."""
        self._check_shape(x)
        x = x.to(self._blueprint.dtype)
        context = self._context(settings or PassSettings())
        size = self._blueprint.static_batch
        whole = size is None or x.shape[0] == size
        logits = self._run(x, context) if whole else self._pieces(x, size or 1, context)
        if not self._blueprint.differentiable and x.requires_grad and torch.is_grad_enabled():
            # An attack must be able to ask for the gradient, and to find that it is zero.
            logits = with_zero_gradient(logits, x)
        return logits

    def _pieces(self, x: Tensor, size: int, context: Context) -> Tensor:
        """Run in pieces of the static batch size, the last one filled up with copies of its last sample."""
        count = x.shape[0]
        missing = -count % size
        if missing:
            x = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])])
        pieces = x.reshape(-1, size, *x.shape[1:])
        if self._blueprint.mappable and context.observer is None and count:
            context.mapped = True
            logits: Tensor = torch.vmap(lambda piece: self._run(piece, context))(pieces)
        elif count:
            logits = torch.stack([self._run(piece, context) for piece in pieces])
        else:
            logits = x.new_zeros((0, size, 1 if self.single else self.num_classes))
        return logits.flatten(0, 1)[:count]

    def _run(self, x: Tensor, context: Context) -> Tensor:
        values = self._template.copy()
        values[self._blueprint.input_place] = x
        execute(self._blueprint.program.steps, values, context)
        logits: Tensor = values[self._blueprint.program.results[0]]
        return logits.flatten(1) if logits.dim() > 1 else logits.unsqueeze(1)

    def _context(self, settings: PassSettings) -> Context:
        kappas = self._settings.in_use() if settings.kappas is None else self._kappas_by_number(settings.kappas)
        own = self._settings.backwards
        backwards = own if settings.backward is None else [settings.backward] * len(own)
        generator = None if settings.seed is None else torch.Generator().manual_seed(settings.seed)
        draw = Draw(generator, self._mean_draws)
        return Context(self._device, kappas, backwards, self._ids, self._observer, draw=draw)

    def _kappas_by_number(self, kappas: KappaSetting) -> Sequence[SiteKappa]:
        return self._settings.kappas if kappas is None else self._settings.with_kappas(kappas)

    def _check_shape(self, x: Tensor) -> None:
        expected: Sequence[int | None] = self._blueprint.input_shape
        fits = x.dim() == len(expected) and all(
            want is None or have == want for have, want in zip(x.shape[1:], expected[1:], strict=True)
        )
        if not fits:
            shown = ", ".join("any" if size is None else str(size) for size in expected)
            raise DataError(
                f"the input has the shape {list(x.shape)}, but {self._blueprint.input_name!r} expects [{shown}]",
                hint="Check the layout (NCHW or NHWC) and the image size",
            )

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> OnnxModule:
        """Move the weights; refuse a change of type, which the compiled casts would not follow."""
        probe = fn(torch.zeros(0, dtype=self._blueprint.dtype))
        if probe.dtype != self._blueprint.dtype:
            raise InputError(
                f"the module computes in {self._blueprint.dtype} and cannot be converted to {probe.dtype}",
                hint="Load the model again with dtype=...",
            )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call] # torch has no types here
        self._refresh()
        return self

    def _refresh(self) -> None:
        """Lay the constants out where the program reads them."""
        self._template = [ABSENT] * self._blueprint.places
        for place, tensor in self._blueprint.host_constants.items():
            self._template[place] = tensor
        self._device = self.get_buffer("anchor").device
        for place in self._device_places:
            home, name = self._homes.get(place, (self, f"constant_{place}"))
            self._template[place] = getattr(home, name) if place in self._homes else self.get_buffer(name)

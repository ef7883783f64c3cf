"""Kappas and derivatives of a module's sites: what the module has set, and what one forward pass uses instead."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from jr_onnx.errors import KappaError
from jr_onnx.kappa import RandomKappa
from jr_onnx.semantics import SiteKappa, round_kappa, validate_site_kappa
from jr_onnx.torchnet.jump import LearnedKappa, SiteBackward
from jr_onnx.torchnet.sites import TorchSite

KappaSetting = float | Mapping[str, float] | Mapping[str, SiteKappa] | None
BackwardSetting = SiteBackward | Mapping[str, SiteBackward]


@dataclass(frozen=True, slots=True)
class PassSettings:
    """What one forward pass uses in place of the module's own settings; None keeps those.

    Attributes:
        kappas: One jump for all retrofit sites, or a mapping of site id to jump (one, or one per channel) that leaves
            other sites as they are.
            Nothing is drawn then.
        backward: The derivative at every site.
        seed: Fixes the random numbers that the model draws by itself.
    """

    kappas: KappaSetting = None
    backward: SiteBackward | None = None
    seed: int | None = None


class SiteSettings:
    """The kappa and the derivative of every site, and the range that kappa is drawn from, if it is.

    Attributes:
        kappas: The kappas, by the site's number.
        backwards: The derivatives, by the site's number.
        random: The range, or None.
        learned: Kappas that are being trained, by the site's number; they replace the others in a forward pass.
    """

    def __init__(self, sites: Sequence[TorchSite]) -> None:
        """Start with the file's kappas and exact derivatives."""
        self._sites = tuple(sites)
        self._by_id = {site.id: site for site in sites}
        self.kappas = [site.kappa for site in sites]
        self.backwards = [SiteBackward.exact()] * len(sites)
        self.random: RandomKappa | None = None
        self.learned: dict[int, LearnedKappa] = {}
        self._generator: torch.Generator | None = None

    def clone(self) -> SiteSettings:
        """Return settings that can be changed independently; they share the generator."""
        twin = copy.copy(self)
        twin.kappas, twin.backwards, twin.learned = list(self.kappas), list(self.backwards), dict(self.learned)
        return twin

    def with_kappas(self, kappa: KappaSetting) -> list[SiteKappa]:
        """Return the kappas by site number, with some or all of them replaced; None for what the file has.

        Raises:
            KappaError: A value is not a valid kappa, or an id is unknown.
        """
        if kappa is None:
            return [site.kappa for site in self._sites]
        chosen: dict[TorchSite, SiteKappa]
        if isinstance(kappa, Mapping):
            chosen = {site: validate_site_kappa(kappa[site.id], f"kappa of {site.id}") for site in self._named(kappa)}
        else:
            chosen = {site: kappa for site in self._sites if site.form != "own_jump"}
        found = list(self.kappas)
        for site, value in chosen.items():
            found[site.number] = round_kappa(value, site.dtype)
        return found

    def set_unrounded(self, kappas: Mapping[str, SiteKappa]) -> None:
        """Set kappas that the sites' element types need not have.

        Raises:
            KappaError: An id is unknown.
        """
        for site in self._named(kappas):
            self.kappas[site.number] = kappas[site.id]

    def set_backward(self, backward: BackwardSetting) -> None:
        """Set the derivative of all sites, or of those that a mapping names.

        Raises:
            KappaError: An id is unknown.
        """
        if isinstance(backward, SiteBackward):
            self.backwards = [backward] * len(self._sites)
            return
        for site in self._named(backward):
            self.backwards[site.number] = backward[site.id]

    def learn(self, kappas: Mapping[str, LearnedKappa]) -> None:
        """Use kappas that are being trained at some sites.

        Raises:
            KappaError: An id is unknown.
        """
        self.learned.update({site.number: kappas[site.id] for site in self._named(kappas)})

    def in_use(self) -> Sequence[SiteKappa | LearnedKappa]:
        """Return the kappas of one forward pass by site number, those that are being trained included."""
        kappas = self.draw()
        return [self.learned.get(number, kappa) for number, kappa in enumerate(kappas)] if self.learned else kappas

    def set_random(self, random: RandomKappa | None, generator: torch.Generator | None) -> None:
        """Draw kappa from a range, by a CPU generator (None: torch's global one); None stops that."""
        self.random, self._generator = random, generator if random is not None else None

    def draw(self) -> list[SiteKappa]:
        """Return the kappas of one forward pass by site number: those that are set, or drawn ones."""
        if self.random is None:
            return self.kappas
        low, high, per = self.random.low, self.random.high, self.random.per
        sites = [site for site in self._sites if site.form != "own_jump"]
        shared = self._uniform(low, high) if per == "network" else None
        found = list(self.kappas)
        for site in sites:
            found[site.number] = round_kappa(self._uniform(low, high) if shared is None else shared, site.dtype)
        return found

    def _uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self._generator, dtype=torch.float64).item())

    def _named(self, names: Iterable[str]) -> list[TorchSite]:
        unknown = [name for name in names if name not in self._by_id]
        if unknown:
            known = list(self._by_id)
            shown = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
            raise KappaError(f"the model has no site {unknown[0]!r}, its sites are {shown or 'none'}")
        return [self._by_id[name] for name in names]


def random_range(low: float | None, high: float | None, per: Literal["network", "site"]) -> RandomKappa | None:
    """Return the range of a random kappa, None where `low` is None.

    Raises:
        KappaError: The range is empty or no range of kappas.
    """
    if low is None:
        return None
    if high is None:
        raise KappaError(f"the random range starts at {low} and has no upper end, expected low < high")
    return RandomKappa(low, high, per)

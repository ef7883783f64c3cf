"""Which kappa goes to which site: uniform, per site, per channel, randomised U[low, high], or a runtime input.

The paper uses one kappa for all sites (section 3) and, in appendix C, a new random one for every forward
pass. A plan holds what was asked for; rounding to a site's dtype is `semantics.round_kappa`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from jr_onnx.errors import KappaError, one_line, require_choice
from jr_onnx.records import Record, parse, read_regular
from jr_onnx.semantics import SiteKappa, kappa_label, validate_kappa, validate_site_kappa

DEFAULT_INPUT_NAME = "jr_kappa"
RandomPer = Literal["network", "site"]
RandomSource = Literal["input", "op", "graph"]


@dataclass(frozen=True, slots=True)
class RandomKappa(Record):
    """kappa ~ U[low, high], drawn once per forward pass (paper, appendix C).

    Attributes:
        low: Lower end, included.
        high: Upper end.
        per: One draw for the whole network, or one for every site.
        source: Who draws: the session into a runtime input, the custom op from the operating system's entropy,
            or the standard operator RandomUniform inside the graph (portable, but predictable).
    """

    SCHEMA: ClassVar[str] = "jr_onnx.random_kappa/1"
    low: float
    high: float
    per: RandomPer = "network"
    source: RandomSource = "input"

    def __post_init__(self) -> None:
        """Refuse a range that is empty or not a range of kappas, and words that mean nothing here."""
        require_choice("per of a random kappa", self.per, get_args(RandomPer))
        require_choice("source of a random kappa", self.source, get_args(RandomSource))
        # Floats, for whole numbers would become attributes of type INT, which the operators do not take.
        object.__setattr__(self, "low", validate_kappa(self.low, "the lower end of the random kappa"))
        object.__setattr__(self, "high", validate_kappa(self.high, "the upper end of the random kappa"))
        if not self.low < self.high:
            raise KappaError(f"the random range is {self.low} to {self.high}, expected low < high")

    @property
    def middle(self) -> float:
        """The kappa that is used where nothing draws."""
        return (self.low + self.high) / 2


@dataclass(frozen=True, slots=True)
class KappaPlan(Record):
    """The kappa of every site.

    Attributes:
        kappa: For every site that `by_site` does not name; None leaves those sites as they are.
        by_site: Pairs of site id or regular expression (searched in the id) and kappa: a number, or one for each
            channel of the site (axis 1 of its tensor). What is the id of a site means
            that site alone and wins over expressions; among expressions the first match wins.
        random: Draw kappa instead.
        input_name: kappa is an optional scalar graph input of this name; `kappa` is its default.
        own: The sites are the jumps that the model has itself, each with its own thresholds (`fuse`).
    """

    SCHEMA: ClassVar[str] = "jr_onnx.kappa_plan/1"
    kappa: float | None = None
    by_site: tuple[tuple[str, SiteKappa], ...] = ()
    random: RandomKappa | None = None
    input_name: str | None = None
    own: bool = False

    def __post_init__(self) -> None:
        """Refuse contradictory plans, and invalid kappas."""
        if self.kappa is not None:
            validate_kappa(self.kappa)
        valid = tuple((pattern, validate_site_kappa(value, f"kappa of {pattern!r}")) for pattern, value in self.by_site)
        object.__setattr__(self, "by_site", valid)
        for pattern, _ in valid:
            _require_text(pattern, "an entry of the kappa map")
        if self.random is not None and (self.kappa is not None or self.by_site):
            raise KappaError("a random kappa excludes a fixed one", hint="Give either a range or a value")
        if self.input_name is not None:
            if self.random is not None and self.random.source != "input":
                raise KappaError(
                    f"a kappa drawn by the {self.random.source} excludes a kappa input", hint="Use one of the two"
                )
            _require_text(self.input_name, "the name of the kappa input")
            if self.input_name == "":
                raise KappaError("the name of the kappa input is empty, expected a tensor name")
            if self.by_site:
                raise KappaError(
                    "a kappa input is one scalar for all sites, it excludes a kappa map",
                    hint="Use one of the two",
                )
            if self.kappa is None and self.random is None:
                raise KappaError("a kappa input needs a default", hint="Give --kappa or --random too")
        given = self.kappa is not None or bool(self.by_site) or self.random is not None
        if self.own and (given or self.input_name is not None):
            raise KappaError(
                "the thresholds of the model's own jumps exclude another kappa", hint="Give one of the two"
            )
        if not given and not self.own:
            raise KappaError("no kappa was given", hint="Give --kappa, --kappa-map or --random")

    @classmethod
    def of(cls, kappa: Kappa) -> KappaPlan:
        """Make a plan from a number, a mapping of site patterns to kappas, a random range or a plan.

        The kappa of a pattern is a number, or a list or 1-D array of one number for each channel.
        """
        if isinstance(kappa, KappaPlan):
            return kappa
        if isinstance(kappa, RandomKappa):
            return cls(random=kappa, input_name=DEFAULT_INPUT_NAME if kappa.source == "input" else None)
        if isinstance(kappa, Mapping):
            pairs = ((str(key), validate_site_kappa(value, f"kappa of {key!r}")) for key, value in kappa.items())
            return cls(by_site=tuple(pairs))
        if isinstance(validate_site_kappa(kappa), tuple):
            raise KappaError(
                "kappa is a list, expected one number for all sites",
                hint="Values per channel belong to a site: give a mapping of site ids to lists",
            )
        return cls(kappa=validate_kappa(kappa))

    def settled(self, site_ids: Iterable[str]) -> KappaPlan:
        """Return the plan for a model with these sites: an entry that is an id of one no longer matches others.

        Otherwise an entry for relu1 would be searched, and found, in relu10 too.
        """
        ids = set(site_ids)
        exact = [(_only(pattern), value) for pattern, value in self.by_site if pattern in ids]
        others = [pair for pair in self.by_site if pair[0] not in ids]
        return replace(self, by_site=(*exact, *others))

    @property
    def has_expressions(self) -> bool:
        """Whether the map holds anything but what `settled` makes of ids."""
        return any(_id_of(pattern) is None for pattern, _ in self.by_site)

    def for_site(self, site_id: str) -> SiteKappa | None:
        """Return the wanted kappa of a site, None where the plan leaves it alone."""
        return self.for_sites([site_id])[site_id]

    def for_sites(self, site_ids: Iterable[str]) -> dict[str, SiteKappa | None]:
        """Return the wanted kappa of every site, None where the plan leaves it alone.

        Entries that are ids are looked up, so that a map of thousands of them takes no longer than it is long; every
        other entry is an expression that is searched in every id.
        """
        if self.random is not None:
            return dict.fromkeys(site_ids, self.random.middle)
        exact: dict[str, SiteKappa] = {}
        settled: dict[str, tuple[int, SiteKappa | None]] = {}
        expressions: list[tuple[int, str, SiteKappa]] = []
        for place, (pattern, value) in enumerate(self.by_site):
            exact.setdefault(pattern, value)
            site = _id_of(pattern)
            if site is None:
                expressions.append((place, pattern, value))
            else:
                settled.setdefault(site, (place, value))
        found: dict[str, SiteKappa | None] = {}
        for site in site_ids:
            place, wanted = settled.get(site, (len(self.by_site), self.kappa))
            match = next((item for item in expressions if item[0] < place and _compile(item[1]).search(site)), None)
            found[site] = exact[site] if site in exact else wanted if match is None else match[2]
        return found

    def label(self, kappa: SiteKappa) -> str:
        """Return the kappa of a site for people: a number, a range (of channels or draws), or the input it comes from.

        Args:
            kappa: What the site's record holds: of a range its middle, of an input its default.
        """
        if self.random is not None:
            return f"U[{self.random.low:g}, {self.random.high:g}]"
        shown = kappa_label(kappa)
        return shown if self.input_name is None else f"input {self.input_name!r}, default {shown}"

    def unmatched(self, site_ids: Iterable[str]) -> list[str]:
        """Return the patterns of the map that name no site."""
        ids = dict.fromkeys(site_ids)
        lost = []
        for pattern, _ in self.by_site:
            site = _id_of(pattern)
            if pattern in ids or site in ids:
                continue
            if site is not None or not any(_compile(pattern).search(item) for item in ids):
                lost.append(pattern)
        return lost


Kappa = float | Mapping[str, float] | Mapping[str, Sequence[float]] | Mapping[str, SiteKappa] | KappaPlan | RandomKappa
"""What a caller may give for kappa: one for all sites, one or one per channel for each site id or pattern, a random
range, or a plan."""


def read_kappa_map(path: Path) -> dict[str, SiteKappa]:
    """Read a JSON or YAML file that maps site ids or regular expressions to kappas.

    A kappa is a number, or a list of one number for each channel.

    Raises:
        KappaError: The file cannot be read or does not hold such a mapping.
    """
    import yaml

    try:
        text = read_regular(path).decode()
        try:  # PyYAML takes minutes for the millions of values that JSON is read with in a second.
            content: Any = parse(text)
        except (ValueError, RecursionError):
            content = yaml.load(text, Loader=_strict_loader())  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise KappaError(f"cannot read the kappa map {path}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # PyYAML lets ValueError out for a number of thousands of digits, RecursionError for thousands of brackets.
        where = one_line(error)
        raise KappaError(f"the kappa map {path} is neither JSON nor YAML: {where}") from None
    if not isinstance(content, dict) or not content:
        found = "nothing" if content is None or content == {} else type(content).__name__
        raise KappaError(
            f"the kappa map {path} holds {found}, expected a mapping",
            hint="Write site ids or regular expressions and their kappas, for instance: conv1/Relu: 0.06",
        )
    result: dict[str, SiteKappa] = {}
    for key, value in content.items():
        if str(key) in result:
            raise KappaError(f"the kappa map names {str(key)!r} twice, as a string and as a number")
        if isinstance(value, bool):
            raise KappaError(f"the kappa map {path} gives {key!r} the value {value!r}, expected a number")
        # YAML 1.1 reads 1e-3 as a string; validate_kappa takes it for the number it is.
        result[str(key)] = validate_site_kappa(value, f"kappa of {key!r} in {path}")
    return result


def _strict_loader() -> Any:
    """Return PyYAML's safe loader, refusing duplicate keys (PyYAML silently keeps the last)."""
    import yaml

    class StrictLoader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            seen: set[str] = set()
            for key in keys:
                if repr(key) in seen:
                    raise KappaError(f"the kappa map names {key!r} twice")
                seen.add(repr(key))
            return super().construct_mapping(node, deep)

    return StrictLoader


def _require_text(text: str, what: str) -> None:
    """Refuse what is not text (bytes of a command line that are not UTF-8, half a character): no model can hold it.

    Raises:
        KappaError: It cannot be written as UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise KappaError(f"{what} is {text!r}, which is not text", hint="Use characters that UTF-8 has") from None


def _only(site_id: str) -> str:
    """Return the expression that a settled plan has in the place of an id."""
    return rf"\A{re.escape(site_id)}\Z"


def _id_of(pattern: str) -> str | None:
    """Return the id that an expression of `_only` stands for, None for any other."""
    if not (pattern.startswith(r"\A") and pattern.endswith(r"\Z")):
        return None
    site_id = re.sub(r"\\(.)", r"\1", pattern[2:-2], flags=re.DOTALL)
    return site_id if _only(site_id) == pattern else None


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        # A site id may hold characters that are not a valid expression, for instance an unbalanced bracket.
        return re.compile(re.escape(pattern))

r"""The kinds of parameters in a search space.

| table of the space file            | kind       | a trial chooses                                                         |
|------------------------------------|------------|-------------------------------------------------------------------------|
| `[parameters.pair]`                | `Pairs`    | one posterior\|prior pair for all latents                               |
| `[parameters.pairing]`             | `Pairings` | several pairs and how many latents each of them has                     |
| any setting, with `choices`        | `Choices`  | one of several values                                                   |
| any setting, with `low` and `high` | `Range`    | a number, whole if both ends are whole; logarithmic or in steps         |

Every kind has the same contract: which settings of VAESpec it decides (`decides`), how a trial chooses (`suggest`), which
choice leads to given settings (`params_of`), the number of choices (`size`), their list (`points`), and a description
(`describe`). Latents are exchangeable: choices that differ only in the order of latents are one belief, written in the
order of the space's pairs.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import optuna
from pydantic import BaseModel, ConfigDict, Field, model_validator

from autovae.finiteness import TAILS, finiteness
from autovae.registry import lookup
from autovae.spec import Pair, VAESpec, largest_remainder

__all__ = ["Choices", "Pairings", "Pairs", "Parameter", "Range", "label", "parse_pair"]

Params = dict[str, Any]  # a choice, by the sampler's names
Settings = dict[str, Any]  # keyword arguments of VAESpec


class Parameter(BaseModel):
    """One table under [parameters]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def decides(self, name: str) -> tuple[str, ...]:
        """The settings of VAESpec that this parameter decides."""
        return (name,)

    @abstractmethod
    def suggest(self, name: str, trial: optuna.Trial) -> Settings:
        """The settings this trial chooses."""

    @abstractmethod
    def params_of(self, name: str, settings: Mapping[str, Any]) -> Params:
        """The sampler's parameters that lead to `settings`; empty if they do not fix it or it cannot choose them."""

    @property
    def values(self) -> Sequence[Any] | None:
        """The values of a parameter with a single value; None if the range is continuous."""
        return None

    @property
    def size(self) -> int | None:
        """The number of different choices; None if the range is continuous."""
        return None if self.values is None else len(self.values)

    def points(self, name: str) -> Iterator[Params]:
        """Every choice, as the sampler's parameters. Raises `ValueError` if there are infinitely many."""
        if self.values is None:
            raise ValueError(f"{name} is continuous ({self.describe()}), so it has no grid; give it a step or choices")
        return ({name: value} for value in self.values)

    @abstractmethod
    def describe(self) -> str:
        """The possible choices, in words."""

    @abstractmethod
    def example(self, name: str) -> Settings:
        """An example choice, to check that a study and its space fit together."""


class Pairs(Parameter):
    """The pair of all latents: a list, or every finite combination of posteriors and priors."""

    choices: list[str] | None = None
    posteriors: list[str] | None = None
    priors: list[str] | None = None

    @model_validator(mode="after")
    def _check_pairs(self) -> Pairs:
        if (self.choices is None) == (self.posteriors is None or self.priors is None):
            raise ValueError("give either choices = ['posterior|prior', ...], or both posteriors and priors")
        if not self.pairs:
            raise ValueError(
                "no pair is left: every combination is infinite; see `autovae beliefs` for the finite ones"
            )
        return self

    @cached_property
    def pairs(self) -> list[Pair]:
        """The pairs a trial may choose. A listed infinite pair is an error; in a product it is skipped."""
        if self.choices is not None:
            pairs = [parse_pair(text) for text in self.choices]
            for q, p in pairs:
                VAESpec(posterior=q, prior=p, latent_dim=1)
            return pairs
        for name in (*(self.posteriors or ()), *(self.priors or ())):
            lookup(TAILS, name, "family")
        return [(q, p) for q in self.posteriors or () for p in self.priors or () if finiteness(q, p) != "infinite"]

    @cached_property
    def texts(self) -> list[str]:
        return ["|".join(pair) for pair in self.pairs]

    def decides(self, name: str) -> tuple[str, ...]:
        return ("posterior", "prior")

    def suggest(self, name: str, trial: optuna.Trial) -> Settings:
        return _all_alike(trial.suggest_categorical(name, self.texts))

    def params_of(self, name: str, settings: Mapping[str, Any]) -> Params:
        text = f"{settings.get('posterior')}|{settings.get('prior')}"
        return {name: text} if text in self.texts else {}

    @property
    def values(self) -> Sequence[str]:
        return self.texts

    def describe(self) -> str:
        return f"{len(self.pairs)} pairs: " + ", ".join(self.texts)

    def example(self, name: str) -> Settings:
        return _all_alike(self.texts[0])


class Pairings(Pairs):
    """Several pairs and the latents of each, in one of four encodings.

    two, three   pair1, pair2 (, pair3) and the number of latents n2 (, n3) that the later pairs take
    simplex      a number u for every pair; shares -log u, normalised (uniform on the simplex for uniform u), rounded by
                 largest remainder
    per_latent   one categorical per latent, to compare shares with; latents are exchangeable, so the space holds
                 every belief many times
    """

    encoding: Literal["two", "three", "simplex", "per_latent"] = "two"
    latents: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _check_latents(self) -> Pairings:
        need = {"two": 2, "three": 3}.get(self.encoding, 1)
        if self.latents is not None and self.latents < need:
            raise ValueError(
                f"{need} pairs cannot share {self.latents} latents; raise latents (or fixed.latent_dim) to {need} or more"
            )
        return self

    @property
    def count(self) -> int:
        """The number of latents to distribute."""
        if self.latents is None:
            raise ValueError("shares need the number of latents: give latents here, or latent_dim under [fixed]")
        return self.latents

    @property
    def places(self) -> int:
        """The largest number of pairs in a trial, for encodings that name them."""
        return {"two": 2, "three": 3}[self.encoding]

    def settings_of(self, counts: Mapping[str, int]) -> Settings:
        """Posterior and prior of every latent, in the order of the space's pairs."""
        names = [text for text in self.texts for _ in range(counts.get(text, 0))]
        pairs = [parse_pair(text) for text in names]
        return {"posterior": [q for q, _ in pairs], "prior": [p for _, p in pairs]}

    def suggest(self, name: str, trial: optuna.Trial) -> Settings:
        texts, counts = self.texts, dict.fromkeys(self.texts, 0)
        if self.encoding == "simplex":
            weights = {text: -math.log(trial.suggest_float(f"share {text}", *UNIT)) for text in texts}
            if not any(weights.values()):
                weights = dict.fromkeys(texts, 1.0)
            counts |= largest_remainder(weights, self.count)
        elif self.encoding == "per_latent":
            for place in range(self.count):
                counts[str(trial.suggest_categorical(f"latent {place}", texts))] += 1
        else:
            pairs = [f"pair{place}" for place in range(1, self.places + 1)]
            later = [f"n{place}" for place in range(2, self.places + 1)]
            point: Params = {name: trial.suggest_categorical(name, texts) for name in pairs}
            counts |= self._counts(point | {name: trial.suggest_int(name, 0, self._most) for name in later})
        return self.settings_of(counts)

    @property
    def _most(self) -> int:
        """The most latents of a later pair: an equal share, so that the first pair is the most common."""
        return self.count // self.places

    def params_of(self, name: str, settings: Mapping[str, Any]) -> Params:
        """Supports only pairings of one pair, as for the baseline."""
        text = f"{settings.get('posterior')}|{settings.get('prior')}"
        if text not in self.texts:
            return {}
        if self.encoding == "simplex":
            return {f"share {other}": 0.5 if other == text else UNIT[1] for other in self.texts}
        if self.encoding == "per_latent":
            return {f"latent {place}": text for place in range(self.count)}
        pairs = {f"pair{place}": text for place in range(1, self.places + 1)}
        return {**pairs, **{f"n{place}": 0 for place in range(2, self.places + 1)}}

    @property
    def size(self) -> int | None:
        """The number of different beliefs: multisets of pairs within the reach of the encoding."""
        if self.encoding in ("simplex", "per_latent"):
            return math.comb(self.count + len(self.texts) - 1, len(self.texts) - 1)
        return len({tuple(sorted(self._counts(point).items())) for point in self.points("pairing")})

    def _counts(self, point: Params) -> dict[str, int]:
        """The number of latents of each pair, for encodings that name pairs."""
        later = [int(point[f"n{place}"]) for place in range(2, self.places + 1)]
        counts: Counter[str] = Counter()
        for place, share in enumerate([self.count - sum(later), *later], 1):
            counts[str(point[f"pair{place}"])] += share
        return {text: count for text, count in counts.items() if count}

    def points(self, name: str) -> Iterator[Params]:
        if self.encoding == "per_latent":  # every belief once, though the encoding holds it many times
            places = [f"latent {place}" for place in range(self.count)]
            for texts in itertools.combinations_with_replacement(self.texts, self.count):
                yield dict(zip(places, texts, strict=True))
            return
        if self.encoding == "simplex":
            raise ValueError("encoding 'simplex' is continuous and has no grid; use 'two', 'three' or 'per_latent'")
        pairs = [f"pair{place}" for place in range(1, self.places + 1)]
        shares = [f"n{place}" for place in range(2, self.places + 1)]
        for chosen in itertools.product(self.texts, repeat=self.places):
            for later in itertools.product(range(self._most + 1), repeat=self.places - 1):
                yield {**dict(zip(pairs, chosen, strict=True)), **dict(zip(shares, later, strict=True))}

    def describe(self) -> str:
        return f"shares of {self.count} latents ({self.encoding}) among {super().describe()}"

    def example(self, name: str) -> Settings:
        return self.settings_of({self.texts[0]: self.count})


UNIT = (1e-4, 1.0)  # where a simplex weight -log u is finite, and 0 at the end


class Choices(Parameter):
    """One of several values."""

    choices: list[str | int | float | bool | list[int]] = Field(min_length=1)

    def suggest(self, name: str, trial: optuna.Trial) -> Settings:
        labels = {label(value): value for value in self.choices}
        return {name: labels[str(trial.suggest_categorical(name, list(labels)))]}

    def params_of(self, name: str, settings: Mapping[str, Any]) -> Params:
        return {name: label(settings[name])} if name in settings else {}

    @property
    def values(self) -> Sequence[str]:
        return [label(value) for value in self.choices]

    def describe(self) -> str:
        return ", ".join(label(value) for value in self.choices)

    def example(self, name: str) -> Settings:
        return {name: self.choices[0]}


class Range(Parameter):
    """A number between low and high, whole if both are whole; logarithmic or in steps on request."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @model_validator(mode="after")
    def _check(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low > 0, got {self.low}")
        if self.log and self.step is not None:
            raise ValueError("a range is either logarithmic or in steps")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def suggest(self, name: str, trial: optuna.Trial) -> Settings:
        if self.whole:
            step = int(self.step or 1)
            return {name: trial.suggest_int(name, int(self.low), int(self.high), log=self.log, step=step)}
        return {name: trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)}

    def params_of(self, name: str, settings: Mapping[str, Any]) -> Params:
        return {name: settings[name]} if name in settings else {}

    @property
    def values(self) -> Sequence[int | float] | None:
        if self.whole:
            return list(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.step is None:
            return None
        steps = math.floor((self.high - self.low) / self.step + 1e-9)
        return [self.low + place * self.step for place in range(steps + 1)]

    def describe(self) -> str:
        kind = " (log)" if self.log else f" in steps of {self.step}" if self.step else ""
        return f"{self.low} .. {self.high}{kind}"

    def example(self, name: str) -> Settings:
        return {name: self.low}


def parse_pair(text: str) -> Pair:
    """(posterior, prior) of "posterior|prior"."""
    parts = [part.strip() for part in text.split("|")]
    if len(parts) != 2:
        raise ValueError(f"a pair is written 'posterior|prior', got {text!r}")
    for name in parts:
        lookup(TAILS, name, "family")
    return parts[0], parts[1]


def _all_alike(text: Any) -> Settings:
    posterior, prior = parse_pair(str(text))
    return {"posterior": posterior, "prior": prior}


def label(value: Any) -> str:
    """A choice as Optuna stores it: text, whatever its type."""
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

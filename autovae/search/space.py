r"""Search spaces: a TOML file that says which beliefs and settings a study may choose, and how a trial chooses them.

    purpose = "All finite pairs of seven families, with three likelihoods"
    extends = "other_space"                # optional: start from another space, override or add below

    [parameters.pair]                      # one posterior|prior pair for all latents; infinite pairs are left out
    posteriors = ["normal", "laplace"]
    priors = ["normal", "cauchy"]          # or: choices = ["normal|normal", "logistic|normal"]

    [parameters.likelihood]                # any setting of VAESpec: choices,
    choices = ["bernoulli", "normal"]

    [parameters.learning_rate]             # or a range, optionally log or in steps
    low = 1e-4
    high = 1e-2
    log = true

    [fixed]                                # settings of VAESpec that all trials share
    latent_dim = 8

A sampler sees the space as flat, unconditional parameters: a categorical of the finite pairs never suggests an infinite
one, and importance can be read for posterior and prior apart, whatever the encoding was.
Not here: what is done with a spec (`objective`), how many trials (`study`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from pydantic import BaseModel, ConfigDict, Field, model_validator

from autovae.finiteness import TAILS, finiteness
from autovae.search.files import find_file, read_toml, validated
from autovae.spec import Pair, VAESpec, field_names
from autovae.tables import lookup, unknown

__all__ = ["Choices", "Pairs", "Range", "Space", "load_space"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pairs(_Strict):
    """The pair of all latents: a list, or every finite combination of posteriors and priors."""

    choices: list[str] | None = None
    posteriors: list[str] | None = None
    priors: list[str] | None = None

    @model_validator(mode="after")
    def _check(self) -> Pairs:
        if (self.choices is None) == (self.posteriors is None or self.priors is None):
            raise ValueError("give either choices = ['posterior|prior', ...], or both posteriors and priors")
        if not self.pairs:
            raise ValueError(
                "no pair is left: every combination is infinite; see `autovae beliefs` for the finite ones"
            )
        return self

    @property
    def pairs(self) -> list[Pair]:
        """The pairs that a trial may choose. A listed pair that is infinite is an error; in a product it is left out."""
        if self.choices is not None:
            pairs = [parse_pair(text) for text in self.choices]
            for q, p in pairs:
                VAESpec(posterior=q, prior=p, latent_dim=1)
            return pairs
        for name in (*(self.posteriors or ()), *(self.priors or ())):
            lookup(TAILS, name, "family")
        return [(q, p) for q in self.posteriors or () for p in self.priors or () if finiteness(q, p) != "infinite"]


class Choices(_Strict):
    """One of several values."""

    choices: list[str | int | float | bool | list[int]] = Field(min_length=1)


class Range(_Strict):
    """A number between low and high, whole where both are whole; logarithmic or in steps if said."""

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


Parameter = Pairs | Choices | Range


class SpaceFile(_Strict):
    """A file under search_spaces/."""

    purpose: str = ""
    extends: str | None = None
    parameters: dict[str, dict[str, Any]] = {}
    fixed: dict[str, Any] = {}


def parse_pair(text: str) -> Pair:
    """(posterior, prior) of "posterior|prior"."""
    parts = [part.strip() for part in text.split("|")]
    if len(parts) != 2:
        raise ValueError(f"a pair is written 'posterior|prior', got {text!r}")
    for name in parts:
        lookup(TAILS, name, "family")
    return parts[0], parts[1]


class Space:
    """A checked search space: parameters by name, and the settings that all trials share."""

    def __init__(self, name: str, purpose: str, parameters: Mapping[str, Parameter], fixed: Mapping[str, Any]) -> None:
        self.name, self.purpose = name, purpose
        self.parameters, self.fixed = dict(parameters), dict(fixed)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """The settings that this trial chooses, as keyword arguments of VAESpec."""
        settings: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if isinstance(parameter, Pairs):
                text = trial.suggest_categorical(name, ["|".join(pair) for pair in parameter.pairs])
                settings["posterior"], settings["prior"] = parse_pair(str(text))
            elif isinstance(parameter, Choices):
                labels = {label(value): value for value in parameter.choices}
                settings[name] = labels[str(trial.suggest_categorical(name, list(labels)))]
            elif isinstance(parameter.low, int) and isinstance(parameter.high, int):
                step = int(parameter.step or 1)
                settings[name] = trial.suggest_int(name, parameter.low, parameter.high, log=parameter.log, step=step)
            else:
                settings[name] = trial.suggest_float(
                    name, parameter.low, parameter.high, log=parameter.log, step=parameter.step
                )
        return settings

    def params_of(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The sampler's parameters that lead to these settings; what they leave open is left to the sampler."""
        params: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if isinstance(parameter, Pairs):
                pair = f"{settings.get('posterior')}|{settings.get('prior')}"
                if pair in {"|".join(other) for other in parameter.pairs}:
                    params[name] = pair
            elif name in settings:
                params[name] = label(settings[name]) if isinstance(parameter, Choices) else settings[name]
        return params

    @property
    def size(self) -> int | None:
        """How many different beliefs there are; None where a range is continuous."""
        total = 1
        for parameter in self.parameters.values():
            if isinstance(parameter, Pairs):
                total *= len(parameter.pairs)
            elif isinstance(parameter, Choices):
                total *= len(parameter.choices)
            elif isinstance(parameter.low, int) and isinstance(parameter.high, int):
                total *= len(range(parameter.low, parameter.high + 1, int(parameter.step or 1)))
            else:
                return None
        return total

    def describe(self) -> list[tuple[str, str]]:
        """(parameter, what it may be), in words."""
        rows = []
        for name, parameter in self.parameters.items():
            if isinstance(parameter, Pairs):
                rows.append((name, f"{len(parameter.pairs)} pairs: " + ", ".join("|".join(p) for p in parameter.pairs)))
            elif isinstance(parameter, Choices):
                rows.append((name, ", ".join(label(value) for value in parameter.choices)))
            else:
                kind = " (log)" if parameter.log else f" in steps of {parameter.step}" if parameter.step else ""
                rows.append((name, f"{parameter.low} .. {parameter.high}{kind}"))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """The resolved space as plain values, without what is unset."""
        return {
            "name": self.name,
            "purpose": self.purpose,
            "parameters": {name: p.model_dump(exclude_none=True) for name, p in self.parameters.items()},
            "fixed": self.fixed,
        }


def label(value: Any) -> str:
    """A choice as Optuna stores it: text, whatever its type."""
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _parameter(name: str, table: Mapping[str, Any], where: str) -> Parameter:
    kind: type[Parameter]
    if name == "pair":
        kind = Pairs
    elif name not in field_names() or name in ("posterior", "prior", "seed", "data_seed"):
        known = ["pair", *(f for f in field_names() if f not in ("posterior", "prior", "seed", "data_seed"))]
        raise ValueError(f"{where}: {unknown(name, known, 'parameter')}")
    else:
        kind = Choices if "choices" in table else Range
    parameter = validated(kind, table, f"{where}: parameters.{name}")
    if isinstance(parameter, Choices):
        for value in parameter.choices:
            try:
                VAESpec.from_dict({name: value})
            except (ValueError, TypeError) as error:
                raise ValueError(f"{where}: parameters.{name}: {error}") from None
    return parameter


def load_space(name: str | Path, _seen: tuple[str, ...] = ()) -> Space:
    """The space of a name (search_spaces/NAME.toml) or a path. Raises `ValueError` naming file, place and remedy."""
    path = find_file("search_spaces", name)
    where = str(path)
    if where in _seen:
        raise ValueError(f"{where}: spaces extend each other in a circle: {' -> '.join((*_seen, where))}")
    file = validated(SpaceFile, read_toml(path), where)
    parameters: dict[str, Parameter] = {}
    fixed: dict[str, Any] = {}
    if file.extends:
        parent = load_space(file.extends, (*_seen, where))
        parameters, fixed = dict(parent.parameters), dict(parent.fixed)
    parameters |= {key: _parameter(key, table, where) for key, table in file.parameters.items()}
    fixed |= file.fixed
    for key in fixed:
        if key not in field_names():
            raise ValueError(f"{where}: fixed: {unknown(key, field_names(), 'setting of VAESpec')}")
        parameters.pop(key, None)
    if not parameters:
        raise ValueError(f"{where}: the space is empty; give at least one [parameters.NAME] table")
    return Space(path.stem, file.purpose, parameters, fixed)

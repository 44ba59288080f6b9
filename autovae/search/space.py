r"""Search spaces: TOML files with the beliefs and settings that a trial may choose.

    purpose = "All finite pairs of seven families, with three likelihoods"
    extends = "other_space"                # optional: start from another space, override or add below

    [parameters.pair]                      # one posterior|prior pair for all latents; infinite pairs are left out
    posteriors = ["normal", "laplace"]
    priors = ["normal", "cauchy"]          # or: choices = ["normal|normal", "logistic|normal"]

    [parameters.pairing]                   # or several pairs with shares of the latents (see `parameters`)
    choices = ["normal|normal", "logistic|normal"]
    encoding = "two"

    [parameters.likelihood]                # any setting of VAESpec: choices,
    choices = ["bernoulli", "normal"]

    [parameters.learning_rate]             # or a range, optionally log or in steps
    low = 1e-4
    high = 1e-2
    log = true

    [parameters.depth]                     # hidden = [width] * depth; depth and width replace hidden
    low = 1
    high = 3

    [fixed]                                # settings of VAESpec that all trials share
    latent_dim = 8

Samplers see flat, unconditional parameters: a categorical over the finite pairs never suggests an infinite one, and fANOVA
reports posterior and prior separately under every encoding. `canonical` gives each belief a unique form. `schema()` is the
JSON schema of these files, for editors.
Not here: the kinds of parameters (`parameters`), training a spec (`evaluate`), the number of trials (`study`).
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import optuna
from pydantic import BaseModel, ConfigDict

from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.registry import unknown
from autovae.search.files import find_file, read_toml, validated
from autovae.search.parameters import Choices, Pairings, Pairs, Parameter, Range, Settings
from autovae.spec import VAESpec, field_names

__all__ = ["Space", "SpaceFile", "belief_key", "canonical", "load_space", "schema"]

PAIRED: dict[str, type[Pairs]] = {"pair": Pairs, "pairing": Pairings}
DERIVED = ("depth", "width")  # together they give `hidden`
NOT_SEARCHED = ("posterior", "prior", "seed", "data_seed")


class SpaceFile(BaseModel):
    """A file under search_spaces/."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purpose: str = ""
    extends: str | None = None
    parameters: dict[str, dict[str, Any]] = {}
    fixed: dict[str, Any] = {}


class Space:
    """A checked search space: parameters by name, and the settings that all trials share."""

    def __init__(self, name: str, purpose: str, parameters: Mapping[str, Parameter], fixed: Mapping[str, Any]) -> None:
        self.name, self.purpose = name, purpose
        self.parameters, self.fixed = dict(parameters), dict(fixed)

    def suggest(self, trial: optuna.Trial) -> Settings:
        """The settings that this trial chooses, as keyword arguments of VAESpec."""
        settings: Settings = {}
        for name, parameter in self.parameters.items():
            settings |= parameter.suggest(name, trial)
        return _with_hidden(settings)

    def params_of(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The sampler's parameters that lead to these settings; the sampler chooses the others."""
        params: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            params |= parameter.params_of(name, settings)
        return params

    def points(self) -> Iterator[dict[str, Any]]:
        """Every choice of a finite space, in the sampler's parameters. Raises `ValueError` naming a continuous range."""
        each = [list(parameter.points(name)) for name, parameter in self.parameters.items()]
        for combination in itertools.product(*each):
            yield {key: value for part in combination for key, value in part.items()}

    @property
    def decides(self) -> tuple[str, ...]:
        """The settings of VAESpec that a trial chooses."""
        names = [key for name, parameter in self.parameters.items() for key in parameter.decides(name)]
        return tuple(dict.fromkeys("hidden" if name in DERIVED else name for name in names))

    @property
    def size(self) -> int | None:
        """The number of different beliefs; None if a range is continuous."""
        total = 1
        for parameter in self.parameters.values():
            size = parameter.size
            if size is None:
                return None
            total *= size
        return total

    def replace(self, name: str, parameter: Parameter) -> Space:
        """This space with one parameter replaced."""
        return Space(self.name, self.purpose, {**self.parameters, name: parameter}, self.fixed)

    def describe(self) -> list[tuple[str, str]]:
        """(parameter, its possible choices), in words."""
        return [(name, parameter.describe()) for name, parameter in self.parameters.items()]

    def example(self) -> Settings:
        """An example choice, to check that a study and its space fit together."""
        settings: Settings = {}
        for name, parameter in self.parameters.items():
            settings |= parameter.example(name)
        return _with_hidden(settings)

    def to_dict(self) -> dict[str, Any]:
        """The resolved space as plain values, without unset ones."""
        return {
            "name": self.name,
            "purpose": self.purpose,
            "parameters": {name: p.model_dump(exclude_none=True) for name, p in self.parameters.items()},
            "fixed": self.fixed,
        }


def _with_hidden(settings: Settings) -> Settings:
    """Depth and width, if chosen, as the `hidden` widths of VAESpec."""
    if "depth" not in settings:
        return settings
    rest = {name: value for name, value in settings.items() if name not in DERIVED}
    return {**rest, "hidden": [settings["width"]] * settings["depth"]}


def canonical(spec: VAESpec) -> VAESpec:
    """The canonical form of a belief: sorted latents, default values for unused settings, and no seed.

    Latents are exchangeable, so only the counts of a pairing matter; `scale` is unused without a scale, `mix` outside
    ciwae, `components` outside mixtures and VampPriors. Specs with the same canonical form are the same belief with other
    noise, which a search need not train again.
    """
    return spec.replace(**_canonical_values(spec))


def belief_key(spec: VAESpec) -> Hashable:
    """Equal for two specs if and only if their canonical forms are equal; does not build another spec."""
    values = {name: getattr(spec, name) for name in field_names()} | _canonical_values(spec)
    return tuple(tuple(value) if isinstance(value, list) else value for value in values.values())


def _canonical_values(spec: VAESpec) -> dict[str, Any]:
    """The settings in which a spec differs from its canonical form."""
    defaults = {field.name: field.default for field in fields(VAESpec)}
    pairs = sorted(spec.pairs)
    changes: dict[str, Any] = {"seed": 0, "posterior": [q for q, _ in pairs], "prior": [p for _, p in pairs]}
    unused = {
        "scale": not LIKELIHOODS[spec.likelihood].has_scale,
        "mix": spec.bound != "ciwae",
        "components": spec.learned_prior not in ("mixture", "vampprior"),
    }
    return changes | {name: defaults[name] for name, is_unused in unused.items() if is_unused}


def _kind(name: str, table: Mapping[str, Any]) -> type[Parameter]:
    return PAIRED.get(name) or (Choices if "choices" in table else Range)


def _parameter(name: str, table: Mapping[str, Any], where: str) -> Parameter:
    searched = [f for f in field_names() if f not in NOT_SEARCHED]
    if name not in PAIRED and name not in DERIVED and name not in searched:
        raise ValueError(f"{where}: {unknown(name, [*PAIRED, *DERIVED, *searched], 'parameter')}")
    parameter = validated(_kind(name, table), table, f"{where}: parameters.{name}")
    if isinstance(parameter, Choices) and name in searched:
        for value in parameter.choices:
            try:
                VAESpec.from_dict({name: value})
            except (ValueError, TypeError) as error:
                raise ValueError(f"{where}: parameters.{name}: {error}") from None
    return parameter


def load_space(name: str | Path, _seen: tuple[str, ...] = ()) -> Space:
    """The space of a name (search_spaces/NAME.toml) or a path. Raises `ValueError` with file, place and remedy."""
    path = find_file("search_spaces", name)
    where = str(path)
    if where in _seen:
        raise ValueError(f"{where}: spaces extend each other in a circle: {' -> '.join((*_seen, where))}")
    file = validated(SpaceFile, read_toml(path), where)
    tables: dict[str, Parameter] = {}
    fixed: dict[str, Any] = {}
    if file.extends:
        parent = load_space(file.extends, (*_seen, where))
        tables, fixed = dict(parent.parameters), dict(parent.fixed)
    own = {key: _parameter(key, table, where) for key, table in file.parameters.items()}
    for key, parameter in own.items():  # a new parameter replaces those that decided the same settings
        decided = set(parameter.decides(key))
        tables = {name: old for name, old in tables.items() if name == key or not decided & set(old.decides(name))}
        fixed = {name: value for name, value in fixed.items() if name not in decided}
    parameters = tables | own
    fixed |= file.fixed
    for key in fixed:
        if key not in field_names():
            raise ValueError(f"{where}: fixed: {unknown(key, field_names(), 'setting of VAESpec')}")
        parameters.pop(key, None)
    _check_together(parameters, fixed, where)
    for key, parameter in parameters.items():
        if isinstance(parameter, Pairings) and parameter.latents is None and "latent_dim" in fixed:
            table = {**parameter.model_dump(exclude_none=True), "latents": fixed["latent_dim"]}
            parameters[key] = _parameter(key, table, where)
    for key, parameter in parameters.items():
        if isinstance(parameter, Pairings):
            try:
                parameter.describe()
            except ValueError as error:
                raise ValueError(f"{where}: parameters.{key}: {error}") from None
    return Space(path.stem, file.purpose, parameters, fixed)


def _check_together(parameters: Mapping[str, Parameter], fixed: Mapping[str, Any], where: str) -> None:
    """Conflicts between parameters."""
    if not parameters:
        raise ValueError(f"{where}: the space is empty; give at least one [parameters.NAME] table")
    if all(name in parameters for name in PAIRED):
        raise ValueError(f"{where}: give parameters.pair (all latents alike) or parameters.pairing (shares), not both")
    if ("depth" in parameters) != ("width" in parameters):
        raise ValueError(f"{where}: depth and width go together: hidden = [width] * depth; give both, or hidden itself")
    if "depth" in parameters and ("hidden" in parameters or "hidden" in fixed):
        raise ValueError(f"{where}: depth and width decide hidden; remove one of the two")
    if "pairing" in parameters and "latent_dim" in parameters:
        raise ValueError(f"{where}: shares need a fixed number of latents; put latent_dim under [fixed]")


def schema() -> dict[str, Any]:
    """The JSON schema of space files: every parameter with the kinds it may be."""
    kinds: dict[str, type[BaseModel]] = {"pair": Pairs, "pairing": Pairings, "choices": Choices, "range": Range}
    either = {"anyOf": [{"$ref": "#/$defs/choices"}, {"$ref": "#/$defs/range"}]}
    searched = [*DERIVED, *(name for name in field_names() if name not in NOT_SEARCHED)]
    values = SpaceFile.model_json_schema()
    values["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    values["$defs"] = {name: kind.model_json_schema() for name, kind in kinds.items()}
    values["properties"]["parameters"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **{name: {"$ref": f"#/$defs/{name}"} for name in PAIRED},
            **dict.fromkeys(searched, either),
        },
    }
    values["properties"]["fixed"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {} for name in field_names()},
    }
    return values

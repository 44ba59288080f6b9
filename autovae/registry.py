r"""Tables of everything a spec may name: likelihoods, learned priors, bounds, networks. No torch.

A row is `"module:Class"` plus the facts that validate a spec; the module is imported when the row is first used, so
reading a table does not import torch. To add an entry, write its class and add its row; the contract tests run over the
tables.

| table          | a row is                                   | facts in the row                            |
|----------------|--------------------------------------------|---------------------------------------------|
| LIKELIHOODS    | a head p(x given z), a `Likelihood`        | supports of the data, scale, training targets |
| LEARNED_PRIORS | a learned prior, a `LearnedPrior`          | whether its components are posteriors       |
| REGULARISERS   | a divergence that replaces the KL          | -                                           |
| RENYI          | a closed Renyi divergence of one pair      | -                                           |
| BOUNDS         | a sampled bound, a `SampledBound`          | whether its samples come in groups          |
| NETWORKS       | an encoder and a decoder, a `Network`      | -                                           |
| ACTIVATIONS    | a module between layers                    | -                                           |

Families live in two tables: the laws in `beliefs.families.FAMILIES`, their tails in `finiteness.TAILS`.
Not here: the classes, see the modules named in the rows.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

__all__ = [
    "ACTIVATIONS",
    "BOUNDS",
    "LEARNED_PRIORS",
    "LIKELIHOODS",
    "NETWORKS",
    "REGULARISERS",
    "RENYI",
    "SUPPORTS",
    "BoundRow",
    "LearnedPriorRow",
    "LikelihoodRow",
    "Resolved",
    "Row",
    "lookup",
    "unknown",
]


def unknown(name: object, known: Iterable[str], what: str = "name") -> str:
    """The message for an unknown name: the name, the nearest known one, and all known names."""
    names = [str(entry) for entry in known]
    near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {name!r}: {hint}known: {', '.join(names)}"


def lookup(table: Mapping[str, T], name: str, what: str = "name") -> T:
    """The entry of `table` called `name`.

    Raises `ValueError` with the nearest and all known names if there is none.
    """
    try:
        return table[name]
    except (KeyError, TypeError):
        raise ValueError(unknown(name, table, what)) from None


@dataclass(frozen=True)
class Row:
    """The code of an entry: `target` is "module:attribute", or the object itself in your own code."""

    target: Any

    def load(self) -> Any:
        """Import the module and return the attribute."""
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True)
class LikelihoodRow(Row):
    """The data a head can describe: `supports`. Whether it takes a scale: `has_scale`.

    `trains_on`: "dequantised" data, or "levels" (the middle of the level's bin; 0 or 1 for binary data).
    `open_support`: the density is 0 or infinite at 0 and 1, so undequantised data are refused.
    """

    supports: frozenset[str]
    has_scale: bool = False
    trains_on: str = "dequantised"
    open_support: bool = False


@dataclass(frozen=True)
class LearnedPriorRow(Row):
    """`of_posterior`: the components are posteriors, so they have its family and come from the encoder."""

    of_posterior: bool = False


@dataclass(frozen=True)
class BoundRow(Row):
    """`grouped`: M groups of K samples at order 0, with the doubly reparameterised gradient; else a bound of any order."""

    grouped: bool = True


class Resolved(Mapping[Any, T], Generic[T]):
    """A table of loaded rows: maps a key to the object its row loads, or to `make` of that object; cached per row."""

    def __init__(self, rows: Mapping[Any, Row], make: Callable[[Any], T] | None = None) -> None:
        self._rows, self._make = rows, make
        self._found: dict[Row, T] = {}

    def __getitem__(self, key: Any) -> T:
        row = self._rows[key]
        if row not in self._found:
            loaded = row.load()
            self._found[row] = self._make(loaded) if self._make else loaded
        return self._found[row]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:  # without importing the row
        return key in self._rows


SUPPORTS = ("binary", "unit", "real")  # of data
UNIT, LINE = frozenset({"binary", "unit"}), frozenset(SUPPORTS)

LIKELIHOODS: dict[str, LikelihoodRow] = {
    "bernoulli": LikelihoodRow("autovae.beliefs.likelihoods.coins:Bernoulli", UNIT, trains_on="levels"),
    "continuous_bernoulli": LikelihoodRow("autovae.beliefs.likelihoods.coins:ContinuousBernoulli", UNIT),
    "normal": LikelihoodRow("autovae.beliefs.likelihoods.line:NormalHead", LINE, has_scale=True),
    "mse": LikelihoodRow("autovae.beliefs.likelihoods.line:MeanSquaredError", LINE, trains_on="levels"),
    "beta": LikelihoodRow(
        "autovae.beliefs.likelihoods.beta:Beta", frozenset({"unit"}), has_scale=True, open_support=True
    ),
    "laplace": LikelihoodRow("autovae.beliefs.likelihoods.line:LaplaceHead", LINE, has_scale=True),
    "logistic": LikelihoodRow("autovae.beliefs.likelihoods.line:LogisticHead", LINE, has_scale=True),
    "student_t": LikelihoodRow("autovae.beliefs.likelihoods.line:StudentHead", LINE, has_scale=True),
}

LEARNED_PRIORS: dict[str, LearnedPriorRow] = {
    "mixture": LearnedPriorRow("autovae.beliefs.learned_priors:Mixture"),
    "vampprior": LearnedPriorRow("autovae.beliefs.learned_priors:VampPrior", of_posterior=True),
    "flow": LearnedPriorRow("autovae.beliefs.learned_priors:FlowPrior"),
}

REGULARISERS: dict[str, Row] = {
    "kl": Row("autovae.beliefs.regularisers:kl"),
    "renyi": Row("autovae.beliefs.regularisers:renyi"),
    "jeffreys": Row("autovae.beliefs.regularisers:jeffreys"),
}

RENYI: dict[tuple[str, str], Row] = {  # (posterior, prior); other pairs are integrated numerically
    ("normal", "normal"): Row("autovae.beliefs.renyi_closed:normal"),
    ("laplace", "laplace"): Row("autovae.beliefs.renyi_closed:laplace"),
    ("cauchy", "cauchy"): Row("autovae.beliefs.renyi_closed:cauchy"),
    ("uniform", "uniform"): Row("autovae.beliefs.renyi_closed:uniform"),
    ("exponential", "exponential"): Row("autovae.beliefs.renyi_closed:exponential"),
}

BOUNDS: dict[str, BoundRow] = {
    "vr": BoundRow("autovae.training.bound:Renyi", grouped=False),
    "miwae": BoundRow("autovae.training.bound:MIWAE"),
    "ciwae": BoundRow("autovae.training.bound:CIWAE"),
    "piwae": BoundRow("autovae.training.bound:PIWAE"),
}

NETWORKS: dict[str, Row] = {
    "mlp": Row("autovae.model.networks:MLP"),
    "conv": Row("autovae.model.networks:CONV"),
}

ACTIVATIONS: dict[str, Row] = {
    "relu": Row("torch.nn:ReLU"),
    "tanh": Row("torch.nn:Tanh"),
    "gelu": Row("torch.nn:GELU"),
    "silu": Row("torch.nn:SiLU"),
    "elu": Row("torch.nn:ELU"),
    "leaky_relu": Row("torch.nn:LeakyReLU"),
}

r"""End a search early once its expected gain is below the noise between seeds.

A random forest, fitted to the complete trials, predicts the score f(x) of a choice x; for candidates x drawn from the space
the expected improvement over the best known belief is

    EI(x) = mean over trees of max(0, f* - f_tree(x)),        f* = the lowest of the forest's own means at the trials

and the noise s is the standard deviation of the matched normal's scores over several seeds. The search ends when
max EI(x) < s: a search cannot tell a gain below the difference between two seeds from luck, and the finals compare the
best with many seeds. The spread of a forest is not a posterior, so this is a rule of thumb; the final message states both
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from sklearn.ensemble import RandomForestRegressor

__all__ = ["Outlook", "outlook"]

CANDIDATES = 2000
TREES = 100


@dataclass(frozen=True)
class Outlook:
    """The largest expected gain and the noise between seeds, in the unit of the score."""

    gain: float
    noise: float

    @property
    def over(self) -> bool:
        return self.gain < self.noise

    def __str__(self) -> str:
        relation = "below" if self.over else "above"
        return f"the expected gain {self.gain:.2g} is {relation} the noise between seeds {self.noise:.2g}"


def outlook(trials: Sequence[FrozenTrial], noise_runs: Sequence[float], seed: int = 0) -> Outlook | None:
    """The outlook for more trials; None while fewer than two noise runs or four trials are complete."""
    if len(noise_runs) < 2 or len(trials) < 4:
        return None
    distributions: dict[str, BaseDistribution] = {}
    for trial in trials:
        distributions.update(trial.distributions)
    rng = np.random.default_rng(seed)
    known = _encode([trial.params for trial in trials], distributions)
    drawn = _encode([_draw(distributions, rng) for _ in range(CANDIDATES)], distributions)
    scores = np.array([trial.values[0] for trial in trials])
    forest = RandomForestRegressor(TREES, random_state=seed).fit(known, scores)
    best = float(forest.predict(known).min())
    trees = np.stack([tree.predict(drawn) for tree in forest.estimators_])
    return Outlook(float(np.maximum(best - trees, 0).mean(0).max()), float(np.std(noise_runs, ddof=1)))


def _draw(distributions: dict[str, BaseDistribution], rng: np.random.Generator) -> dict[str, object]:
    return {name: _DRAWS[type(distribution)](distribution, rng) for name, distribution in distributions.items()}


def _number(distribution: FloatDistribution | IntDistribution, rng: np.random.Generator) -> float:
    low, high = float(distribution.low), float(distribution.high)
    return float(np.exp(rng.uniform(np.log(low), np.log(high)))) if distribution.log else float(rng.uniform(low, high))


_DRAWS = {
    CategoricalDistribution: lambda d, rng: d.choices[rng.integers(len(d.choices))],
    FloatDistribution: _number,
    IntDistribution: lambda d, rng: round(_number(d, rng)),
}


def _encode(params: Sequence[dict[str, object]], distributions: dict[str, BaseDistribution]) -> np.ndarray:
    """Numbers unchanged, choices one-hot; parameters that a trial lacks are 0."""
    columns = []
    for name, distribution in distributions.items():
        if isinstance(distribution, CategoricalDistribution):
            columns += [[float(row.get(name) == choice) for row in params] for choice in distribution.choices]
        else:
            columns.append([float(row.get(name, 0.0)) for row in params])  # type: ignore[arg-type]
    return np.array(columns).T

"""Samplers by name. Every trial has a new sampler with its own seed, so a resumed study suggests the same beliefs.

tpe       tree-structured Parzen estimators, all parameters together (Optuna's default)
gp        a Gaussian process with expected improvement; tenths of a second per trial
cmaes     covariance matrix adaptation for numbers; choices are drawn at random
random    independent draws
grid      every choice of a finite space once, shuffled by the study's seed; then again from the start
nsga2, nsga3   genetic algorithms for several objectives; a generation is a batch

A sampler has no state; it reads earlier trials from the storage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from autovae.search.space import Space

__all__ = ["SAMPLERS", "Grid", "Question"]

Sampler = optuna.samplers.BaseSampler
GRID_LIMIT = 1_000_000  # choices: a grid must fit in memory


@dataclass(frozen=True)
class Question:
    """The arguments of a sampler: its seed, the study's seed, the space, and sizes."""

    seed: int
    study_seed: int
    space: Space
    startup: int = 10  # random trials before the model is used
    batch: int = 16


class Grid(Sampler):
    """Trial n takes choice n of a shuffled list of all choices, cyclically."""

    def __init__(self, space: Space, seed: int) -> None:
        size = space.size
        if size is None or size > GRID_LIMIT:
            many = "infinitely many" if size is None else f"{size:,}"
            raise ValueError(
                f"sampler = 'grid' tries every choice, and the space {space.name} has {many}; give its ranges steps or "
                "choices, or use another sampler"
            )
        points = list(space.points())
        order = np.random.default_rng(seed).permutation(len(points))
        self.points = [points[place] for place in order]

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.points[trial.number % len(self.points)][param_name]


@lru_cache(maxsize=1)  # one table per study, not per trial
def _grid(space: Space, seed: int) -> Grid:
    return Grid(space, seed)


def _cmaes(question: Question) -> Sampler:
    try:
        import cmaes  # noqa: F401
    except ImportError:
        raise ValueError("sampler = 'cmaes' needs the package cmaes: pip install 'autovae[samplers]'") from None
    return optuna.samplers.CmaEsSampler(
        seed=question.seed, n_startup_trials=question.startup, warn_independent_sampling=False
    )


SAMPLERS: dict[str, Callable[[Question], Sampler]] = {
    "tpe": lambda q: optuna.samplers.TPESampler(seed=q.seed, n_startup_trials=q.startup),
    "gp": lambda q: optuna.samplers.GPSampler(seed=q.seed, n_startup_trials=q.startup),
    "cmaes": _cmaes,
    "random": lambda q: optuna.samplers.RandomSampler(seed=q.seed),
    "grid": lambda q: _grid(q.space, q.study_seed),
    "nsga2": lambda q: optuna.samplers.NSGAIISampler(seed=q.seed, population_size=max(2, q.batch)),
    "nsga3": lambda q: optuna.samplers.NSGAIIISampler(seed=q.seed, population_size=max(2, q.batch)),
}
EXHAUSTIVE: Sequence[str] = ("grid",)  # take no share of random trials

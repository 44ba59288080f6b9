"""Samplers by name. Each is made anew for every question, from a seed of its own, so that a resumed study asks the same.

tpe       tree-structured Parzen estimators, all parameters together (Optuna's default)
gp        a Gaussian process with expected improvement; a question costs tenths of a second
cmaes     covariance matrix adaptation for numbers; choices are drawn at random beside it
random    independent draws
grid      every choice of a finite space once, in an order shuffled by the study's seed, then again from the start
nsga2, nsga3   genetic algorithms for several objectives; a generation is a batch

What a sampler knows of the past it reads from the storage, never from itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from autovae.search.space import Space

__all__ = ["SAMPLERS", "Grid", "Question"]

Sampler = optuna.samplers.BaseSampler
GRID_LIMIT = 1_000_000  # choices: more than this is no table


@dataclass(frozen=True)
class Question:
    """What a sampler may know when it is made: a seed of its own, the study's, the space, and how much there is."""

    seed: int
    study_seed: int
    space: Space
    startup: int = 10  # random trials before there is anything to model
    batch: int = 16


class Grid(Sampler):
    """Trial n takes choice n of a shuffled list of all choices; after the last comes the first again."""

    def __init__(self, space: Space, seed: int) -> None:
        size = space.size
        if size is None or size > GRID_LIMIT:
            many = "infinitely many" if size is None else f"{size:,}"
            raise ValueError(
                f"sampler = 'grid' tries every choice, and the space {space.name} has {many}; give its ranges steps or "
                "choices, or use another sampler"
            )
        self.space = space  # kept alive: the cache of grids knows it by its identity
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


_GRIDS: dict[tuple[int, int], Grid] = {}  # a table is made once a study, not once a trial


def _grid(question: Question) -> Grid:
    key = (id(question.space), question.study_seed)
    if key not in _GRIDS:
        _GRIDS.clear()
        _GRIDS[key] = Grid(question.space, question.study_seed)
    return _GRIDS[key]


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
    "grid": _grid,
    "nsga2": lambda q: optuna.samplers.NSGAIISampler(seed=q.seed, population_size=max(2, q.batch)),
    "nsga3": lambda q: optuna.samplers.NSGAIIISampler(seed=q.seed, population_size=max(2, q.batch)),
}
EXHAUSTIVE: Sequence[str] = ("grid",)  # these take no share of random trials

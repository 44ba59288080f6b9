r"""Which belief mattered: importances of the belief axes of a study, with their doubt.

An axis is a thing one can believe or set (posterior, prior, likelihood, alpha, ...), whatever parameters the sampler
used: a study that searches the categorical `posterior|prior` still gets posterior, prior and their interaction apart.
Complete trials only. For every axis and pair of axes a row of importance.csv:

| column            | is                                                                                          |
|-------------------|---------------------------------------------------------------------------------------------|
| axis, with_axis   | the axis; for an interaction its partner                                                    |
| importance        | fANOVA: share of the forest's variance, every choice counted alike (`fanova`, "choices")    |
| low, high         | 95 % interval of it, by a bootstrap of the trials                                           |
| optuna            | the same main effect as Optuna's FanovaImportanceEvaluator defines it ("cube")              |
| ped_anova         | Optuna's PED-ANOVA: what separates the best tenth from the rest; sums to 1                  |
| values, trials    | how many values the axis took, and in how many trials                                       |
| surrogate_r2      | out-of-bag R^2 of the forest: an importance of a forest that predicts nothing is worth nothing |

The two methods answer different questions. fANOVA: how much of all the variation of the score, bad trials included, is
due to this axis? PED-ANOVA: how differently do the best trials choose it? An axis that only spoils scores is large in
the first and small in the second.

The interval resamples trials, fits a smaller forest to each resample, and puts the spread of its importances about the
estimate; importances stay in [0, 1]. It covers which trials were run, not choices that were never tried.

References: Hutter, Hoos and Leyton-Brown 2014 (`fanova`); Watanabe, Bansal and Hutter, PED-ANOVA, 2023.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autovae.report.fanova import Array, Axis, Decomposition, decompose, encode, fit_forest

__all__ = ["Importance", "belief_axes", "importance_of", "importance_rows"]

SKIPPED = {"number", "state", "score", "score_se", "seed", "seconds", "reason", "bits", "nats"}
FEW = 12  # a number that took at most so many values is a choice
RESAMPLES, SMALL = 40, 8  # bootstrap resamples, trees in each
LEVEL = 0.95


@dataclass
class Importance:
    """The importances of a study's axes, or why there are none."""

    axes: tuple[Axis, ...] = ()
    trials: int = 0
    decomposition: Decomposition | None = None
    low: Array = field(default_factory=lambda: np.zeros((0, 0)))  # (axes, axes): main effects on the diagonal
    high: Array = field(default_factory=lambda: np.zeros((0, 0)))
    optuna: Array = field(default_factory=lambda: np.zeros(0))
    ped_anova: Array = field(default_factory=lambda: np.zeros(0))
    counts: list[dict[Any, int]] = field(default_factory=list)
    reason: str = ""

    @property
    def values(self) -> Array:
        """(axes, axes): main effects on the diagonal, interactions off it."""
        if self.decomposition is None:
            return np.zeros((0, 0))
        return self.decomposition.pairs + np.diag(self.decomposition.main)


def belief_axes(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Axis], list[dict[str, Any]]]:
    """The axes on which trials differ, and the trials on these axes. Heterogeneous pairings become shares of families."""
    points = [_beliefs(row) for row in rows]
    names = list(dict.fromkeys(name for point in points for name in point))
    axes = []
    for name in names:
        values = [point.get(name) for point in points]
        if any(value is None for value in values):
            continue  # an axis of some trials only
        different = list(dict.fromkeys(values))
        if len(different) < 2:
            continue
        numbers = [value for value in different if isinstance(value, float) and math.isfinite(value)]
        if len(numbers) == len(different) > FEW:
            low, high = min(numbers), max(numbers)
            axes.append(Axis(name, low, high, log=low > 0 and high / low >= 100))
        elif len(different) <= max(FEW, len(rows) // 2):
            axes.append(Axis(name, choices=tuple(sorted(different, key=lambda value: (str(type(value)), value)))))
    return axes, points


def _beliefs(row: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's values by axis: text for choices, floats for numbers."""
    point: dict[str, Any] = {}
    for name, value in row.items():
        if name in SKIPPED or value == "" or value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        if isinstance(value, tuple):
            point.update({f"share of {family} in {name}": value.count(family) / len(value) for family in set(value)})
        else:
            point[name] = value
    return point


def importance_of(rows: Sequence[Mapping[str, Any]], seed: int = 0, resamples: int = RESAMPLES) -> Importance:
    """Importances from complete trials (rows with a score). Says why not, where there are none."""
    rows = [row for row in rows if math.isfinite(row["score"])]
    axes, points = belief_axes(rows)
    result = Importance(tuple(axes), len(rows))
    scores = np.array([row["score"] for row in rows], float)
    if len(rows) < 4:
        result.reason = f"{len(rows)} complete trials are too few to say what mattered; at least 4 are needed."
    elif not axes:
        result.reason = "All complete trials hold the same belief, so no axis can have mattered."
    elif np.ptp(scores) == 0:
        result.reason = "All complete trials have the same score, so nothing mattered."
    if result.reason:
        return result
    result.counts = [_counts(axis, points) for axis in axes]
    inputs = encode(axes, points)
    forest = fit_forest(inputs, scores, seed=seed)
    result.decomposition = decompose(axes, forest, curves=True)
    result.optuna = decompose(axes, forest, pairs=False, measure="cube").main
    result.ped_anova = ped_anova(axes, points, scores)
    result.low, result.high = _intervals(axes, inputs, scores, result.values, seed, resamples)
    return result


def _counts(axis: Axis, points: Sequence[Mapping[str, Any]]) -> dict[Any, int]:
    values = [point[axis.name] for point in points]
    return {value: values.count(value) for value in (axis.choices or sorted(set(values)))}


def _intervals(
    axes: Sequence[Axis], inputs: Array, scores: Array, estimate: Array, seed: int, resamples: int
) -> tuple[Array, Array]:
    """The bootstrap's spread about its own mean, put about the estimate and kept in [0, 1]."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(resamples):
        drawn = generator.integers(len(scores), size=len(scores))
        again = decompose(axes, fit_forest(inputs[drawn], scores[drawn], SMALL, number))
        if len(again.main_by_tree):
            found.append(again.pairs + np.diag(again.main))
    if len(found) < 2:
        return np.full_like(estimate, math.nan), np.full_like(estimate, math.nan)
    spread = np.array(found) - np.mean(found, 0)
    low, high = np.quantile(spread, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return np.clip(estimate + low, 0, 1), np.clip(estimate + high, 0, 1)


def ped_anova(axes: Sequence[Axis], points: Sequence[Mapping[str, Any]], scores: Array) -> Array:
    """Optuna's PED-ANOVA on the same axes; zeros where it cannot tell (all of the best alike)."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    space: dict[str, BaseDistribution] = {}
    for axis in axes:
        space[axis.name] = (
            CategoricalDistribution([str(choice) for choice in axis.choices])
            if axis.categorical
            else FloatDistribution(axis.low, axis.high, log=axis.log)
        )
    trials = []
    for point, value in zip(points, scores, strict=True):
        params = {axis.name: str(point[axis.name]) if axis.categorical else point[axis.name] for axis in axes}
        trials.append(optuna.trial.create_trial(params=params, distributions=space, value=float(value)))
    loudness = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="minimize")
    finally:
        optuna.logging.set_verbosity(loudness)
    study.add_trials(trials)
    try:
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(evaluate_on_local=False)
        )
    except (ValueError, RuntimeError):
        return np.zeros(len(axes))
    return np.array([found.get(axis.name, 0.0) for axis in axes])


def importance_rows(result: Importance) -> list[dict[str, Any]]:
    """Rows of importance.csv: main effects, then interactions, the largest first."""
    if result.decomposition is None:
        return []
    values, rows = result.values, []
    order = sorted(range(len(result.axes)), key=lambda place: -values[place, place])
    pairs = [(a, b) for a in range(len(order)) for b in range(a)]
    for a, b in [(place, place) for place in order] + sorted(pairs, key=lambda pair: -values[pair]):
        main = a == b
        rows.append(
            {
                "axis": result.axes[a].name if main else result.axes[b].name,
                "with_axis": "" if main else result.axes[a].name,
                "importance": round(float(values[a, b]), 6),
                "low": round(float(result.low[a, b]), 6),
                "high": round(float(result.high[a, b]), 6),
                "optuna": round(float(result.optuna[a]), 6) if main else None,
                "ped_anova": round(float(result.ped_anova[a]), 6) if main else None,
                "values": len(result.counts[a]) if main else len(result.counts[a]) * len(result.counts[b]),
                "trials": result.trials,
                "surrogate_r2": round(result.decomposition.r2, 6),
            }
        )
    return rows

r"""Importances of a study's belief axes (`axes`), with their uncertainty.

importance.csv has one row per axis and per pair of axes, from complete trials:

| column            | is                                                                                           |
|-------------------|----------------------------------------------------------------------------------------------|
| axis, with_axis   | the axis; for an interaction its partner                                                     |
| importance        | fANOVA: share of the forest's variance over the beliefs of the search space (`fanova`)       |
| low, high         | its 95 % interval, by a bootstrap of the trials                                              |
| optuna            | the main effect as Optuna's FanovaImportanceEvaluator defines it ("cube"), if feasible       |
| ped_anova         | Optuna's PED-ANOVA: what separates the best tenth from the rest; sums to 1                   |
| values, trials    | number of values of the axis, and of trials                                                  |
| surrogate_r2      | out-of-bag R^2 of the forest: if it predicts nothing, its importances mean nothing           |

The two methods answer different questions. fANOVA: how much of all variation of the score, bad trials included, is due to
this axis? PED-ANOVA: how differently do the best trials choose it? An axis that only spoils scores is large in the first
and small in the second.

The interval is the estimate -+ t times the standard deviation of the importances of smaller forests, each fitted to a
resample of the trials (scaled by 1 / sqrt(n) if a resample holds fewer than all n), clipped to [0, 1]. It covers which
trials were run, not choices that were never tried.

References: Hutter, Hoos and Leyton-Brown 2014 (`fanova`); Watanabe, Bansal and Hutter, PED-ANOVA, 2023.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from autovae.report.axes import belief_axes, joint_of
from autovae.report.boxes import CUBE, Joint
from autovae.report.fanova import Decomposition, decompose, surface
from autovae.report.forest import Array, Axis, Forest, encode, exact_forest, fit_forest
from autovae.report.losses import quiet_optuna

__all__ = ["Importance", "exact_importance", "importance_of", "importance_rows"]

RESAMPLES, SMALL, MOST = 40, 8, 1000  # bootstrap resamples, trees in each, trials in each
LEVEL = 0.95
LEAST = 4  # trials


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
    points: list[dict[str, Any]] = field(default_factory=list)  # the trials on the axes, in their order
    reason: str = ""
    branches: dict[str, Importance] = field(default_factory=dict)  # axes that only some trials have: from those trials
    surface: tuple[int, int, Array] | None = None  # the pair of categorical axes that interact most, mean predictions
    joint: Joint | None = None  # the pairs of posterior and prior in the space, if not all
    holes: int = 0  # combinations of posterior and prior that the space does not offer

    @property
    def values(self) -> Array:
        """(axes, axes): main effects on the diagonal, interactions off it."""
        found = self.decomposition  # shares of dependent axes (`fanova`) may lie a hair below 0
        return np.zeros((0, 0)) if found is None else np.clip(found.effects, 0, 1)

    @property
    def trusted(self) -> bool:
        """Whether the forest predicts unseen trials at all."""
        return self.decomposition is not None and self.decomposition.r2 > 0.1


def importance_of(
    rows: Sequence[Mapping[str, Any]],
    space: Mapping[str, Any] | None = None,
    seed: int = 0,
    resamples: int | None = None,
    branches: bool = True,
) -> Importance:
    """Importances from complete trials (rows with a score), or the reason why there are none."""
    rows = [row for row in rows if math.isfinite(row["score"])]
    axes, points, partial = belief_axes(rows, space)
    result = Importance(tuple(axes), len(rows), points=points)
    scores = np.array([row["score"] for row in rows], float)
    if len(rows) < LEAST:
        result.reason = f"{len(rows)} complete trials are too few to say what mattered; at least {LEAST} are needed."
    elif not axes:
        result.reason = "All complete trials hold the same belief, so no axis can have mattered."
    elif np.ptp(scores) == 0:
        result.reason = "All complete trials have the same score, so nothing mattered."
    if result.reason:
        return result
    result.counts = [_counts(axis, points) for axis in axes]
    inputs, joint = encode(axes, points), joint_of(axes, rows, space)
    forest = fit_forest(inputs, scores, seed=seed)
    result.decomposition = decompose(axes, forest, joint=joint, curves=True)
    result.optuna = np.full(len(axes), math.nan)
    if max(axis.columns for axis in axes) <= CUBE:
        result.optuna = decompose(axes, forest, pairs=False, measure="cube").main
    result.ped_anova = ped_anova(axes, points, scores)
    error = _errors(axes, joint, inputs, scores, seed, RESAMPLES if resamples is None else resamples)
    result.low, result.high = np.clip(result.values - error, 0, 1), np.clip(result.values + error, 0, 1)
    result.surface = _strongest(axes, forest, result.decomposition)
    result.joint = joint
    if joint is not None:
        result.holes = len(axes[joint.first].choices) * len(axes[joint.first + 1].choices) - len(joint.cells)
    for name in partial if branches else ():
        own = [row for row, point in zip(rows, points, strict=True) if name in point]
        result.branches[name] = importance_of(own, space, seed, resamples, branches=False)
    return result


def _strongest(axes: Sequence[Axis], forest: Forest, found: Decomposition) -> tuple[int, int, Array] | None:
    """Posterior and prior if both vary, else the two categorical axes that interact most."""
    places = [place for place, axis in enumerate(axes) if axis.categorical]
    pairs = [(a, b) for a in places for b in places if a < b]
    if not pairs:
        return None
    names = [axis.name for axis in axes]
    wanted = (names.index("posterior"), names.index("prior")) if {"posterior", "prior"} <= set(names) else None
    a, b = wanted if wanted in pairs else max(pairs, key=lambda pair: found.pairs[pair])
    return a, b, surface(axes, forest, a, b)


def _counts(axis: Axis, points: Sequence[Mapping[str, Any]]) -> dict[Any, int]:
    values = [point[axis.name] for point in points]
    return {value: values.count(value) for value in (axis.choices or sorted(set(values)))}


def _errors(
    axes: Sequence[Axis], joint: Joint | None, inputs: Array, scores: Array, seed: int, resamples: int
) -> Array:
    """Half widths of the intervals of all effects; NaN if too few resamples have a decomposition."""
    generator = np.random.default_rng(seed)
    size = min(len(scores), MOST)
    found = []
    for number in range(resamples):
        drawn = generator.integers(len(scores), size=size)
        again = decompose(axes, fit_forest(inputs[drawn], scores[drawn], SMALL, number), joint=joint)
        if len(again.main_by_tree):
            found.append(again.effects)
    if len(found) < 2:
        return np.full((len(axes), len(axes)), math.nan)
    deviation = np.std(found, axis=0, ddof=1) * math.sqrt(size / len(scores))
    return np.asarray(stats.t.ppf((1 + LEVEL) / 2, len(found) - 1) * deviation)


def exact_importance(rows: Sequence[Mapping[str, Any]], space: Mapping[str, Any] | None = None) -> Decomposition:
    """The decomposition of a complete table of beliefs, without a forest: every cell is the mean of its trials."""
    rows = [row for row in rows if math.isfinite(row["score"])]
    axes, points, _ = belief_axes(rows, space)
    if not axes or not all(axis.categorical for axis in axes):
        raise ValueError("an exact decomposition needs a complete table of at least two beliefs, all axes with choices")
    scores = np.array([row["score"] for row in rows], float)
    return decompose(axes, exact_forest(encode(axes, points), scores), joint=joint_of(axes, rows, space))


def ped_anova(axes: Sequence[Axis], points: Sequence[Mapping[str, Any]], scores: Array) -> Array:
    """Optuna's PED-ANOVA on the same axes; zeros if it fails (the best trials are all alike)."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    space: dict[str, BaseDistribution] = {}
    for axis in axes:
        if axis.categorical:
            space[axis.name] = CategoricalDistribution([str(choice) for choice in axis.choices])
        else:
            space[axis.name] = FloatDistribution(axis.low, axis.high, log=axis.log)
    trials = []
    for point, value in zip(points, scores, strict=True):
        params = {axis.name: str(point[axis.name]) if axis.categorical else point[axis.name] for axis in axes}
        trials.append(optuna.trial.create_trial(params=params, distributions=space, value=float(value)))
    with quiet_optuna():
        study = optuna.create_study(direction="minimize")
    study.add_trials(trials)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(evaluate_on_local=False)
    try:
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError):
        return np.zeros(len(axes))
    return np.array([found.get(axis.name, 0.0) for axis in axes])


def importance_rows(result: Importance, branch: str = "") -> list[dict[str, Any]]:
    """Rows of importance.csv: main effects, then interactions, the largest first; then axes that only some trials have."""
    rows = []
    if result.decomposition is not None:
        order = sorted(range(len(result.axes)), key=lambda place: -result.values[place, place])
        pairs = sorted([(a, b) for a in order for b in order if a < b], key=lambda pair: -result.values[pair])
        main = [_row(result, a, a) | {"with_axis": "", "values": len(result.counts[a])} for a in order]
        rows = [{**row, "branch": branch} for row in [*main, *(_row(result, *pair) for pair in pairs)]]
    for name, own in result.branches.items():
        rows += [row for row in importance_rows(own, f"trials with {name}") if name in (row["axis"], row["with_axis"])]
    return rows


def _row(result: Importance, a: int, b: int) -> dict[str, Any]:
    assert result.decomposition is not None  # importance_rows asks only then
    return {
        "axis": result.axes[a].name,
        "with_axis": result.axes[b].name,
        "importance": _rounded(result.values[a, b]),
        "low": _rounded(result.low[a, b]),
        "high": _rounded(result.high[a, b]),
        "optuna": _rounded(result.optuna[a]) if a == b else None,
        "ped_anova": _rounded(result.ped_anova[a]) if a == b else None,
        "values": len(result.counts[a]) * len(result.counts[b]),
        "trials": result.trials,
        "surrogate_r2": _rounded(result.decomposition.r2),
    }


def _rounded(value: Any) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None

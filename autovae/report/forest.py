"""Axes of a study, trials as a forest's input, and random forests of their scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Axis", "Forest", "encode", "exact_forest", "fit_forest"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """One thing that varied: a range (low, high, log) or a set of choices."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def categorical(self) -> bool:
        return bool(self.choices)

    @property
    def columns(self) -> int:
        """Columns of the forest's input: one, or one a choice."""
        return len(self.choices) or 1

    @property
    def bounds(self) -> tuple[float, float]:
        """The range in the units the forest sees."""
        if self.categorical:
            return 0.0, 1.0
        return (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)


@dataclass(frozen=True)
class Forest:
    """Trees as flat arrays, and how well they predict unseen points."""

    trees: list[Any]  # sklearn.tree._tree.Tree
    r2: float  # of out-of-bag predictions; NaN without any


def encode(axes: Sequence[Axis], rows: Sequence[Mapping[str, Any]]) -> Array:
    """The forest's input, (rows, columns): numbers as they are (or their logarithm), choices one-hot."""
    columns = []
    for axis in axes:
        values = [row[axis.name] for row in rows]
        if axis.categorical:
            columns += [np.array([value == choice for value in values], float) for choice in axis.choices]
        else:
            number = np.array(values, float)
            columns.append(np.log(number) if axis.log else number)
    return np.stack(columns, 1)


def fit_forest(inputs: Array, scores: Array, trees: int = 64, seed: int | None = 0, max_samples: int = 4096) -> Forest:
    """scikit-learn's forest with Optuna's settings; past `max_samples` points a tree draws that many instead of all."""
    from sklearn.ensemble import RandomForestRegressor

    drawn = max_samples if len(scores) > max_samples else None
    forest = RandomForestRegressor(trees, max_depth=64, random_state=seed, max_samples=drawn)
    forest.fit(inputs, scores)
    return Forest([tree.tree_ for tree in forest.estimators_], _out_of_bag_r2(forest, inputs, scores))


def exact_forest(inputs: Array, scores: Array) -> Forest:
    """One tree with a leaf for every distinct input: decomposes a complete table exactly."""
    from sklearn.tree import DecisionTreeRegressor

    return Forest([DecisionTreeRegressor(random_state=0).fit(inputs, scores).tree_], math.nan)


def _out_of_bag_r2(forest: Any, inputs: Array, scores: Array) -> float:
    """1 - residual / total over points unseen by some tree, each predicted by those trees only."""
    total, count = np.zeros(len(scores)), np.zeros(len(scores))
    narrow = inputs.astype(np.float32)
    for tree, seen in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        unseen = np.ones(len(scores), bool)
        unseen[seen] = False
        if unseen.any():
            total[unseen] += tree.tree_.predict(narrow[unseen]).ravel()
            count[unseen] += 1
    known = count > 0
    spread = float(((scores[known] - scores[known].mean()) ** 2).sum()) if known.any() else 0.0
    if known.sum() < 3 or spread == 0:
        return math.nan
    return 1 - float(((scores[known] - total[known] / count[known]) ** 2).sum()) / spread

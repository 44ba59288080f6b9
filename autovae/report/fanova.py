r"""fANOVA: how much of a forest's variance each axis explains alone, and each pair of axes beyond that.

A random forest is fitted to scores y of points x on axes 1..G. A tree is a partition of the space into boxes l with
values v_l, so its functional ANOVA under a product measure is exact and needs no sampling. With w_lg the measure of
box l on axis g, and c_l = (v_l - mean) prod_g w_lg,

    m_g(a)    = sum_l c_l / w_lg          [a in l_g]                     marginal of axis g at a
    m_gh(a,b) = sum_l c_l / (w_lg w_lh)   [a in l_g] [b in l_h]          marginal of the pair
    V_g = Var m_g,    V_gh = Var m_gh - V_g - V_h,    importance = V / Var(tree), averaged over trees

On each axis the boxes meet in a few atoms (intervals between split points, or choices), so that V_g takes one
cumulative sum and all V_gh of a tree are blocks of one matrix product M' diag(c) M, with M the boxes' indicators on the
atoms of all axes. That, instead of a walk through the tree for every atom, is where the speed is.

The measure is uniform on the range of a numeric axis (on its logarithm where the axis says so). For a categorical axis
there are two: `measure="choices"` gives every choice 1/C, the space that was searched; `measure="cube"` is Optuna's
FanovaImportanceEvaluator, uniform over the cube of the one-hot columns, most of whose corners are no choice at all: it
counts a belief as "both normal and laplace" or as none, and overrates axes with many choices.

References: Hutter, Hoos and Leyton-Brown, An Efficient Approach for Assessing Hyperparameter Importance, 2014; Hooker,
Generalized Functional ANOVA Diagnostics, 2007. Not here: which axes a study has, intervals, files (`importance`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Axis", "Decomposition", "Forest", "decompose", "encode", "fit_forest"]

Array = NDArray[np.float64]
Measure = Literal["choices", "cube"]

DENSE = 4_000_000  # numbers of a tree's box-by-atom matrix past which its atoms are merged
MERGED = 32  # atoms an axis keeps then, for pairs only


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
    """Trees as flat arrays, the inputs they were fitted to, and how well they predict what they have not seen."""

    trees: list[Any]  # sklearn.tree._tree.Tree
    r2: float  # of out-of-bag predictions; nan where there are none


@dataclass(frozen=True)
class Decomposition:
    """Importances as fractions of the trees' variance, a row a tree; means over trees are the estimates."""

    axes: tuple[Axis, ...]
    main_by_tree: Array  # (trees, axes)
    pairs_by_tree: Array  # (trees, axes, axes), symmetric, zero diagonal
    r2: float
    curves: list[tuple[Array, Array]] = field(default_factory=list)  # per axis: places, marginal prediction there
    surfaces: dict[tuple[int, int], Array] = field(default_factory=dict)

    @property
    def main(self) -> Array:
        return self.main_by_tree.mean(0) if len(self.main_by_tree) else np.zeros(len(self.axes))

    @property
    def pairs(self) -> Array:
        return self.pairs_by_tree.mean(0) if len(self.pairs_by_tree) else np.zeros((len(self.axes),) * 2)


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
    """Optuna's forest: scikit-learn's, depth 64 at most, leaves of one point, all columns at every split.

    Past `max_samples` points a tree draws that many instead of all.
    """
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        n_estimators=trees,
        max_depth=64,
        min_samples_split=2,
        min_samples_leaf=1,
        random_state=seed,
        max_samples=max_samples if len(scores) > max_samples else None,
    )
    forest.fit(inputs, scores)
    return Forest([tree.tree_ for tree in forest.estimators_], _out_of_bag_r2(forest, inputs, scores))


def _out_of_bag_r2(forest: Any, inputs: Array, scores: Array) -> float:
    """1 - residual / total over points that some tree has not seen, each predicted by those trees alone."""
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


@dataclass(frozen=True)
class _Boxes:
    """The leaves of one tree on the atoms of each axis."""

    values: Array  # (L,)
    shares: Array  # w_lg, (L, G)
    low: NDArray[np.intp]  # first atom of numeric axes, (L, G)
    high: NDArray[np.intp]  # one past the last
    members: dict[int, Array]  # categorical axes: indicator of boxes on atoms, (L, A_g)
    weights: list[Array]  # measure of the atoms of each axis, sums to 1
    edges: list[Array]  # of numeric axes


def decompose(
    axes: Sequence[Axis], forest: Forest, pairs: bool = True, measure: Measure = "choices", curves: bool = False
) -> Decomposition:
    """Main effects and, if asked for, pair interactions of every tree. Trees without variance are left out."""
    axes = tuple(axes)
    main, both = [], []
    for tree in forest.trees:
        boxes = _boxes(tree, axes, measure)
        mass = boxes.shares.prod(1)
        centred = boxes.values - np.average(boxes.values, weights=mass)
        variance = float(np.average(centred**2, weights=mass))
        if not variance > 1e-300:
            continue
        effects = _main_effects(boxes, mass * centred)
        main.append(effects / variance)
        if pairs:
            both.append(_pair_effects(boxes, mass * centred) / variance)
    size = len(axes)
    return Decomposition(
        axes,
        np.array(main).reshape(-1, size),
        np.array(both).reshape(-1, size, size),
        forest.r2,
        _curves(axes, forest) if curves else [],
    )


def _leaf_bounds(tree: Any, low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Values, lower and upper bounds (L, columns) of the leaves: children cut their parent's box, a level at a time."""
    feature, left, right = tree.feature, tree.children_left, tree.children_right
    lows, highs = np.tile(low, (tree.node_count, 1)), np.tile(high, (tree.node_count, 1))
    level = np.array([0])
    while len(level):
        level = level[feature[level] >= 0]
        column, threshold, l, r = feature[level], tree.threshold[level], left[level], right[level]
        lows[l], highs[l] = lows[level], highs[level]
        lows[r], highs[r] = lows[level], highs[level]
        highs[l, column] = threshold
        lows[r, column] = threshold
        level = np.concatenate([l, r])
    leaf = np.flatnonzero(feature < 0)
    return tree.value[leaf].reshape(len(leaf), -1)[:, 0], lows[leaf], highs[leaf]


def _boxes(tree: Any, axes: Sequence[Axis], measure: Measure) -> _Boxes:
    bounds = np.array([axis.bounds for axis in axes for _ in range(axis.columns)])
    values, lows, highs = _leaf_bounds(tree, bounds[:, 0], bounds[:, 1])
    count, size = len(values), len(axes)
    shares = np.ones((count, size))
    first, last = np.zeros((count, size), np.intp), np.zeros((count, size), np.intp)
    members: dict[int, Array] = {}
    weights: list[Array] = []
    edges: list[Array] = []
    column = 0
    for place, axis in enumerate(axes):
        stop = column + axis.columns
        if axis.categorical:
            indicator, weight = _atoms(lows[:, column:stop], highs[:, column:stop], measure)
            members[place] = indicator
            shares[:, place] = indicator @ weight
            edges.append(np.empty(0))
        else:
            low, high = axis.bounds
            edge = np.unique(np.concatenate([lows[:, column], highs[:, column]]))
            weight = np.diff(edge) / (high - low)
            first[:, place] = np.searchsorted(edge, lows[:, column])
            last[:, place] = np.searchsorted(edge, highs[:, column])
            shares[:, place] = (highs[:, column] - lows[:, column]) / (high - low)
            edges.append(edge)
        weights.append(weight)
        column = stop
    return _Boxes(values, shares, first, last, members, weights, edges)


def _atoms(lows: Array, highs: Array, measure: Measure) -> tuple[Array, Array]:
    """Indicator (L, A) and measure (A,) of a categorical axis: its choices, or the corners of the one-hot cube."""
    is_one, is_zero = np.asarray(lows > 0), np.asarray(highs < 1)
    if measure == "choices":
        choices = lows.shape[1]
        named = is_one.sum(1, keepdims=True)
        inside = np.where(named > 0, is_one, ~is_zero) & (named <= 1)
        return inside.astype(float), np.full(choices, 1 / choices)
    split = np.flatnonzero((is_one | is_zero).any(0))
    corners = np.array(list(itertools.product([False, True], repeat=len(split))), bool).reshape(-1, len(split))
    conflict = is_one[:, split].astype(float) @ ~corners.T + is_zero[:, split].astype(float) @ corners.T
    return (conflict == 0).astype(float), np.full(len(corners), 1 / len(corners))


def _main_effects(boxes: _Boxes, mass: Array) -> Array:
    return np.array([float(weight @ _marginal(boxes, place, mass) ** 2) for place, weight in enumerate(boxes.weights)])


def _marginal(boxes: _Boxes, place: int, mass: Array) -> Array:
    """m_g at the atoms of one axis."""
    part = mass / boxes.shares[:, place]
    if place in boxes.members:
        return part @ boxes.members[place]
    size = len(boxes.weights[place]) + 1
    jumps = np.bincount(boxes.low[:, place], part, size) - np.bincount(boxes.high[:, place], part, size)
    return np.cumsum(jumps)[:-1]


def _indicators(boxes: _Boxes) -> tuple[Array, Array, NDArray[np.intp]]:
    """M / w of all axes side by side (L, A), the atoms' measure (A,), where each axis starts.

    Atoms of axes with many are merged (a box then has the share of the merged atom that it covers), so that the matrix
    stays in bounds; that smooths a marginal over 1 / MERGED of its range.
    """
    count = len(boxes.values)
    merge = count * sum(map(len, boxes.weights)) > DENSE
    blocks, weights = [], []
    for place, weight in enumerate(boxes.weights):
        if place in boxes.members:
            block = boxes.members[place] / boxes.shares[:, place, None]
        elif merge and len(weight) > MERGED:
            edge = boxes.edges[place]
            grid = np.linspace(edge[0], edge[-1], MERGED + 1)
            low, high = edge[boxes.low[:, place], None], edge[boxes.high[:, place], None]
            covered = np.clip(np.minimum(high, grid[1:]) - np.maximum(low, grid[:-1]), 0, None)
            block = covered / (grid[1] - grid[0]) / boxes.shares[:, place, None]
            weight = np.full(MERGED, 1 / MERGED)
        else:
            atom = np.arange(len(weight))
            inside = (boxes.low[:, place, None] <= atom) & (atom < boxes.high[:, place, None])
            block = inside / boxes.shares[:, place, None]
        blocks.append(block)
        weights.append(weight)
    starts = np.cumsum([0, *(len(weight) for weight in weights[:-1])])
    return np.concatenate(blocks, 1), np.concatenate(weights), starts


def _pair_effects(boxes: _Boxes, mass: Array) -> Array:
    """V_gh of all pairs: the joint marginals are the blocks of one product; their variance less both main effects."""
    indicators, weights, starts = _indicators(boxes)
    main = np.add.reduceat(weights * (mass @ indicators) ** 2, starts)
    joint = (indicators * mass[:, None]).T @ indicators
    joint *= joint
    joint *= weights
    variance = np.add.reduceat(np.add.reduceat(joint, starts, axis=1) * weights[:, None], starts, axis=0)
    effect = np.clip(variance - main[:, None] - main[None], 0, None)
    np.fill_diagonal(effect, 0)
    return effect


def _curves(axes: Sequence[Axis], forest: Forest, places: int = 64) -> list[tuple[Array, Array]]:
    """Per axis: choices (as 0..C-1) or places along the range, and the forest's marginal prediction there, (trees, places)."""
    found: list[tuple[Array, list[Array]]] = []
    for axis in axes:
        low, high = axis.bounds
        at = np.arange(axis.columns, dtype=float) if axis.categorical else low + (high - low) * _middles(places)
        found.append((at, []))
    for tree in forest.trees:
        boxes = _boxes(tree, axes, "choices")
        mass = boxes.shares.prod(1) * boxes.values
        for place, (at, predictions) in enumerate(found):
            marginal = _marginal(boxes, place, mass)
            if not axes[place].categorical:
                marginal = marginal[np.searchsorted(boxes.edges[place], at).clip(1, len(marginal)) - 1]
            predictions.append(marginal)
    return [(at, np.array(predictions)) for at, predictions in found]


def _middles(count: int) -> Array:
    return (np.arange(count) + 0.5) / count

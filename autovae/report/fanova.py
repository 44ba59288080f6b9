r"""fANOVA: how much of a forest's variance each axis explains alone, and each pair of axes beyond that.

A random forest is fitted to scores y of points x on axes 1..G. A tree is a partition of the space into boxes l with
values v_l, so its functional ANOVA under a product measure is exact and needs no sampling. With w_lg the measure of
box l on axis g, and c_l = (v_l - mean) prod_g w_lg,

    m_g(a)    = sum_l c_l / w_lg          [a in l_g]                     marginal of axis g at a
    m_gh(a,b) = sum_l c_l / (w_lg w_lh)   [a in l_g] [b in l_h]          marginal of the pair
    V_g = Var m_g,    V_gh = Var(m_gh - m_g - m_h),    importance = V / Var(tree), averaged over trees

On each axis the boxes meet in a few atoms (intervals between split points, or choices), so that V_g takes one
cumulative sum and all V_gh of a tree are blocks of one matrix product U' diag(c) U, with U_la = [a in l_g] / w_lg - 1 on
the atoms of all axes. That, instead of a walk through the tree for every atom, is where the speed is.

The measure is uniform on the range of a numeric axis (on its logarithm where the axis says so) and on the choices of a
categorical one: the space that was searched. Some combinations of choices are not in it, as the infinite pairs of
posterior and prior: two axes with holes are joined (`Joint`) and only the combinations that exist count. With holes the
two are dependent, and a function m of them is split by least squares, m = m_q + m_p + rest with m_q, m_p centred, each
part's share being its covariance with m. Without holes that is the ordinary decomposition, and the shares always sum up.

`measure="cube"` is Optuna's FanovaImportanceEvaluator instead: uniform over the cube of the one-hot columns, most of
whose corners are no choice at all. It counts a belief as "both normal and laplace" or as neither.

References: Hutter, Hoos and Leyton-Brown, An Efficient Approach for Assessing Hyperparameter Importance, 2014; Hooker,
Generalized Functional ANOVA Diagnostics, 2007; Li and Rabitz, General formulation of HDMR component functions with
independent and correlated variables, 2012. Not here: which axes a study has, intervals, files (`importance`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Axis", "Decomposition", "Forest", "Joint", "decompose", "encode", "exact_forest", "fit_forest", "surface"]

Array = NDArray[np.float64]
Measure = Literal["choices", "cube"]

DENSE = 4_000_000  # numbers of a tree's box-by-atom matrix past which its atoms are merged
CUBE = 14  # choices of an axis past which Optuna's cube is out of reach
MERGED = 16  # atoms an axis keeps then, for pairs only


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
class Joint:
    """Two neighbouring categorical axes of which only some combinations exist, as indices into their choices."""

    first: int  # place of the first axis; the second is the next
    cells: tuple[tuple[int, int], ...]

    @property
    def projections(self) -> tuple[Array, Array]:
        """P_q and P_p: a function of the cells -> the parts that depend on the first axis and on the second alone."""
        count = len(self.cells)
        left, right = (np.array(side)[:, None] == np.unique(side) for side in zip(*self.cells, strict=True))
        one_hot = np.concatenate([left, right], 1).astype(float)
        one_hot -= one_hot.mean(0)
        coefficients = np.linalg.pinv(one_hot)
        split = left.shape[1]
        centring = np.eye(count) - 1 / count
        return one_hot[:, :split] @ coefficients[:split] @ centring, one_hot[:, split:] @ coefficients[
            split:
        ] @ centring


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
    curves: list[tuple[Array, Array]] = field(default_factory=list)  # per axis: places, (trees, places) predictions

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


def exact_forest(inputs: Array, scores: Array) -> Forest:
    """One tree that has the mean score of every distinct input for a leaf: decomposes a complete table exactly."""
    from sklearn.tree import DecisionTreeRegressor

    return Forest([DecisionTreeRegressor(random_state=0).fit(inputs, scores).tree_], math.nan)


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
    """The leaves of one tree on the atoms of each group; a group is an axis, or two joined ones."""

    values: Array  # (L,)
    shares: Array  # w_lg, (L, G)
    low: NDArray[np.intp]  # first atom of numeric groups, (L, G)
    high: NDArray[np.intp]  # one past the last
    members: dict[int, Array]  # categorical groups: indicator of boxes on atoms, (L, A_g)
    weights: list[Array]  # measure of the atoms of each group, sums to 1
    edges: list[Array]  # of numeric groups


def decompose(
    axes: Sequence[Axis],
    forest: Forest,
    pairs: bool = True,
    measure: Measure = "choices",
    joint: Joint | None = None,
    curves: bool = False,
) -> Decomposition:
    """Main effects and, if asked for, pair interactions of every tree. Trees without variance are left out."""
    axes = tuple(axes)
    size = len(axes)
    owners = [place for place in range(size) if joint is None or place != joint.first + 1]  # first axis of each group
    projections = joint.projections if joint is not None else ()
    main, both, seen = [], [], []
    for tree in forest.trees:
        boxes = _boxes(tree, axes, measure, joint)
        mass = boxes.shares.prod(1)
        mean = np.average(boxes.values, weights=mass)
        centred = mass * (boxes.values - mean)
        variance = float(centred @ (boxes.values - mean))
        if not variance > 1e-300:
            continue
        marginals = [_marginal(boxes, group, centred) for group in range(len(owners))]
        effects, effects_of_pairs = np.zeros(size), np.zeros((size, size))
        effects[owners] = [weight @ m**2 for weight, m in zip(boxes.weights, marginals, strict=True)]
        product = _product(boxes, centred) if pairs else None
        if product is not None:
            effects_of_pairs[np.ix_(owners, owners)] = _pair_effects(*product)
        if joint is not None:
            _split(joint.first, projections, owners, marginals, product, effects, effects_of_pairs)
        main.append(effects / variance)
        both.append(effects_of_pairs / variance)
        if curves:
            seen.append([mean + part for part in _curve(axes, joint, owners, boxes, marginals)])
    return Decomposition(
        axes,
        np.array(main).reshape(-1, size),
        np.array(both).reshape(-1, size, size),
        forest.r2,
        [(_places(axis), np.array([tree[place] for tree in seen])) for place, axis in enumerate(axes)] if seen else [],
    )


def surface(axes: Sequence[Axis], forest: Forest, first: int, second: int) -> Array:
    """The forest's mean prediction for every combination of two categorical axes, all else averaged out, (A, B)."""
    total = np.zeros((axes[first].columns, axes[second].columns))
    for tree in forest.trees:
        boxes = _boxes(tree, tuple(axes), "choices", None)
        mass = boxes.values * np.delete(boxes.shares, [first, second], axis=1).prod(1)
        total += boxes.members[first].T @ (mass[:, None] * boxes.members[second])
    return total / len(forest.trees)


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


def _boxes(tree: Any, axes: Sequence[Axis], measure: Measure, joint: Joint | None) -> _Boxes:
    bounds = np.array([axis.bounds for axis in axes for _ in range(axis.columns)], float)
    values, lows, highs = _leaf_bounds(tree, bounds[:, 0], bounds[:, 1])
    shares: list[Array] = []
    first: list[NDArray[np.intp]] = []
    last: list[NDArray[np.intp]] = []
    members: dict[int, Array] = {}
    weights: list[Array] = []
    edges: list[Array] = []
    column = 0
    nowhere = np.zeros(len(values), np.intp)
    for place, axis in enumerate(axes):
        low, high = lows[:, column : column + axis.columns], highs[:, column : column + axis.columns]
        column += axis.columns
        if axis.categorical:
            indicator, weight = _atoms(low, high, measure)
            if joint is not None and place == joint.first + 1:  # the group before becomes the joined one
                before, here = (np.array(side) for side in zip(*joint.cells, strict=True))
                indicator = members[len(weights) - 1][:, before] * indicator[:, here]
                weight = np.full(len(joint.cells), 1 / len(joint.cells))
                members[len(weights) - 1], weights[-1], shares[-1] = indicator, weight, indicator @ weight
                continue
            members[len(weights)] = indicator
            share = indicator @ weight
            starts, stops, edge = nowhere, nowhere, np.empty(0)
        else:
            bottom, top = axis.bounds
            edge = np.unique(np.concatenate([low[:, 0], high[:, 0]]))
            weight = np.diff(edge) / (top - bottom)
            starts, stops = np.searchsorted(edge, low[:, 0]), np.searchsorted(edge, high[:, 0])
            share = (high[:, 0] - low[:, 0]) / (top - bottom)
        for known, new in zip((shares, first, last, weights, edges), (share, starts, stops, weight, edge), strict=True):
            known.append(new)  # type: ignore[attr-defined]
    alive = np.stack(shares, 1).min(1) > 0  # a box of combinations that do not exist has no measure
    return _Boxes(
        values[alive],
        np.stack(shares, 1)[alive],
        np.stack(first, 1)[alive],
        np.stack(last, 1)[alive],
        {group: indicator[alive] for group, indicator in members.items()},
        weights,
        edges,
    )


def _atoms(lows: Array, highs: Array, measure: Measure) -> tuple[Array, Array]:
    """Indicator (L, A) and measure (A,) of a categorical axis: its choices, or the corners of the one-hot cube."""
    is_one, is_zero = np.asarray(lows > 0), np.asarray(highs < 1)
    if measure == "choices":
        choices = lows.shape[1]
        named = is_one.sum(1, keepdims=True)
        inside = np.where(named > 0, is_one, ~is_zero) & (named <= 1)
        return inside.astype(float), np.full(choices, 1 / choices)
    split = np.flatnonzero((is_one | is_zero).any(0))
    if len(split) > CUBE:
        raise ValueError(
            f"the cube of a categorical axis with {len(split)} choices has 2^{len(split)} corners, expected at most "
            f"2^{CUBE}; use measure='choices'"
        )
    corners = np.array(list(itertools.product([False, True], repeat=len(split))), bool).reshape(2 ** len(split), -1)
    conflict = is_one[:, split].astype(float) @ ~corners.T + is_zero[:, split].astype(float) @ corners.T
    return (conflict == 0).astype(float), np.full(len(corners), 1 / len(corners))


def _marginal(boxes: _Boxes, place: int, mass: Array) -> Array:
    """m_g at the atoms of one group."""
    part = mass / boxes.shares[:, place]
    if place in boxes.members:
        return part @ boxes.members[place]
    size = len(boxes.weights[place]) + 1
    jumps = np.bincount(boxes.low[:, place], part, size) - np.bincount(boxes.high[:, place], part, size)
    return np.cumsum(jumps)[:-1]


def _excess(boxes: _Boxes) -> tuple[NDArray[np.float32], Array, NDArray[np.intp]]:
    """U = [a in l_g] / w_lg - 1 of all axes side by side (L, A), the atoms' measure (A,), where each axis starts.

    An axis that a box does not cut has U = 0. Axes with many atoms are merged into MERGED equal parts (a box then has
    the share of the part that it covers), so that the matrix stays in bounds; that smooths a marginal by 1 / MERGED of
    its range.
    """
    count = len(boxes.values)
    merge = count * sum(map(len, boxes.weights)) > DENSE
    weights = [
        np.full(MERGED, 1 / MERGED) if merge and place not in boxes.members and len(weight) > MERGED else weight
        for place, weight in enumerate(boxes.weights)
    ]
    starts = np.cumsum([0, *(len(weight) for weight in weights)])
    excess = np.zeros((count, starts[-1]), np.float32)
    for place, weight in enumerate(weights):
        cut = np.flatnonzero(boxes.shares[:, place] < 1)
        share = boxes.shares[cut, place, None]
        if place in boxes.members:
            inside: NDArray[Any] = boxes.members[place][cut]
        elif weight is boxes.weights[place]:
            atom = np.arange(len(weight))
            inside = (boxes.low[cut, place, None] <= atom) & (atom < boxes.high[cut, place, None])
        else:
            edge = boxes.edges[place]
            grid = MERGED * (edge - edge[0]) / (edge[-1] - edge[0])
            low, high = grid[boxes.low[cut, place], None], grid[boxes.high[cut, place], None]
            part = np.arange(MERGED)
            inside = np.clip(high - part, 0, 1) - np.clip(low - part, 0, 1)
        excess[cut, starts[place] : starts[place + 1]] = inside / share - 1
    return excess, np.concatenate(weights), starts[:-1]


def _product(boxes: _Boxes, mass: Array) -> tuple[Array, Array, NDArray[np.intp]]:
    """Since sum_l c_l = 0, m_gh(a, b) - m_g(a) - m_h(b) = sum_l c_l U_la U_lb: U' diag(c) U, the atoms' measure, starts."""
    excess, weights, starts = _excess(boxes)
    return ((excess * mass[:, None].astype(np.float32)).T @ excess).astype(np.float64), weights, starts


def _pair_effects(product: Array, weights: Array, starts: NDArray[np.intp]) -> Array:
    """V_gh of all groups."""
    square = product**2
    square *= weights
    effect = np.add.reduceat(np.add.reduceat(square, starts, axis=1) * weights[:, None], starts, axis=0)
    np.fill_diagonal(effect, 0)
    return effect


def _split(
    first: int,
    projections: Sequence[Array],
    owners: Sequence[int],
    marginals: Sequence[Array],
    product: tuple[Array, Array, NDArray[np.intp]] | None,
    effects: Array,
    pairs: Array,
) -> None:
    """What the joined group explains, in place: to its first axis, its second and their interaction, alone and with others."""
    second, group = first + 1, owners.index(first)
    m = marginals[group]
    total = float(np.mean(m**2))
    effects[first], effects[second] = (float(np.mean((part @ m) * m)) for part in projections)
    pairs[first, second] = pairs[second, first] = total - effects[first] - effects[second]
    if product is None:
        return
    values, weights, starts = product
    stops = [*starts[1:], len(weights)]
    rows = values[starts[group] : stops[group]]
    for place, part in zip((first, second), projections, strict=True):
        shared = ((part @ rows) * rows).mean(0) * weights
        for other, owner in enumerate(owners):
            if other != group:
                pairs[place, owner] = pairs[owner, place] = float(shared[starts[other] : stops[other]].sum())


def _places(axis: Axis, count: int = 64) -> Array:
    """Where a marginal curve is shown: choices as 0..C-1, or places along the range in the forest's units."""
    low, high = axis.bounds
    middles = (np.arange(count) + 0.5) / count
    return np.arange(axis.columns, dtype=float) if axis.categorical else low + (high - low) * middles


def _curve(
    axes: Sequence[Axis], joint: Joint | None, owners: Sequence[int], boxes: _Boxes, marginals: Sequence[Array]
) -> list[Array]:
    """One tree's centred marginal prediction at the places of every axis."""
    curves: list[Array] = []
    for group, owner in enumerate(owners):
        m = marginals[group]
        if joint is not None and owner == joint.first:
            for side in zip(*joint.cells, strict=True):
                chosen = np.array(side)
                counts = np.maximum(np.bincount(chosen), 1)
                curves.append(np.bincount(chosen, m) / counts)
        elif axes[owner].categorical:
            curves.append(m)
        else:
            curves.append(m[np.searchsorted(boxes.edges[group], _places(axes[owner])).clip(1, len(m)) - 1])
    return curves

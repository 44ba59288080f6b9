r"""fANOVA: the share of a forest's variance that each axis explains by itself, and each pair of axes beyond that.

A random forest is fitted to scores y of points x on axes 1..G. A tree is a partition of the space into boxes l with
values v_l, so its functional ANOVA under a product measure is exact and needs no sampling. With w_lg the measure of
box l on axis g, and c_l = (v_l - mean) prod_g w_lg,

    m_g(a)    = sum_l c_l / w_lg          [a in l_g]                     marginal of axis g at a
    m_gh(a,b) = sum_l c_l / (w_lg w_lh)   [a in l_g] [b in l_h]          marginal of the pair
    V_g = Var m_g,    V_gh = Var(m_gh - m_g - m_h),    importance = V / Var(tree), averaged over trees

The boxes of a tree (`boxes`) cut each axis into a few atoms: intervals between split points, or choices. So V_g takes one
cumulative sum, and all V_gh of a tree are blocks of one matrix product U' diag(c) U, with U_la = [a in l_g] / w_lg - 1 on
the atoms of all axes (`interactions`). This is faster than walking through the tree for every atom.

The measure is uniform on the range of a numeric axis (on its logarithm if the axis says so) and on the choices of a
categorical one: the search space. Some combinations of choices are not in it, such as infinite pairs of posterior and
prior: two axes with holes are joined (`Joint`), and only existing combinations count. With holes the two are dependent, and
a function m of them is split by least squares, m = m_q + m_p + rest with m_q, m_p centred; the share of each part is its
covariance with m. Without holes this is the ordinary decomposition. The shares sum to one in both cases.

`measure="cube"` is Optuna's FanovaImportanceEvaluator: uniform over the cube of the one-hot columns, most of whose corners
are no choice at all, such as "both normal and laplace" or neither.

References: Hutter, Hoos and Leyton-Brown, An Efficient Approach for Assessing Hyperparameter Importance, 2014; Hooker,
Generalized Functional ANOVA Diagnostics, 2007; Li and Rabitz, General formulation of HDMR component functions with
independent and correlated variables, 2012. Not here: the axes of a study (`axes`), intervals (`importance`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autovae.report.boxes import Boxes, Joint, Measure, boxes_of
from autovae.report.forest import Array, Axis, Forest
from autovae.report.interactions import pair_effects, product_of, split_joint

__all__ = ["Decomposition", "decompose", "surface"]


@dataclass(frozen=True)
class Decomposition:
    """Importances as fractions of the trees' variance, one row per tree; means over trees are the estimates."""

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

    @property
    def effects(self) -> Array:
        """Main effects on the diagonal, interactions off it."""
        return self.pairs + np.diag(self.main)


def decompose(
    axes: Sequence[Axis],
    forest: Forest,
    pairs: bool = True,
    measure: Measure = "choices",
    joint: Joint | None = None,
    curves: bool = False,
) -> Decomposition:
    """Main effects and, on request, interactions of every tree. Trees without variance are left out."""
    axes = tuple(axes)
    size = len(axes)
    owners = [place for place in range(size) if joint is None or place != joint.first + 1]  # first axis of each group
    projections = joint.projections if joint is not None else ()
    main, both, seen = [], [], []
    for tree in forest.trees:
        boxes = boxes_of(tree, axes, measure, joint)
        mass = boxes.shares.prod(1)
        mean = np.average(boxes.values, weights=mass)
        centred = mass * (boxes.values - mean)
        variance = float(centred @ (boxes.values - mean))
        if not variance > 1e-300:
            continue
        marginals = [_marginal(boxes, group, centred) for group in range(len(owners))]
        effects, effects_of_pairs = np.zeros(size), np.zeros((size, size))
        effects[owners] = [weight @ m**2 for weight, m in zip(boxes.weights, marginals, strict=True)]
        product = product_of(boxes, centred) if pairs else None
        if product is not None:
            effects_of_pairs[np.ix_(owners, owners)] = pair_effects(*product)
        if joint is not None:
            split_joint(joint.first, projections, owners, marginals, product, effects, effects_of_pairs)
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
    """The forest's mean prediction for every combination of two categorical axes, averaged over all else, (A, B)."""
    total = np.zeros((axes[first].columns, axes[second].columns))
    for tree in forest.trees:
        boxes = boxes_of(tree, tuple(axes), "choices", None)
        mass = boxes.values * np.delete(boxes.shares, [first, second], axis=1).prod(1)
        total += boxes.members[first].T @ (mass[:, None] * boxes.members[second])
    return total / len(forest.trees)


def _marginal(boxes: Boxes, place: int, mass: Array) -> Array:
    """m_g at the atoms of one group."""
    part = mass / boxes.shares[:, place]
    if place in boxes.members:
        return part @ boxes.members[place]
    size = len(boxes.weights[place]) + 1
    jumps = np.bincount(boxes.low[:, place], part, size) - np.bincount(boxes.high[:, place], part, size)
    return np.cumsum(jumps)[:-1]


def _places(axis: Axis, count: int = 64) -> Array:
    """Where a marginal curve is evaluated: choices as 0..C-1, or places along the range in the forest's units."""
    low, high = axis.bounds
    middles = (np.arange(count) + 0.5) / count
    return np.arange(axis.columns, dtype=float) if axis.categorical else low + (high - low) * middles


def _curve(
    axes: Sequence[Axis], joint: Joint | None, owners: Sequence[int], boxes: Boxes, marginals: Sequence[Array]
) -> list[Array]:
    """One tree's centred marginal prediction at the places of every axis."""
    curves: list[Array] = []
    for group, (owner, m) in enumerate(zip(owners, marginals, strict=True)):
        if joint is not None and owner == joint.first:
            sides = (np.array(side) for side in zip(*joint.cells, strict=True))
            curves += [np.bincount(side, m) / np.maximum(np.bincount(side), 1) for side in sides]
        elif axes[owner].categorical:
            curves.append(m)
        else:
            curves.append(m[np.searchsorted(boxes.edges[group], _places(axes[owner])).clip(1, len(m)) - 1])
    return curves

"""A regression tree as boxes: its leaves on the atoms of every axis (intervals between split points, or choices).

Two categorical axes with holes are joined into one group (`Joint`), whose atoms are the combinations that exist.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autovae.report.forest import Array, Axis

__all__ = ["CUBE", "Boxes", "Joint", "Measure", "boxes_of"]

Measure = Literal["choices", "cube"]
CUBE = 14  # choices of an axis past which Optuna's cube is out of reach


@dataclass(frozen=True)
class Joint:
    """Two neighbouring categorical axes of which only some combinations exist, as indices into their choices."""

    first: int  # place of the first axis; the second is the next
    cells: tuple[tuple[int, int], ...]

    @property
    def projections(self) -> tuple[Array, Array]:
        """P_q and P_p: a function of the cells -> its parts that depend on the first axis and on the second."""
        count = len(self.cells)
        left, right = (np.array(side)[:, None] == np.unique(side) for side in zip(*self.cells, strict=True))
        one_hot = np.concatenate([left, right], 1).astype(float)
        one_hot -= one_hot.mean(0)
        fit, split = np.linalg.pinv(one_hot) @ (np.eye(count) - 1 / count), left.shape[1]
        return one_hot[:, :split] @ fit[:split], one_hot[:, split:] @ fit[split:]


@dataclass(frozen=True)
class Boxes:
    """The leaves of one tree on the atoms of each group; a group is an axis, or two joined ones."""

    values: Array  # (L,)
    shares: Array  # w_lg, (L, G)
    low: NDArray[np.intp]  # first atom of numeric groups, (L, G)
    high: NDArray[np.intp]  # one past the last
    members: dict[int, Array]  # categorical groups: indicator of boxes on atoms, (L, A_g)
    weights: list[Array]  # measure of the atoms of each group, sums to 1
    edges: list[Array]  # of numeric groups


def boxes_of(tree: Any, axes: Sequence[Axis], measure: Measure, joint: Joint | None) -> Boxes:
    """The leaves of a tree. Boxes of combinations that do not exist have no measure and are left out."""
    bounds = np.array([axis.bounds for axis in axes for _ in range(axis.columns)], float)
    values, lows, highs = _leaf_bounds(tree, bounds[:, 0], bounds[:, 1])
    shares, weights, edges = list[Array](), list[Array](), list[Array]()
    first, last = list[NDArray[np.intp]](), list[NDArray[np.intp]]()
    members: dict[int, Array] = {}
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
    alive = np.stack(shares, 1).min(1) > 0
    starts, stops = np.stack(first, 1)[alive], np.stack(last, 1)[alive]
    indicators = {group: indicator[alive] for group, indicator in members.items()}
    return Boxes(values[alive], np.stack(shares, 1)[alive], starts, stops, indicators, weights, edges)


def _leaf_bounds(tree: Any, low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Values, lower and upper bounds (L, columns) of the leaves: children cut their parent's box, one level at a time."""
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

"""Pair interactions of one tree: all of them as blocks of one matrix product (notation: `fanova`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autovae.report.boxes import Boxes
from autovae.report.forest import Array

__all__ = ["pair_effects", "product_of", "split_joint"]

DENSE = 4_000_000  # entries of a tree's box-by-atom matrix past which its atoms are merged
MERGED = 16  # atoms per axis after merging, for pairs only


def product_of(boxes: Boxes, mass: Array) -> tuple[Array, Array, NDArray[np.intp]]:
    """Since sum_l c_l = 0, m_gh(a, b) - m_g(a) - m_h(b) = sum_l c_l U_la U_lb: U' diag(c) U, the atoms' measure, starts."""
    excess, weights, starts = _excess(boxes)
    return ((excess * mass[:, None].astype(np.float32)).T @ excess).astype(np.float64), weights, starts


def _excess(boxes: Boxes) -> tuple[NDArray[np.float32], Array, NDArray[np.intp]]:
    """U = [a in l_g] / w_lg - 1 of all axes side by side (L, A), the atoms' measure (A,), where each axis starts.

    U = 0 for an axis that a box does not cut. To bound the matrix, axes with many atoms are merged into MERGED equal parts,
    of which a box has the share that it covers; this smooths a marginal by 1 / MERGED of its range.
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


def pair_effects(product: Array, weights: Array, starts: NDArray[np.intp]) -> Array:
    """V_gh of all groups."""
    square = product**2
    square *= weights
    effect = np.add.reduceat(np.add.reduceat(square, starts, axis=1) * weights[:, None], starts, axis=0)
    np.fill_diagonal(effect, 0)
    return effect


def split_joint(
    first: int,
    projections: Sequence[Array],
    owners: Sequence[int],
    marginals: Sequence[Array],
    product: tuple[Array, Array, NDArray[np.intp]] | None,
    effects: Array,
    pairs: Array,
) -> None:
    """Split in place what the joined group explains, by itself and with others, into its two axes and their interaction."""
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

r"""Pruners by name: which members of a batch stop at a rung.

The members of a batch reach a rung (an epoch) together and are compared there. Several objectives rank them by
non-dominated fronts, and within a front by the first objective. The remaining members are stacked again.

halving     the best share `keep` of the batch continues (Jamieson and Talwalkar 2016)
hyperband   trial n belongs to bracket n mod (r + 1) of r rungs; bracket b is first compared at rung b, so some trials are
            never pruned early (Li et al. 2018); within a bracket the best share continues
median      members worse than the median of all earlier trials at this rung stop (Golovin et al. 2017), from 5 trials on
none        nothing stops
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["PRUNERS", "Rung", "fronts", "ranking"]

LEAST_EARLIER = 5  # trials at a rung before the median is used


@dataclass(frozen=True)
class Rung:
    """Members at a rung: their objectives (lower is better), their trial numbers, and the objectives of earlier trials."""

    values: Mapping[int, tuple[float, ...]]  # by place in the batch
    numbers: Mapping[int, int]
    index: int  # which rung of the study this is, from 0
    rungs: int
    keep: float
    earlier: Sequence[tuple[float, ...]] = ()


def fronts(values: Sequence[tuple[float, ...]]) -> list[int]:
    """The non-dominated front of each vector: 0 if no other is at least as good everywhere and better somewhere, etc.

    NaN and infinity come last.
    """
    table = np.array([[v if math.isfinite(v) else math.inf for v in row] for row in values], dtype=float)
    front = np.full(len(table), -1)
    level = 0
    while (front < 0).any():
        left = np.flatnonzero(front < 0)
        rows = table[left]
        no_worse = (rows[:, None] <= rows[None]).all(-1)
        better = (rows[:, None] < rows[None]).any(-1)
        dominated = (no_worse & better).any(0)
        front[left[~dominated]] = level
        level += 1
    return front.tolist()


def ranking(values: Mapping[int, tuple[float, ...]]) -> list[int]:
    """Places, best first: by front, then by the first objective, then in order."""
    places = list(values)
    level = dict(zip(places, fronts([values[place] for place in places]), strict=True))
    return sorted(places, key=lambda p: (not math.isfinite(values[p][0]), level[p], values[p][0], p))


def _halving(rung: Rung) -> list[int]:
    ranked = ranking(rung.values)
    return ranked[max(1, math.ceil(rung.keep * len(ranked))) :]


def _hyperband(rung: Rung) -> list[int]:
    brackets: dict[int, dict[int, tuple[float, ...]]] = {}
    for place, value in rung.values.items():
        brackets.setdefault(rung.numbers[place] % (rung.rungs + 1), {})[place] = value
    stopped = []
    for bracket, values in brackets.items():
        if bracket <= rung.index:
            stopped += ranking(values)[max(1, math.ceil(rung.keep * len(values))) :]
    return stopped


def _median(rung: Rung) -> list[int]:
    known = [row for row in rung.earlier if all(map(math.isfinite, row))]
    if len(known) < LEAST_EARLIER:
        return []
    medians = np.median(np.array(known), axis=0)
    return [place for place, row in rung.values.items() if not (np.array(row) <= medians).any()]


PRUNERS: dict[str, Callable[[Rung], list[int]]] = {
    "halving": _halving,
    "hyperband": _hyperband,
    "median": _median,
    "none": lambda rung: [],
}

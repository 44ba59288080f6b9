"""Pruners: who stops at a rung."""

import math

import numpy as np
import pytest

from autovae.search.pruners import PRUNERS, Rung, fronts, ranking


def rung(values, **changes):
    table = {place: value if isinstance(value, tuple) else (value,) for place, value in enumerate(values)}
    settings = {"numbers": dict(enumerate(range(len(values)))), "index": 0, "rungs": 2, "keep": 0.5, **changes}
    return Rung(table, **settings)


def test_halving_keeps_the_best_half_and_never_nobody():
    assert sorted(PRUNERS["halving"](rung([3.0, 1.0, 2.0, 4.0]))) == [0, 3]
    assert PRUNERS["halving"](rung([3.0])) == []
    assert PRUNERS["halving"](rung([math.nan, 1.0])) == [0]


def test_a_bracket_that_starts_later_is_not_judged_early():
    values = [float(v) for v in range(12, 0, -1)]
    stopped = PRUNERS["hyperband"](rung(values))
    assert {place % 3 for place in stopped} == {0}
    later = PRUNERS["hyperband"](rung(values, index=1))
    assert {place % 3 for place in later} == {0, 1}


def test_the_median_is_that_of_earlier_trials():
    earlier = [(float(v),) for v in range(1, 8)]
    assert PRUNERS["median"](rung([3.9, 4.0, 4.1], earlier=earlier)) == [2]
    assert PRUNERS["median"](rung([3.9, 99.0], earlier=earlier[:3])) == []


def test_fronts_are_those_of_brute_force():
    values = [tuple(row) for row in np.random.default_rng(0).integers(0, 5, (40, 3)).astype(float)]
    found = fronts(values)

    def dominates(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    left, level = set(range(len(values))), 0
    while left:
        front = {i for i in left if not any(dominates(values[j], values[i]) for j in left)}
        assert {i for i in left if found[i] == level} == front
        left, level = left - front, level + 1


def test_with_several_objectives_the_front_comes_first():
    values = {0: (1.0, 9.0), 1: (2.0, 1.0), 2: (1.5, 9.5), 3: (math.nan, 0.0)}
    assert ranking(values) == [0, 1, 2, 3]


def test_nothing_stops_where_nothing_is_asked_for():
    assert PRUNERS["none"](rung([1.0, math.inf])) == []


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_answers_with_places(name):
    values = [float(v) for v in np.random.default_rng(1).normal(size=9)]
    stopped = PRUNERS[name](rung(values, earlier=[(v,) for v in values]))
    assert set(stopped) < set(range(9))

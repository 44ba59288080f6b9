"""Standings: pairing by points removes their spread, and a lead within its error is not sure."""

import math

import pytest
import torch

from autovae.reproductions.comparison import compare, pooled_spread


def values(shift, seed, seeds=4, points=200, spread=0.1):
    difficulty = 10 * torch.randn(points, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(seeds, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return difficulty + shift + spread * noise[:, None]


def test_pairing_removes_the_spread_of_points():
    found = compare({"a": values(0, 1), "b": values(1, 2)}, "a")
    assert found["b"].lead == pytest.approx(1, abs=0.3)
    assert found["b"].sure
    assert found["b"].lead_error < 0.2 < found["b"].error_points
    assert found["a"].lead == found["a"].lead_error == 0


def test_without_a_lead_two_errors_are_rarely_exceeded():
    """About 8 % of the time with the 14 degrees of freedom of 8 seeds each."""
    found = [compare({"a": values(0, k, seeds=8), "b": values(0, k + 500, seeds=8)}, "a")["b"] for k in range(200)]
    assert sum(standing.sure for standing in found) < 0.15 * len(found)


def test_spread_is_pooled_and_unknown_without_seeds():
    assert pooled_spread({"a": values(0, 1, seeds=50), "b": values(3, 2, seeds=1)}) == pytest.approx(0.1, rel=0.3)
    assert math.isnan(pooled_spread({"a": values(0, 1, seeds=1)}))

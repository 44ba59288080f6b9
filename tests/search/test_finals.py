"""The winner rule: paired by seed, corrected for having picked the best of several."""

import numpy as np
import pytest
from scipy import stats

from autovae.search.finals import paired_gain


def test_one_candidate_is_the_plain_paired_t_interval():
    rng = np.random.default_rng(0)
    baseline, candidate = rng.normal(3, 0.1, 20), rng.normal(2.9, 0.1, 20)
    gain = paired_gain(baseline, candidate, 1)
    expected = stats.ttest_rel(baseline, candidate).confidence_interval(0.95)
    assert (gain.low, gain.high) == pytest.approx((expected.low, expected.high))


def test_more_candidates_widen_the_interval():
    baseline, candidate = np.arange(10.0), np.arange(10.0) - np.linspace(0, 1, 10)
    one, five = paired_gain(baseline, candidate, 1), paired_gain(baseline, candidate, 5)
    assert five.high - five.low > one.high - one.low
    assert five.mean == one.mean


def test_picking_the_best_of_equals_rarely_wins():
    """Of m candidates no better than the baseline the best is picked: the interval's lower end passes 0 in <= 5 %."""
    rng = np.random.default_rng(1)
    wins = 0
    for _ in range(400):
        baseline = rng.normal(size=8)
        candidates = rng.normal(size=(3, 8))
        best = candidates[candidates.mean(1).argmin()]
        wins += paired_gain(baseline, best, 3).low > 0
    assert wins / 400 < 0.05


def test_failed_seeds_drop_out_in_pairs():
    gain = paired_gain(np.array([1.0, 2.0, np.nan]), np.array([0.5, 1.0, 0.0]), 1)
    assert gain.seeds == 2
    assert gain.mean == pytest.approx(0.75)

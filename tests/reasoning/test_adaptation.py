"""What warm-up learns: dual averaging, pooled variance, Stan's windows, Halton points, the ChEES slope."""

import itertools
import math

import pytest
import torch

from autovae.reasoning.adaptation import ChEES, DualAveraging, PooledVariance, halton, windows


@pytest.mark.parametrize("target", [0.6, 0.8])
def test_dual_averaging_reaches_the_target(target):
    dual = DualAveraging(1.0, target)
    for _ in range(2000):
        dual.update(math.exp(-3 * dual.step))  # acceptance falls with the step
    assert math.exp(-3 * dual.final) == pytest.approx(target, abs=0.01)


def test_dual_averaging_of_the_paper_by_hand():
    dual = DualAveraging(0.5, 0.8)
    dual.update(0.4)
    error = (0.8 - 0.4) / 11
    log_step = math.log(5.0) - error / 0.05
    assert dual.step == pytest.approx(math.exp(log_step))
    assert dual.final == pytest.approx(math.exp(log_step))  # the first weight is one
    dual.update(1.0)
    error = (1 - 1 / 12) * error + (0.8 - 1.0) / 12
    second = math.log(5.0) - math.sqrt(2) / 0.05 * error
    assert dual.step == pytest.approx(math.exp(second))
    assert dual.final == pytest.approx(math.exp(2**-0.75 * second + (1 - 2**-0.75) * log_step))


def test_pooled_variance_is_that_of_all_chains_together():
    values = torch.randn(40, 6, 3).double() * torch.tensor([1.0, 10.0, 0.1]).double() + 1e4
    pooled = PooledVariance(3, values)
    for row in values:
        pooled.update(row)
    n = 240
    exact = values.flatten(0, 1).var(0)
    torch.testing.assert_close(pooled.shrunk(), exact * n / (n + 5) + 1e-3 * 5 / (n + 5), rtol=1e-8, atol=0)
    pooled.restart()
    pooled.update(values[0])
    torch.testing.assert_close(pooled.shrunk(), values[0].var(0) * 6 / 11 + 1e-3 * 5 / 11, rtol=1e-8, atol=0)


def test_windows_are_those_of_stan():
    assert windows(1000) == (75, [100, 150, 250, 450, 950], 950)
    assert windows(500) == (75, [100, 150, 250, 450], 450)
    assert windows(150) == (75, [100], 100)
    assert windows(100) == (15, [90], 90)
    assert windows(10) == (10, [], 10)
    for warmup in range(0, 3000, 7):
        first, ends, stop = windows(warmup)
        assert 0 <= first <= stop <= warmup
        assert ends == sorted(set(ends))
        assert not ends or ends[-1] == stop


def test_halton_covers_the_unit_interval():
    assert [halton(i) for i in range(4)] == [0.5, 0.25, 0.75, 0.125]
    points = sorted(halton(i) for i in range(1023))
    assert max(b - a for a, b in itertools.pairwise(points)) < 1.01 / 1024


def test_chees_follows_the_slope_of_its_criterion():
    """For a unit Gaussian the change of square distance peaks at a quarter turn, so the expected one at h T ~ pi / 2."""
    generator = torch.Generator().manual_seed(0)
    chees = ChEES(0.3, rate=0.05)
    for i in range(1500):
        start = torch.randn(64, 10, generator=generator)
        momentum = torch.randn(64, 10, generator=generator)
        t = halton(i) * chees.length
        end, final = start * math.cos(t) + momentum * math.sin(t), momentum * math.cos(t) - start * math.sin(t)
        chees.update(start, end, final, torch.ones(64), halton(i))
    # E over h of sin^2(h T) rises to a maximum where tan(2 T) = 2 T, T = 2.2467
    assert chees.final == pytest.approx(2.2467, rel=0.15)


def test_chees_ignores_divergent_chains():
    chees = ChEES(1.0)
    start = torch.randn(4, 3)
    end, momentum = torch.randn(4, 3), torch.randn(4, 3)
    end[0], momentum[0] = math.inf, math.nan
    chees.update(start, end, momentum, torch.tensor([0.0, 1.0, 1.0, 1.0]), 0.5)
    assert math.isfinite(chees.length)
    assert chees.length != 1.0
    chees.update(start, end, momentum, torch.zeros(4), 0.5)
    assert math.isfinite(chees.length)

"""Curves of bounds: their laws in K and alpha, and the closed forms of a linear-Gaussian model."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from autovae.metrics.curves import bound_curves, bound_in_blocks, encoder_weights


def test_at_the_exact_posterior_every_curve_is_flat(linear_vae) -> None:
    vae, data, exact = linear_vae()
    log_w = encoder_weights(vae, data, data.test, 40, density="density")
    for row in bound_curves(log_w, (-math.inf, -1.0, 0.0, 1.0, math.inf), (1, 5, 40)):
        assert row.bound == pytest.approx(float(exact.mean()), abs=1e-10)
        assert row.gap == pytest.approx(0, abs=1e-10)


def test_off_it_curves_follow_their_laws(linear_vae) -> None:
    vae, data, exact = linear_vae(shift=0.5, stretch=0.8)
    log_w = encoder_weights(vae, data, data.test, 4000, density="density")
    rows = {
        (row.alpha, row.samples): row for row in bound_curves(log_w, (-1.0, 0.0, 0.5, 1.0, 2.0), (1, 10, 100, 1000))
    }
    elbo = float(exact.mean()) - 3 * (0.5 * (0.64 + 0.25 - 1) - math.log(0.8))  # log p - KL(q || posterior), 3 latents
    for alpha in (-1.0, 0.0, 0.5, 1.0, 2.0):
        assert rows[alpha, 1].bound == pytest.approx(rows[1.0, 1].bound, abs=1e-9)  # K = 1: all equal
    assert rows[1.0, 1].bound == pytest.approx(elbo, abs=0.02)
    assert rows[1.0, 1000].bound == pytest.approx(rows[1.0, 1].bound, abs=1e-9)  # alpha = 1: K changes nothing
    for k in (10, 100, 1000):  # nonincreasing in alpha
        values = [rows[alpha, k].bound for alpha in (-1.0, 0.0, 0.5, 1.0, 2.0)]
        assert all(a >= b for a, b in itertools.pairwise(values))
    tighter = [rows[0.0, k].bound for k in (1, 10, 100, 1000)]
    assert all(a < b for a, b in itertools.pairwise(tighter))
    assert rows[0.0, 1000].bound == pytest.approx(float(exact.mean()), abs=0.02)
    assert rows[-1.0, 1000].gap > 0  # no lower bound
    mixed = 0.5 * 0.64 + 0.5  # Renyi at 1/2 in closed form
    renyi = 0.5 * 0.25 / (2 * mixed) - math.log(0.8) + math.log(mixed)
    assert rows[0.5, 1000].bound == pytest.approx(float(exact.mean()) - 3 * renyi, abs=0.02)


def test_blocks_are_means_of_bounds() -> None:
    log_w = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.stack([log_w[:3].logsumexp(0), log_w[3:6].logsumexp(0)]).mean(0) - math.log(3)
    torch.testing.assert_close(bound_in_blocks(log_w, 0.0, 3), expected)
    with pytest.raises(ValueError, match="K = 8"):
        bound_in_blocks(log_w, 0.0, 8)
    assert {row.samples for row in bound_curves(log_w)} == {1, 2, 5}

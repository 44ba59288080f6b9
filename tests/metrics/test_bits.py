"""Bits per dimension: one scale for all likelihoods, whatever the company and the chunks."""

import math

import pytest
import torch

from autovae.data.datasets import load
from autovae.metrics import bits
from autovae.metrics.bits import log_mass_bounds, score
from autovae.model.vae import build
from autovae.spec import VAESpec


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def members(data, **settings):
    base = VAESpec(latent_dim=3, hidden=(8,), **settings)
    likelihoods = ("bernoulli", "continuous_bernoulli", "normal")
    return [build(base.replace(likelihood=name, seed=seed), data.domain) for seed, name in enumerate(likelihoods)]


def test_a_member_scores_the_same_alone_and_in_any_chunks(digits, monkeypatch):
    vaes = members(digits)
    together = log_mass_bounds(vaes, digits, digits.validation, samples=4, points=30)
    monkeypatch.setattr(bits, "CHUNK", {"cpu": 500})
    for place, vae in enumerate(vaes):
        alone = log_mass_bounds([vae], digits, digits.validation, samples=4, points=30)
        torch.testing.assert_close(alone[0], together[place], rtol=1e-4, atol=1e-3)


def test_the_bound_is_a_distribution_over_levels(digits):
    """One feature, its probability summed over all levels through the score's own path, is one."""
    import numpy as np

    x = np.arange(17).repeat(4)[:, None]
    data = load(x, levels=17)
    for vae in members(data):
        everything = log_mass_bounds([vae], data, data.train, samples=2000, seed=0)[0].double().exp()
        per_level = {int(v): float(p) for v, p in zip(data.train.x[:, 0], everything, strict=True)}
        if len(per_level) == 17:
            assert sum(per_level.values()) == pytest.approx(1.0, abs=0.1)


def test_the_score_carries_its_error(digits):
    values = torch.tensor([-100.0, -110.0, -90.0])
    result = score(values, digits, digits.validation, samples=4)
    assert result.bits == pytest.approx(100 / (64 * math.log(2)))
    assert result.standard_error == pytest.approx(10 / math.sqrt(3) / (64 * math.log(2)))
    assert result.levels == 17


def test_more_samples_tighten_the_bound(digits):
    vae = members(digits)[0]
    few, many = (log_mass_bounds([vae], digits, digits.validation, k, 100).mean() for k in (1, 64))
    assert many > few


@pytest.mark.parametrize("posterior", ["uniform", "exponential", "cauchy"])
def test_every_family_has_a_finite_score(digits, posterior):
    vae = build(VAESpec(posterior=posterior, prior=posterior, latent_dim=3, hidden=(8,)), digits.domain)
    assert torch.isfinite(log_mass_bounds([vae], digits, digits.validation, 8, 50)).all()

"""Masses as what training follows: quick forms against exact ones, slopes included, and means with folded ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import autovae
from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.beliefs.likelihoods.beta_density import log_beta_mass
from autovae.beliefs.likelihoods.line_masses import normal_bins
from autovae.spec import VAESpec

DOUBLE = torch.float64


def bins(levels: int, dtype: torch.dtype = DOUBLE) -> tuple[torch.Tensor, torch.Tensor]:
    edges = (torch.arange(levels + 1, dtype=DOUBLE) / levels).to(dtype)
    lower, upper = edges[:-1].clone(), edges[1:].clone()
    lower[0], upper[-1] = -math.inf, math.inf
    return lower, upper


@pytest.mark.parametrize("per_pixel", [False, True])
@pytest.mark.parametrize(("levels", "scale"), [(256, 0.1), (256, 0.5), (17, 0.6)])
def test_quick_normal_masses_and_slopes_are_the_exact_ones(levels, scale, per_pixel):
    generator = torch.Generator().manual_seed(0)
    lower, upper = bins(levels, torch.float32)
    loc = (1.4 * torch.rand(60, levels, generator=generator) - 0.2).requires_grad_()
    width = torch.full((60, levels) if per_pixel else (), scale).requires_grad_()
    value = normal_bins(lower, upper, loc, width)
    assert value is not None
    weight = torch.rand(value.shape, generator=generator)
    (value * weight).sum().backward()
    exact_loc, exact_width = (t.detach().double().requires_grad_() for t in (loc, width))
    exact = LIKELIHOODS["normal"].log_mass(lower.double(), upper.double(), exact_loc, exact_width)
    (exact * weight.double()).sum().backward()
    torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(loc.grad.double(), exact_loc.grad, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(width.grad.double(), exact_width.grad, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("levels", "concentration"), [(256, 8.0), (256, 120.0), (17, 3.0), (17, 100.0)])
def test_beta_masses_looked_up_by_level_are_those_of_the_bins(levels, concentration):
    """Many points of one grid share their nodes; a single row of bins does not."""
    lower, upper = bins(levels)
    logit = torch.linspace(-4, 4, 9, dtype=DOUBLE).unsqueeze(-1).requires_grad_()
    nu = torch.tensor(concentration, dtype=DOUBLE)
    many = log_beta_mass(lower.expand(9, -1), upper.expand(9, -1), logit.expand(9, levels), nu)
    (slope,) = torch.autograd.grad(many.sum(), logit)
    alone = torch.stack([log_beta_mass(lower, upper, row.expand(levels), nu) for row in logit])
    (expected,) = torch.autograd.grad(alone.sum(), logit)
    torch.testing.assert_close(many, alone, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_folded_mean_is_the_mean_of_fine_levels(name):
    head, levels = LIKELIHOODS[name], 4000
    if head.trains_on == "levels" and head.linear_in_x:
        pytest.skip("two outcomes have no levels to fold")
    lower, upper = bins(levels)
    eta = torch.linspace(-1, 2, 7, dtype=DOUBLE)
    scale = torch.tensor(0.3, dtype=DOUBLE) if head.has_scale else None
    found = head.folded_mean(eta, scale, 0.0, 1.0)
    masses = head.log_mass(lower.expand(7, -1), upper.expand(7, -1), eta.unsqueeze(-1).expand(7, levels), scale).exp()
    torch.testing.assert_close(found, masses @ ((torch.arange(levels, dtype=DOUBLE) + 0.5) / levels), rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ["normal", "laplace", "logistic", "student_t"])
def test_folded_means_stay_in_range_and_finite_in_float32(name):
    eta = torch.tensor([-1e4, -3.0, 0.0, 0.5, 1.0, 40.0, 1e4]).requires_grad_()
    for scale in (1e-3, 0.1, 30.0):
        mean = LIKELIHOODS[name].folded_mean(eta, torch.tensor(scale), 0.0, 1.0)
        (slope,) = torch.autograd.grad(mean.sum(), eta)
        assert bool(((mean >= 0) & (mean <= 1)).all())
        assert bool(slope.isfinite().all())


def test_auto_follows_masses_of_levels_but_for_heads_that_train_on_levels():
    assert VAESpec(likelihood="normal").objective_on("unit") == "mass"
    assert VAESpec(likelihood="normal").objective_on("real") == "density"
    assert VAESpec(likelihood="bernoulli").objective_on("unit") == "density"
    assert VAESpec(likelihood="normal", objective="density").objective_on("unit") == "density"


def test_a_head_trained_on_masses_scores_better_and_decodes_inside_the_range():
    spec = VAESpec(latent_dim=4, hidden=(32,), likelihood="normal", epochs=15, batch_size=128, learning_rate=3e-3)
    by_mass, by_density = autovae.fit_population([spec, spec.replace(objective="density")], "digits")
    data = by_mass.data
    bits = [
        autovae.metrics.bits.score(row, data, data.validation, 8).bits
        for row in autovae.metrics.bits.log_mass_bounds([by_mass.model, by_density.model], data, data.validation, 8)
    ]
    assert bits[0] < bits[1] - 0.1
    prior = autovae.to_prior(by_mass)
    drawn = prior.decode(prior.sample(200, torch.Generator().manual_seed(0)))
    observed = prior.observe(prior.sample(50, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1))
    for x in (drawn, observed, by_mass.reconstruct(data.test.x[:50])):
        assert float(x.min()) >= 0
        assert float(x.max()) <= 1


def test_learned_scales_start_at_the_distance_of_data_from_their_mean():
    rng = np.random.default_rng(0)
    data = autovae.data.datasets.load((100 + 20 * rng.standard_normal((400, 5, 5))).clip(0, 255).astype(np.uint8))
    for scale in ("global", "pixel"):
        spec = VAESpec(latent_dim=2, hidden=(8,), likelihood="normal", scale=scale, epochs=1, learning_rate=1e-9)
        fit = autovae.fit(spec, data)
        stack = fit.model.stacked
        (_, _, found), *_ = stack._heads(stack.decode(torch.zeros(1, 1, 2)))
        assert float(found.detach().mean()) == pytest.approx(20 / 256, rel=0.2)

"""One logistic head for all: only the mean of a model's own head matters, and the scale is the best there is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.data.datasets import load
from autovae.metrics.bits import log_mass_bounds
from autovae.metrics.common_head import common_head_scores, fit_common_scales
from autovae.model.vae import VAE, build
from autovae.spec import VAESpec

BASE = VAESpec(latent_dim=3, hidden=(8,), likelihood="logistic")


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def bounds(vaes, data, scales, points=20):
    return log_mass_bounds(vaes, data, data.validation, 4, points, common_scale=torch.tensor(scales))


def test_a_logistic_model_under_its_own_scale_keeps_its_score(digits) -> None:
    vae = build(BASE, digits.domain)
    own = log_mass_bounds([vae], digits, digits.validation, 4, 20)
    torch.testing.assert_close(bounds([vae], digits, [vae.scale.item()]), own, rtol=1e-5, atol=1e-4)


def test_heads_of_the_same_means_score_the_same(digits) -> None:
    """Bernoulli and beta logits have one mean, normal and Laplace locations another; their shapes are gone."""
    for names in (("bernoulli", "beta"), ("normal", "laplace", "student_t", "mse")):
        vaes = [build(BASE.replace(likelihood=name), digits.domain) for name in names]
        found = bounds(vaes, digits, [0.1] * len(names))
        for row in found[1:]:
            torch.testing.assert_close(row, found[0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("real", [False, True])
def test_the_fitted_scale_is_the_best(digits, real: bool) -> None:
    data = load(torch.randn(300, 6, generator=torch.Generator().manual_seed(0)).numpy()) if real else digits
    vaes: list[VAE] = [build(BASE.replace(likelihood=name), data.domain) for name in ("normal", "laplace")]
    scales = fit_common_scales(vaes, data, points=30)

    def nats(factor: float) -> torch.Tensor:
        split = data.validation
        return log_mass_bounds(vaes, data, split, 16, 30, common_scale=factor * scales).double().mean(1)

    best = nats(1.0)
    for factor in (0.25, 0.8, 0.97, 1.03, 1.25, 4.0):
        assert bool((nats(factor) < best + 1e-4).all())
    assert bool((nats(0.25) < best - 0.1).all())


def test_a_member_scores_the_same_alone(digits) -> None:
    vaes = [build(BASE.replace(likelihood=name, seed=1), digits.domain) for name in ("bernoulli", "normal")]
    together = common_head_scores(vaes, digits, digits.validation, 4, 30)
    for vae, expected in zip(vaes, together, strict=True):
        (alone,) = common_head_scores([vae], digits, digits.validation, 4, 30)
        assert alone.bits == pytest.approx(expected.bits, abs=1e-4)
        assert alone.levels == 17
        assert alone.standard_error > 0


def test_unobserved_values_drop_out(digits) -> None:
    mask = torch.zeros(digits.validation.x.shape, dtype=torch.bool)
    mask[:, 0, 0] = True
    data = replace(digits, validation=replace(digits.validation, mask=mask))
    vae = build(BASE, data.domain)
    with torch.no_grad():  # a posterior that is the prior and a decoder that does not look: only the likelihood is left
        vae.encoder[-1].weight.zero_()
        vae.encoder[-1].bias.zero_()
        vae.decoder[-1].weight.zero_()
        vae.decoder[-1].bias.fill_(0.5)
    found = bounds([vae], data, [0.2])[0]
    levels = data.validation.x[:20, 0, 0]
    edges = torch.arange(1, 17) / 17
    inf = torch.tensor([math.inf])
    lower, upper = torch.cat([-inf, edges])[levels.long()], torch.cat([edges, inf])[levels.long()]
    expected = LIKELIHOODS["logistic"].log_mass(lower, upper, torch.full((20,), 0.5), torch.tensor(0.2))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

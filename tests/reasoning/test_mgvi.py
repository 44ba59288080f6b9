"""MGVI and geoVI: the algebra of the metric, the nonlinear transformation, and a bent posterior against quadrature."""

import math

import pytest
import torch
from torch import nn

from autovae.export.prior import PriorModule
from autovae.reasoning import MGVI, Categorical, Criterion, Gaussian, GeoVI, LatentPosterior
from autovae.reasoning.mgvi import Metric, _Fit


@pytest.mark.parametrize(("points", "k", "dim"), [(1, 3, 8), (4, 5, 8), (1, 8, 8), (1, 0, 4)])
def test_powers_of_the_metric_against_dense_algebra(points, k, dim):
    jacobian = torch.randn(points, k, dim, generator=torch.Generator().manual_seed(0)).double()
    jacobian[:, : k // 2] *= 100  # far from the identity
    metric = Metric(jacobian)
    dense = torch.eye(dim).double() + torch.einsum("pki,pkj->ij", jacobian, jacobian) / points
    values, vectors = torch.linalg.eigh(dense)
    v = torch.randn(6, dim).double()
    for exponent in (-1.0, -0.5, 0.5, 1.0):
        expected = v @ (vectors * values**exponent) @ vectors.T
        torch.testing.assert_close(metric.power(exponent, v), expected, rtol=1e-9, atol=1e-9)
    assert metric.log_det() == pytest.approx(float(torch.logdet(dense)), abs=1e-9)


def test_degenerate_outputs_are_no_trouble():
    row = torch.randn(8).double()
    metric = Metric(torch.stack([row, row, 0 * row])[None])
    dense = torch.eye(8).double() + 2 * torch.outer(row, row)
    v = torch.randn(3, 8).double()
    torch.testing.assert_close(metric.solve(v), torch.linalg.solve(dense, v.T).T)


def bent_question(outputs=3):
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, outputs)).double()
    prior = PriorModule.from_decoder(decoder)
    y = prior.decode(torch.randn(1, 4).double())[0]
    return LatentPosterior(prior, Gaussian(None, y, 0.2))


@pytest.mark.parametrize("outputs", [3, 9])
def test_geovi_draws_solve_their_equation(outputs):
    method, question = GeoVI(rounds=2, solve=40), bent_question(outputs)
    fit = _Fit(method, question, 0.1 * torch.ones(4).double())
    noise = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).double()
    residuals = method.residuals(fit, noise)
    reached = fit.metric_at_mean().power(-0.5, fit.bend(fit.mean + residuals))
    torch.testing.assert_close(reached, noise, atol=1e-5, rtol=1e-5)


def bent_grid():
    """Two latents, one measured bent combination: the posterior by quadrature on a grid."""
    prior = PriorModule.from_decoder(nn.Identity(), latent_dim=2).double()
    question = LatentPosterior(
        prior, Gaussian(lambda x: (0.7 * x[:, :1]).exp() + 0.5 * x[:, 1:], torch.tensor([1.5]).double(), 0.4)
    )
    axis = torch.linspace(-6, 6, 401).double()
    grid = torch.cartesian_prod(axis, axis)
    return question, grid, question.log_prob(grid).softmax(0)


def test_geovi_is_nearer_than_mgvi_and_both_are_near():
    question, grid, weights = bent_grid()
    mean = weights @ grid
    std = (weights @ (grid - mean).square()).sqrt()
    log_likelihood = float(weights @ question.log_likelihood(grid))
    for method, tolerance in ((MGVI(pairs=50, rounds=10), 0.35), (GeoVI(pairs=50, rounds=10), 0.12)):
        draws = method.run(question, draws=4000, seed=1)
        assert ((draws.flat.mean(0) - mean).abs() < tolerance * std).all(), method.name
        assert ((draws.flat.std(0) / std).log().abs() < 0.12).all(), method.name
        error = float(question.log_likelihood(draws.flat).mean()) - log_likelihood
        assert abs(error) < (0.05 if method.name == "geovi" else 0.4), method.name


def test_pairs_are_antithetic_and_draws_independent():
    question = bent_question()
    pairs = MGVI(pairs=4, rounds=3).run(question, seed=1)
    assert pairs.xi.shape == (1, 8, 4)
    centre = pairs.transport.loc
    torch.testing.assert_close(pairs.xi[0, :4] - centre, centre - pairs.xi[0, 4:])
    assert MGVI(pairs=4, rounds=3).run(question, draws=5, seed=1).xi.shape == (1, 5, 4)


def test_a_label_is_reached_with_few_outputs():
    torch.manual_seed(0)
    classifier = nn.Linear(6, 4, bias=False).double()
    prior = PriorModule.from_decoder(nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 6)).double())
    classes = classifier(prior.decode(prior.sample(2000))).argmax(-1)
    label = int(classes.bincount(minlength=4).topk(2).indices[1])  # not the most frequent
    assert classes.eq(label).double().mean() < 0.5
    question = LatentPosterior(prior, Categorical(classifier, label, power=100.0))
    draws = MGVI(pairs=5, rounds=8).run(question, draws=300, seed=2)
    assert classifier(draws.decode()[0]).argmax(-1).eq(label).double().mean() > 0.9


def test_criteria_are_flagged_since_they_have_no_metric():
    prior = PriorModule.from_decoder(nn.Identity(), latent_dim=2).double()
    draws = MGVI(rounds=2).run(LatentPosterior(prior, Criterion(lambda x: x.sum(-1))))
    assert "no Fisher metric for Criterion" in draws.flags[0]


def test_watch_sees_the_mean_move():
    seen = []
    method = MGVI(rounds=3, watch=lambda i, power, mean, std: seen.append(mean))
    draws = method.run(bent_question())
    assert len(seen) == draws.info["newton_steps"]
    torch.testing.assert_close(seen[-1], draws.transport.loc)


def test_float32_with_sharp_evidence():
    torch.manual_seed(0)
    prior = PriorModule.from_decoder(nn.Linear(5, 8))
    y = prior.decode(torch.ones(1, 5))[0]
    draws = MGVI(rounds=3).run(LatentPosterior(prior, Gaussian(None, y, 1e-3)), seed=1)
    torch.testing.assert_close(draws.transport.loc, torch.ones(5), atol=1e-3, rtol=0)
    spread = draws.transport.root @ draws.transport.root.T
    exact = torch.linalg.inv(
        torch.eye(5).double() + 1e6 * prior.decoder.weight.double().T @ prior.decoder.weight.double()
    )
    torch.testing.assert_close(spread.double(), exact, atol=1e-3 * float(exact.abs().max()), rtol=1e-2)
    assert math.isfinite(draws.info["energy"])
